"""The pictures a data scientist compares runs by. Returns figures, draws nothing on a screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

__all__ = [
    "coverage_over_time",
    "error_by_function",
    "error_over_time",
    "importance",
    "predicted_against_actual",
    "residuals_over_time",
    "rivals",
]

_INK, _SOFT, _BLUE = "#222222", "#8a8a8a", "#2f6db5"
_PALETTE = (_BLUE, "#c98a2b", "#5b9a68", "#9a6bb0", "#b5564f")

Vector = NDArray[np.float64]


def predicted_against_actual(actual: Vector, predicted: Vector, title: str) -> Figure:
    """Both in seconds on logarithmic axes, with the band within ±20 %."""
    figure, axes = _figure(title, (5.6, 5.2))
    low = float(min(actual.min(), predicted.min())) * 0.8
    high = float(max(actual.max(), predicted.max())) * 1.25
    line = np.array([low, high])
    axes.fill_between(line, line / 1.2, line * 1.2, color=_SOFT, alpha=0.18, lw=0, label="± 20 %")
    axes.plot(line, line, color=_SOFT, lw=1)
    axes.scatter(actual, predicted, s=14, alpha=0.55, color=_BLUE, linewidths=0)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("actual, s")
    axes.set_ylabel("predicted, s")
    axes.legend(frameon=False, loc="upper left")
    return figure


def residuals_over_time(start: Vector, actual: Vector, predicted: Vector, title: str) -> Figure:
    """How far off, as a factor, in order of time; `start` in seconds since the epoch."""
    figure, axes = _figure(title, (8.0, 3.6))
    factor = predicted / actual
    order = np.argsort(start)
    times = np.array(start[order] * 1e6, dtype="datetime64[us]")
    axes.axhspan(1 / 1.2, 1.2, color=_SOFT, alpha=0.18, lw=0)
    axes.axhline(1.0, color=_SOFT, lw=1)
    axes.scatter(times, factor[order], s=12, alpha=0.55, color=_BLUE, linewidths=0)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}×"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("predicted ÷ actual")
    figure.autofmt_xdate()
    return figure


def error_by_function(
    functions: Sequence[str], actual: Vector, predicted: Vector, title: str
) -> Figure:
    """Mean absolute error per function, in seconds, the largest on top."""
    errors: dict[str, list[float]] = {}
    for function, y, p in zip(functions, actual, predicted, strict=True):
        errors.setdefault(function, []).append(abs(y - p))
    ranked = sorted(errors, key=lambda f: float(np.mean(errors[f])))[-20:]
    figure, axes = _figure(title, (8.0, 1.2 + 0.34 * max(len(ranked), 3)))
    means = [float(np.mean(errors[f])) for f in ranked]
    bars = axes.barh(ranked, means, color=_BLUE, alpha=0.8)
    axes.bar_label(
        bars,
        [f"{m:.3g} s · n={len(errors[f])}" for m, f in zip(means, ranked, strict=True)],
        padding=4,
        color=_INK,
        fontsize=8,
    )
    axes.set_xlim(0, max(means) * 1.3 or 1)
    axes.set_xlabel("mean absolute error, s")
    return figure


def importance(weights: Mapping[str, float], title: str) -> Figure:
    """Shares of a model's attention, the largest on top."""
    top = list(weights.items())[:20][::-1]
    figure, axes = _figure(title, (7.0, 1.2 + 0.3 * len(top)))
    axes.barh([name for name, _ in top], [share for _, share in top], color=_BLUE, alpha=0.8)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0%}"))
    axes.set_xlabel("share")
    return figure


def rivals(errors: Mapping[str, float], candidate: str, title: str) -> Figure:
    """Mean absolute error of everyone the gate compared, in seconds, the best on top."""
    ranked = sorted(errors, key=lambda name: -errors[name])
    figure, axes = _figure(title, (7.0, 1.2 + 0.4 * len(ranked)))
    colours = [_BLUE if name == candidate else _SOFT for name in ranked]
    values = [errors[name] for name in ranked]
    bars = axes.barh(ranked, values, color=colours, alpha=0.85)
    axes.bar_label(bars, [f"{v:.3g} s" for v in values], padding=4, color=_INK, fontsize=9)
    axes.set_xlim(0, max(values) * 1.2 or 1)
    axes.set_xlabel("mean absolute error on the newest slice, s")
    return figure


def _figure(title: str, size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, color=_INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    return figure, axes


def error_over_time(
    actual: Vector, predicted: Mapping[str, Vector], title: str, window: int = 25
) -> Figure:
    """The running median of how far off each predictor was, in order of the tasks' start."""
    figure, axes = _figure(title, (8.6, 3.8))
    for name, colour, width in _lines(predicted):
        share = np.abs(predicted[name] - actual) / actual
        axes.plot(_running(share, window), label=name, color=colour, lw=width)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.0%}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(f"median error of {window} tasks")
    axes.set_xlabel("tasks, in order of their start")
    axes.legend(frameon=False, ncols=3, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.2))
    return figure


def coverage_over_time(inside: Mapping[str, Vector], title: str, window: int = 100) -> Figure:
    """The running share of outcomes within the interval, per tool type; 0.8 is wanted."""
    figure, axes = _figure(title, (8.6, 3.6))
    axes.axhspan(0.77, 0.83, color=_SOFT, alpha=0.18, lw=0, label="77 to 83 %")
    for (name, values), colour in zip(inside.items(), _PALETTE, strict=False):
        if len(values) >= window // 2:
            axes.plot(_running(values, window, np.mean), label=name, color=colour, lw=1.4)
    axes.set_ylim(0.4, 1.02)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.0%}"))
    axes.set_ylabel(f"covered, of {window} tasks")
    axes.set_xlabel("tasks, in order of their start")
    axes.legend(frameon=False, ncols=3, fontsize=8, loc="lower right")
    return figure


def _running(
    values: Vector, window: int, of: Callable[[Vector], np.floating[Any]] = np.median
) -> Vector:
    return np.array([of(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))])


def _lines(predicted: Mapping[str, Vector]) -> list[tuple[str, str, float]]:
    """Name, colour and width of each line; the first one stands out and is drawn last."""
    ours, *others = predicted
    lines = [(name, colour, 1.0) for name, colour in zip(others, _PALETTE[1:], strict=False)]
    return [*lines, (ours, _BLUE, 2.0)]
