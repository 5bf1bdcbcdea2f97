"""What a fitted model promises, whatever its family."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from malearn.kernel.errors import TrainingError
from malearn.kernel.tool_types import declared
from malearn.learning import export, matrix, regressor
from malearn.learning.families import FAMILIES

LLM = declared()["llm_process"]


def test_answers_are_one_finite_positive_number_of_seconds_a_row(fitted) -> None:
    answers = fitted.regressor.seconds(fitted.rows.inputs)
    assert answers.shape == (len(fitted.rows),)
    assert answers.dtype == np.float64
    assert np.all(np.isfinite(answers) & (answers > 0))


def test_it_follows_the_times_it_was_shown(fitted) -> None:
    """Better, on average, than answering the median for everything."""
    actual = fitted.rows.log_seconds
    error = np.abs(np.log(fitted.regressor.seconds(fitted.rows.inputs)) - actual)
    assert error.mean() < np.abs(actual - np.median(actual)).mean()


def test_whatever_it_is_asked_it_stays_within_its_range(fitted) -> None:
    low, high = map(math.exp, fitted.regressor.log_range)
    width = len(fitted.rows.columns)
    wild = np.random.default_rng(0).normal(0, 1e6, (200, width)).astype(np.float32)
    answers = fitted.regressor.seconds(wild)
    assert low * 0.9999 <= answers.min() <= answers.max() <= high * 1.0001
    assert low <= fitted.rows.seconds.min() <= fitted.rows.seconds.max() <= high


def test_when_its_function_slows_down_so_does_the_answer(fitted) -> None:
    """All that history says moved by the same factor: the level is believed at once."""
    inputs = fitted.rows.inputs[40:].copy()
    before = np.median(fitted.regressor.seconds(inputs))
    inputs[:, fitted.rows.columns.index("level")] += np.float32(math.log(2))
    assert np.median(fitted.regressor.seconds(inputs)) > 1.3 * before


def test_where_nothing_is_known_it_answers_an_ordinary_time(fitted) -> None:
    nothing = np.full((1, len(fitted.rows.columns)), np.nan, dtype=np.float32)
    (answer,) = fitted.regressor.seconds(nothing)
    assert fitted.rows.seconds.min() / 2 <= answer <= fitted.rows.seconds.max() * 2


def test_importance_shares_sum_to_one_the_largest_first(fitted) -> None:
    shares = list(fitted.regressor.importance.values())
    assert set(fitted.regressor.importance) == set(fitted.rows.columns)
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_row_too_few_cannot_be_fitted_and_says_how_many_can(family: str, synthetic) -> None:
    need = FAMILIES[family].fewest_rows
    rows = matrix.build(LLM, synthetic(LLM, need - 1))
    with pytest.raises(TrainingError) as refused:
        regressor.fit(family, rows)
    assert str(refused.value) == (
        f"llm_process cannot be trained: {family} needs {need} rows, there are {need - 1}."
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_tasks_that_all_take_the_same_are_answered_with_that(family: str, synthetic) -> None:
    log = [replace(e, end=e.start + 4.0) for e in synthetic(LLM, 120)]
    rows = matrix.build(LLM, log)
    assert regressor.fit(family, rows).seconds(rows.inputs) == pytest.approx(4.0, rel=0.02)


@pytest.mark.parametrize("family", ["xgboost", "mlp"])
def test_an_update_is_a_model_like_any_other_and_exports_faithfully(family: str, fit) -> None:
    one = fit(family, "llm_process")
    updated = regressor.update(one.regressor, one.rows)
    assert updated.family == family
    model = export.to_onnx(updated, one.metadata)
    assert export.parity_error(model, updated, one.rows) <= export.PARITY


def test_an_update_widens_what_may_be_answered(fit) -> None:
    one = fit("xgboost", "llm_process")
    slower = replace(one.rows, seconds=100.0 * one.rows.seconds)
    updated = regressor.update(one.regressor, slower)
    assert updated.log_range[0] == one.regressor.log_range[0]
    assert math.exp(updated.log_range[1]) > slower.seconds.max()


def test_what_cannot_be_updated_says_why(fit) -> None:
    linear, trees = fit("linear", "llm_process"), fit("xgboost", "llm_process")
    with pytest.raises(TrainingError, match="this linear model can only be fitted anew"):
        regressor.update(linear.regressor, linear.rows)
    with pytest.raises(TrainingError, match="this xgboost model can only be fitted anew"):
        regressor.update(replace(trees.regressor, columns=("other",)), trees.rows)
    with pytest.raises(TrainingError, match="xgboost needs 40 rows, there are 3"):
        regressor.update(trees.regressor, trees.rows.rows(np.arange(3)))
