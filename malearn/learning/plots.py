"""The pictures a data scientist compares runs by. Returns figures, draws nothing on a screen.

Seconds and ratios stand on logarithmic axes, in words and sizes that are still read in the small
previews of MLflow; everyone can tell the colours apart (the palette of Okabe and Ito).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    StrMethodFormatter,
)
from numpy.typing import NDArray

from malearn.learning.matrix import Matrix
from malearn.learning.metrics import Scores
from malearn.learning.titled_figure import INK, titled

__all__ = [
    "calibration",
    "competitors",
    "coverage_over_time",
    "error_by_function",
    "error_over_time",
    "importance",
    "learning_curve",
    "of_candidate",
    "of_retraining",
    "predicted_against_actual",
    "residuals_over_time",
]

_SOFT, _BLUE, _ORANGE = "#8a8a8a", "#0072b2", "#d55e00"
_PALETTE = (_BLUE, "#e69f00", "#009e73", "#cc79a7", _ORANGE)

#: Most bars of a chart, and groups of a calibration; a group has at least so many rows.
_MOST_BARS, _GROUPS, _GROUP = 15, 10, 5
#: Ticks of an axis of small factors, even on a logarithmic scale.
_FACTORS = (0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5)
#: Residuals that a running median is taken of.
_WINDOW = 15

Vector = NDArray[np.float64]


def of_candidate(
    family: str,
    test: Matrix,
    predicted: Vector,
    importances: Mapping[str, float],
    scores: Mapping[str, Scores],
) -> dict[str, Figure]:
    """Every figure of one candidate, by the name it has in MLflow.

    `predicted` are its seconds for the rows of `test`; `scores` those of all who were measured
    there, by name, the candidate as `family`.
    """
    title = f"{test.tool_type.name}, {family}"
    start = np.array([e.start for e in test.executions])
    functions = [e.function for e in test.executions]
    own = scores[family]
    return {
        "predicted_against_actual": predicted_against_actual(
            test.seconds,
            predicted,
            f"{title}: MAE {own.mae:.3g} s, median error {own.median_ape:.0%}, n={own.n}",
        ),
        "residuals_over_time": residuals_over_time(
            start, test.seconds, predicted, f"{title}: how far off, over time"
        ),
        "calibration": calibration(test.seconds, predicted, f"{title}: is it right on average?"),
        "error_by_function": error_by_function(
            functions, test.seconds, predicted, f"{title}: error by function"
        ),
        "importance": importance(importances, f"{title}: what the model looks at"),
        "competitors": competitors(
            {name: s.mae for name, s in scores.items()}, family, f"{title}: against competitors"
        ),
    }


def of_retraining(
    family: str,
    test: Matrix,
    predicted: Vector,
    scores: Mapping[str, Scores],
    curve: Mapping[int, float],
    baseline: float,
) -> dict[str, Figure]:
    """Every figure of a retraining as a whole, by the name it has in MLflow.

    `predicted` are the seconds of the chosen `family` for the rows of `test`, `scores` those of
    all candidates and competitors there; `curve` and `baseline` are those of `learning_curve`.
    """
    name = test.tool_type.name
    errors = {who: s.mae for who, s in scores.items()}
    return {
        "all_candidates": competitors(errors, family, f"{name}: candidates and competitors"),
        "predicted_against_actual": predicted_against_actual(
            test.seconds, predicted, f"{name}, {family}: the newest {len(test)} executions"
        ),
        "learning_curve": learning_curve(
            curve, baseline, f"{name}, {family}: what more rows bring"
        ),
    }


def predicted_against_actual(actual: Vector, predicted: Vector, title: str) -> Figure:
    """Both in seconds on logarithmic axes, with the band within ±20 %."""
    figure, axes = _figure(title, (6.4, 5.8))
    low, high = _square(axes, actual, predicted)
    line = np.array([low, high])
    axes.fill_between(line, line / 1.2, line * 1.2, color=_SOFT, alpha=0.18, lw=0, label="± 20 %")
    axes.plot(line, line, color=_SOFT, lw=1)
    axes.scatter(actual, predicted, s=22, alpha=0.55, color=_BLUE, linewidths=0)
    axes.set_xlabel("actual, s")
    axes.set_ylabel("predicted, s")
    axes.legend(frameon=False, loc="upper left")
    return figure


def residuals_over_time(start: Vector, actual: Vector, predicted: Vector, title: str) -> Figure:
    """How far off, as a factor, in order of time; `start` in seconds since the epoch."""
    figure, axes = _figure(title, (8.0, 4.2))
    order = np.argsort(start)
    factor = (predicted / actual)[order]
    times: Any = np.array(start[order] * 1e6, dtype="datetime64[us]")
    axes.axhspan(1 / 1.2, 1.2, color=_SOFT, alpha=0.18, lw=0, label="± 20 %")
    axes.axhline(1.0, color=_SOFT, lw=1)
    # Within a context, since the setting is global and the process is the caller's.
    with rc_context({"date.converter": "concise"}):
        axes.scatter(times, factor, s=20, alpha=0.55, color=_BLUE, linewidths=0)
    if len(factor) >= _WINDOW:
        smooth = _running(factor, _WINDOW)
        axes.plot(times, smooth, color=_ORANGE, lw=2, label=f"median of {_WINDOW} tasks")
    furthest = 1.2 * float(max(factor.max(), 1 / factor.min(), 1.3))
    _logarithmic(axes, "y", 1 / furthest, furthest, "{x:g}×")
    if furthest < 3:
        axes.yaxis.set_major_locator(FixedLocator(_FACTORS))
        axes.set_ylim(1 / furthest, furthest)
    axes.set_xlabel("start of the task, UTC")
    axes.set_ylabel("predicted ÷ actual")
    axes.legend(frameon=False, ncols=2, loc="upper left")
    return figure


def calibration(actual: Vector, predicted: Vector, title: str) -> Figure:
    """Mean actual against mean predicted seconds, in groups of equal size by what was predicted.

    Bars hold the middle 80 % of a group's actual seconds. Points below the line: too long a
    prediction on average; above it: too short.
    """
    figure, axes = _figure(title, (6.4, 5.8))
    count = min(_GROUPS, max(1, len(actual) // _GROUP))
    groups = np.array_split(np.argsort(predicted), count)
    x = np.array([predicted[group].mean() for group in groups])
    y = np.array([actual[group].mean() for group in groups])
    ends = np.array([np.quantile(actual[group], [0.1, 0.9]) for group in groups]).T
    # A mean may lie outside the middle 80 %; its bar then begins at the mean.
    reach = np.abs(np.clip([y - ends[0], ends[1] - y], 0.0, None))
    low, high = _square(axes, np.concatenate([ends.ravel(), y]), x)
    axes.plot([low, high], [low, high], color=_SOFT, lw=1)
    axes.errorbar(
        x, y, yerr=reach, fmt="o-", color=_BLUE, ecolor=_SOFT, ms=7, lw=1.6, elinewidth=1.4
    )
    axes.set_xlabel(f"mean predicted, s ({count} groups of {len(actual) // count} tasks)")
    axes.set_ylabel("mean actual, s (bar: middle 80 %)")
    return figure


def error_by_function(
    functions: Sequence[str], actual: Vector, predicted: Vector, title: str
) -> Figure:
    """Mean absolute error per function, in seconds, the largest on top."""
    errors: dict[str, list[float]] = {}
    for function, y, p in zip(functions, actual, predicted, strict=True):
        errors.setdefault(function, []).append(abs(y - p))
    ranked = sorted(errors, key=lambda f: float(np.mean(errors[f])))[-_MOST_BARS:]
    means = [float(np.mean(errors[f])) for f in ranked]
    labels = [f"{m:.3g} s, n={len(errors[f])}" for m, f in zip(means, ranked, strict=True)]
    left = len(errors) - len(ranked)
    more = f" ({left} smaller ones left out)" if left else ""
    return _bars(
        ranked, means, labels, [_BLUE] * len(ranked), f"mean absolute error, s{more}", title
    )


def importance(weights: Mapping[str, float], title: str) -> Figure:
    """Shares of a model's attention, the largest on top."""
    top = list(weights.items())[:_MOST_BARS][::-1]
    names, shares = [name for name, _ in top], [share for _, share in top]
    labels = [f"{share:.0%}" for share in shares]
    figure = _bars(names, shares, labels, [_BLUE] * len(top), "share of all weights", title)
    figure.axes[0].xaxis.set_major_formatter(StrMethodFormatter("{x:.0%}"))
    return figure


