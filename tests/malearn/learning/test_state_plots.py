"""Plots of a replay by state draw, whatever states and functions there are."""

from __future__ import annotations

import numpy as np
import pytest

from malearn.learning import state_plots


@pytest.mark.parametrize("states", [["steady"] * 8, ["cold", "in_doubt"] * 4])
def test_every_task_is_a_point_of_its_state(states: list[str]) -> None:
    actual = np.linspace(1.0, 9.0, 8)
    figure = state_plots.error_by_state(actual, actual[::-1].copy(), states, "a title")
    points = sum(len(found.get_offsets()) for found in figure.axes[0].collections)
    assert points == 8


def test_the_functions_that_ran_most_have_a_panel_each() -> None:
    functions = ["often", "often", "seldom", "often"]
    actual = np.array([1.0, 2.0, 30.0, 1.0])
    figure = state_plots.levels_over_time(functions, actual, actual, "a title")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["often", "seldom"]
    figure.canvas.draw()


def test_a_level_is_drawn_the_darker_the_likelier_it_holds() -> None:
    actual = np.array([1.0, 10.0])
    levels = [((1.0, 1.0),), ((1.0, 0.75), (10.0, 0.25))]
    figure = state_plots.levels_over_time(["f", "f"], actual, actual, "a title", levels)
    drawn = figure.axes[0].collections[1]
    assert np.asarray(drawn.get_offsets()).tolist() == [[0.0, 1.0], [1.0, 1.0], [1.0, 10.0]]
    certain, likely, unlikely = (colour[3] for colour in drawn.get_facecolors())
    assert certain > likely > unlikely
