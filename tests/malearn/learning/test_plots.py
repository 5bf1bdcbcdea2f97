"""Plots draw what they are given, however odd, without a screen and without a warning."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from malearn.learning import plots

ACTUAL = np.array([0.4, 3.0, 20.0, 400.0])
PREDICTED = np.array([0.5, 2.0, 30.0, 300.0])


def drawn(figure: Figure) -> Image.Image:
    """The figure as a reader sees it; rendering is where a plot would fail or warn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer)


FIGURES = {
    "predicted": plots.predicted_against_actual(ACTUAL, PREDICTED, "a title"),
    "residuals": plots.residuals_over_time(np.arange(4) + 1.7e9, ACTUAL, PREDICTED, "a title"),
    "functions": plots.error_by_function(["f", "f", "g", "h"], ACTUAL, PREDICTED, "a title"),
    "importance": plots.importance({"level": 0.7, "words": 0.3}, "a title"),
    "competitors": plots.competitors({"xgboost": 1.0, "heuristic": 9.0}, "xgboost", "a title"),
    "calibration": plots.calibration(ACTUAL, PREDICTED, "a title"),
    "learning curve": plots.learning_curve({40: 3.0, 80: 2.0}, 4.0, "a title"),
    "one group": plots.calibration(ACTUAL[:1], PREDICTED[:1], "a title"),
    "one size": plots.learning_curve({40: 0.0}, 0.1, "a title"),
    "one row": plots.predicted_against_actual(ACTUAL[:1], ACTUAL[:1], "a title"),
    "one moment": plots.residuals_over_time(np.array([1.7e9]), ACTUAL[:1], ACTUAL[:1], "a title"),
    "no error": plots.error_by_function(["f"], ACTUAL[:1], ACTUAL[:1], "a title"),
    "no attention": plots.importance({"level": 0.0}, "a title"),
    "no competitor errs": plots.competitors(
        {"xgboost": 0.0, "heuristic": 0.0}, "xgboost", "a title"
    ),
    "decades": plots.predicted_against_actual(
        np.array([1e-3, 1e6]), np.array([1e6, 1e-3]), "a title"
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_an_image_with_its_title(name: str) -> None:
    figure = FIGURES[name]
    assert figure.get_suptitle() == "a title"
    assert min(drawn(figure).size) > 100


@pytest.mark.parametrize(
    "name", ["predicted", "residuals", "functions", "competitors", "calibration", "learning curve"]
)
def test_axes_say_what_they_measure_and_in_which_unit(name: str) -> None:
    axes = FIGURES[name].axes[0]
    assert any(unit in axes.get_xlabel() + axes.get_ylabel() for unit in (", s", "÷"))


def names(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_the_function_with_the_largest_error_stands_on_top() -> None:
    assert names(FIGURES["functions"]) == ["f", "g", "h"]


def test_the_best_of_the_competitors_stands_on_top_and_the_candidate_is_marked() -> None:
    assert names(FIGURES["competitors"]) == ["heuristic", "xgboost"]
    other, candidate = FIGURES["competitors"].axes[0].patches
    assert other.get_facecolor() != candidate.get_facecolor()


def test_of_very_many_functions_the_fifteen_worst_are_shown() -> None:
    functions = [f"f{i}" for i in range(50)]
    actual = np.ones(50)
    figure = plots.error_by_function(functions, actual, actual + np.arange(50), "a title")
    assert names(figure) == functions[35:]