def competitors(errors: Mapping[str, float], candidate: str, title: str) -> Figure:
    """Mean absolute error of all that the gate compared, in seconds, the best on top."""
    ranked = sorted(errors, key=lambda name: -errors[name])
    values = [errors[name] for name in ranked]
    colours = [_BLUE if name == candidate else _SOFT for name in ranked]
    labels = [f"{value:.3g} s" for value in values]
    return _bars(
        ranked, values, labels, colours, "mean absolute error in the test window, s", title
    )


def learning_curve(curve: Mapping[int, float], baseline: float, title: str) -> Figure:
    """Mean absolute error, in seconds, by the number of rows that were fitted on.

    `baseline` is the error of the best baseline, on the same rows.
    """
    figure, axes = _figure(title, (6.4, 4.6))
    axes.axhline(baseline, color=_SOFT, lw=1.4, ls="--", label="best baseline")
    axes.plot(list(curve), list(curve.values()), "o-", color=_BLUE, ms=7, lw=2)
    for rows, error in curve.items():
        axes.annotate(
            f"{error:.3g}", (rows, error), (0, 8), textcoords="offset points", ha="center"
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(curve)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.margins(x=0.1)
    # From 0 on, so that a small gain does not look large.
    axes.set_ylim(0, 1.25 * max(baseline, *curve.values()))
    axes.set_xlabel("rows fitted on, the latest ones")
    axes.set_ylabel("mean absolute error, s")
    axes.legend(frameon=False, loc="lower left")
    return figure


def error_over_time(
    actual: Vector, predicted: Mapping[str, Vector], title: str, window: int = 25
) -> Figure:
    """The running median of how far off each predictor was, in order of the tasks' start."""
    figure, axes = _figure(title, (8.6, 4.4))
    for name, colour, width in _lines(predicted):
        share = np.abs(predicted[name] - actual) / actual
        axes.plot(_running(share, window), label=name, color=colour, lw=width)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.0%}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(f"median error of {window} tasks")
    axes.set_xlabel("tasks, in order of their start")
    axes.legend(frameon=False, ncols=3, loc="upper left", bbox_to_anchor=(0, -0.2))
    return figure


