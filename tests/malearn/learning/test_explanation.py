"""What a model adds, input by input: the sum is the prediction, whatever the family."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from malearn.learning import contributions, explanation, explanation_plots
from malearn.learning.families import FAMILIES
from malearn.learning.regressor import Regressor
from tests.malearn.conftest import Fitted


def explained(fitted: Regressor, rows, background) -> list[explanation.RowExplanation]:
    everyone = {str(row): row for row in range(len(rows))}
    return explanation.explain_rows(fitted, rows, everyone, lambda: background)


def test_the_terms_sum_to_the_prediction_to_one_in_10_000(fitted: Fitted) -> None:
    """Over all rows, some far outside the range of training or without anything known."""
    rows = fitted.rows
    if FAMILIES[fitted.regressor.family].contributions is None:  # estimated, and not in a moment
        rows = rows.rows(np.arange(0, len(rows), 4))
    odd = rows.inputs.copy()
    odd[0] = np.nan
    odd[1, : len(rows.tool_type.features)] *= 1e4
    odd[2, rows.columns.index("level")] = 30.0
    found = explained(fitted.regressor, replace(rows, inputs=odd), fitted.rows.inputs)
    seconds = fitted.regressor.seconds(odd)
    assert len(found) == len(rows)
    for one, expected in zip(found, seconds, strict=True):
        assert one.predicted == expected
        total = math.exp(math.fsum(term.log_seconds for term in one.terms))
        assert total == pytest.approx(expected, rel=1e-4)
    assert any(term.group == "clip" for term in found[2].terms)
    assert found[0].terms[0].name == "median of training, for want of a level"


def test_each_family_names_its_method(fit) -> None:
    methods = {}
    for family in FAMILIES:
        fitted = fit(family, "llm_process")
        inputs = fitted.rows.inputs[:2]
        known = fitted.rows.inputs.copy
        methods[family] = contributions.of_regressor(fitted.regressor, inputs, known).method
    assert "pred_contribs" in methods["xgboost"]
    assert "coefficient" in methods["linear"]
    assert "shap" in methods["mlp"]


def test_a_linear_model_s_terms_are_its_products(fit) -> None:
    fitted = fit("linear", "llm_process")
    pipeline, inputs = fitted.regressor.estimator, fitted.rows.inputs[:5]
    found = contributions.of_regressor(fitted.regressor, inputs, lambda: inputs)
    expected = pipeline[:-1].transform(inputs) * pipeline[-1].coef_
    assert np.allclose(found.values, expected)


def test_typical_tasks_and_the_worst_are_other_tasks() -> None:
    actual = np.full(20, 10.0)
    predicted = actual * np.exp(np.linspace(0.0, 2.0, 20))
    found = explanation.typical_and_worst(actual, predicted)
    assert [found[f"worst {n}"] for n in (1, 2, 3)] == [19, 18, 17]
    assert {found[f"typical {n}"] for n in (1, 2, 3)} <= {8, 9, 10, 11}


def test_a_waterfall_starts_at_the_level_and_ends_at_the_prediction(fit) -> None:
    fitted = fit("xgboost", "vlm_process")
    rows = fitted.rows.rows(np.arange(1))
    (one,) = explained(fitted.regressor, rows, rows.inputs)
    figure = explanation_plots.waterfall(one.terms, "a task", 12.0, (3.0, 30.0))
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert (names[0], names[-1]) == ("level of the function", "prediction")
    texts = [text.get_text() for text in axes.texts]
    assert texts[-1] == f"{one.predicted:.3g} s"
    level = math.fsum(term.log_seconds for term in one.terms if term.group == "level")
    assert texts[-2] == f"{math.exp(level):.3g} s"
