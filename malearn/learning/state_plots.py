"""Plots of a replay by state: when answers were in doubt, and which levels were believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray

from malearn.kernel.estimation.history import BelievedLevel

__all__ = ["error_by_state", "levels_over_time"]

Vector = NDArray[np.float64]

_COLOURS: Mapping[str, str] = {"steady": "#0072b2", "in_doubt": "#e69f00", "cold": "#cc79a7"}
_LEVEL_COLOUR = "#d55e00"
_MOST_FUNCTIONS = 6


def error_by_state(actual: Vector, predicted: Vector, states: Sequence[str], title: str) -> Figure:
    """Each task's error, as the factor between outcome and prediction, coloured by its state."""
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    axes = figure.subplots()
    number, factor = np.arange(len(actual)), actual / predicted
    for state, colour in _COLOURS.items():
        here = np.array([found == state for found in states], dtype=bool)
        label = f"{state.replace('_', ' ')} ({here.sum()})"
        axes.scatter(number[here], factor[here], s=7, color=colour, label=label)
    axes.axhline(1.0, color="0.5", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xlabel("task, in order of start")
    axes.set_ylabel("outcome ÷ prediction")
    axes.legend(frameon=False, ncols=3)
    axes.set_title(title, loc="left")
    return figure


def levels_over_time(
    functions: Sequence[str],
    actual: Vector,
    predicted: Vector,
    title: str,
    levels: Sequence[Sequence[BelievedLevel]] = (),
) -> Figure:
    """For the functions that ran most: what each execution took, and what was believed of it.

    `levels`, of each task, are those its function was known at: drawn the darker, the likelier
    one was taken to hold.
    """
    most = [name for name, _ in Counter(functions).most_common(_MOST_FUNCTIONS)]
    figure = Figure(figsize=(9.0, 1.6 * len(most) + 0.8), layout="constrained")
    panels = figure.subplots(len(most), 1, sharex=True, squeeze=False)
    for axes, name in zip(panels[:, 0], most, strict=True):
        here = np.flatnonzero([function == name for function in functions])
        axes.scatter(here, actual[here], s=6, color="0.6", label="took")
        axes.step(
            here, predicted[here], where="mid", color="#0072b2", linewidth=1.0, label="predicted"
        )
        _draw_levels(axes, here, levels)
        axes.set_yscale("log")
        axes.set_ylabel("s")
        axes.set_title(name, loc="left", fontsize="small")
    panels[-1, 0].set_xlabel("task, in order of start")
    panels[0, 0].legend(frameon=False, ncols=3, fontsize="small")
    figure.suptitle(title)
    return figure


def _draw_levels(
    axes: Axes, here: NDArray[np.intp], levels: Sequence[Sequence[BelievedLevel]]
) -> None:
    """Every level known at each of the tasks `here`, the darker the likelier it was."""
    if not levels:
        return
    found = np.array(
        [(task, seconds, share) for task in here for seconds, share in levels[task]]
    ).reshape(-1, 3)
    colours = np.tile(to_rgba(_LEVEL_COLOUR), (len(found), 1))
    # Never quite transparent: a level that is remembered but not believed is still seen.
    colours[:, 3] = 0.08 + 0.92 * found[:, 2]
    axes.scatter(found[:, 0], found[:, 1], marker="_", s=14, color=colours, zorder=3)
    axes.scatter(
        [], [], marker="_", s=14, color=_LEVEL_COLOUR, label="level, the likelier the darker"
    )