def coverage_over_time(inside: Mapping[str, Vector], title: str, window: int = 100) -> Figure:
    """The running share of outcomes within the interval, per tool type; 0.8 is wanted."""
    figure, axes = _figure(title, (8.6, 4.4))
    axes.axhspan(0.77, 0.83, color=_SOFT, alpha=0.18, lw=0, label="77 to 83 %")
    for (name, values), colour in zip(inside.items(), _PALETTE, strict=False):
        if len(values) >= window // 2:
            axes.plot(_running(values, window, np.mean), label=name, color=colour, lw=1.8)
    axes.set_ylim(0.4, 1.02)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.0%}"))
    axes.set_ylabel(f"covered, of {window} tasks")
    axes.set_xlabel("tasks, in order of their start")
    axes.legend(frameon=False, ncols=3, loc="lower right")
    return figure


def _figure(title: str, size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure, axes = titled(title, size)
    axes.tick_params(labelsize=11)
    axes.xaxis.label.set_fontsize(12)
    axes.yaxis.label.set_fontsize(12)
    return figure, axes


def _bars(
    names: Sequence[str],
    values: Sequence[float],
    labels: Sequence[str],
    colours: Sequence[str],
    axis: str,
    title: str,
) -> Figure:
    """Horizontal bars, the last on top, each with its label."""
    figure, axes = _figure(title, (8.0, 1.6 + 0.4 * max(len(names), 3)))
    bars = axes.barh(names, values, color=colours)
    axes.bar_label(bars, labels, padding=4, color=INK, fontsize=11)
    axes.set_xlim(0, max(values, default=0.0) * 1.3 or 1)
    axes.set_xlabel(axis)
    return figure


def _square(axes: Axes, down: Vector, across: Vector) -> tuple[float, float]:
    """The same logarithmic axis of seconds both ways, wide enough for all; its ends."""
    low = float(min(down.min(), across.min())) * 0.85
    high = float(max(down.max(), across.max())) * 1.18
    _logarithmic(axes, "x", low, high, "{x:g}")
    _logarithmic(axes, "y", low, high, "{x:g}")
    return low, high


def _logarithmic(axes: Axes, which: Literal["x", "y"], low: float, high: float, form: str) -> None:
    """A logarithmic axis with round ticks that are neither too few nor too many."""
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    if high / low < 10:
        axis.set_major_locator(FixedLocator(MaxNLocator(5).tick_values(low, high)))
    else:
        axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if high / low < 300 else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter(form))


def _running(
    values: Vector, window: int, of: Callable[[Vector], np.floating[Any]] = np.median
) -> Vector:
    # A trailing window: a point shows only what had happened by then.
    return np.array([of(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))])


def _lines(predicted: Mapping[str, Vector]) -> list[tuple[str, str, float]]:
    """Name, colour and width of each line; the first one stands out and is drawn last."""
    ours, *others = predicted
    lines = [(name, colour, 1.0) for name, colour in zip(others, _PALETTE[1:], strict=False)]
    return [*lines, (ours, _BLUE, 2.0)]
