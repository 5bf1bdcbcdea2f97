"""The waterfall of one prediction: from the level, term by term, to the seconds predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from malearn.kernel.estimation.explanation import Term
from malearn.learning.titled_figure import INK, titled

__all__ = ["waterfall"]

#: Most bars; what is smaller is drawn as one.
_MOST = 14
_SMALL = 0.002  # log-seconds
_SHORTER, _LONGER, _SOFT = "#0072b2", "#d55e00", "#8a8a8a"
#: Behind numbers, so that a line that crosses them leaves them readable.
_PLATE = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1.0}


def waterfall(
    terms: Sequence[Term],
    title: str,
    actual: float | None = None,
    interval: tuple[float, float] | None = None,
) -> Figure:
    """`terms`, in log-seconds, as steps on a logarithmic axis of seconds, the first on top.

    The level is one bar, from which the others start. `actual` and `interval` are in seconds.
    """
    level = math.fsum(term.log_seconds for term in terms if term.group == "level")
    rest = [term for term in terms if term.group != "level"]
    shown = sorted(rest, key=lambda term: -abs(term.log_seconds))[:_MOST]
    # Chosen by size, drawn in the order given, which groups the terms.
    shown = [term for term in rest if term in shown and abs(term.log_seconds) >= _SMALL]
    steps = [(_label(term), term.log_seconds) for term in shown]
    left = [term.log_seconds for term in rest if term not in shown]
    if left:
        steps.append((f"{len(left)} smaller terms", math.fsum(left)))
    end = level + math.fsum(step for _, step in steps)
    figure, axes = titled(title, (9.0, 1.9 + 0.36 * (len(steps) + 2)))
    ends = [level]
    for _, step in steps:
        ends.append(ends[-1] + step)
    points = [math.exp(x) for x in ends]
    if interval is not None:
        axes.axvspan(*interval, color=_SOFT, alpha=0.15, lw=0, label="80 % interval")
    for row, (_, step) in enumerate(steps, 1):
        left_end = math.exp(min(ends[row - 1], ends[row]))
        width = math.exp(max(ends[row - 1], ends[row])) - left_end
        axes.barh(row, width, left=left_end, color=_LONGER if step > 0 else _SHORTER, height=0.65)
        axes.plot([math.exp(ends[row])] * 2, [row - 0.3, row + 1.3], color=_SOFT, lw=0.8)
        at = math.exp(max(ends[row - 1], ends[row]))
        axes.annotate(
            f"×{math.exp(step):.2f}", (at, row), (4, 0), textcoords="offset points", va="center",
            color=INK, fontsize=10, bbox=_PLATE,
        )  # fmt: skip
    for row, log_seconds in ((0, level), (len(steps) + 1, end)):
        axes.plot(math.exp(log_seconds), row, "D", color=INK, ms=7)
        axes.annotate(
            f"{math.exp(log_seconds):.3g} s", (math.exp(log_seconds), row), (8, 0),
            textcoords="offset points", va="center", color=INK, fontsize=11, fontweight="bold",
            bbox=_PLATE,
        )  # fmt: skip
    if actual is not None:
        axes.axvline(actual, color="#009e73", lw=1.8, ls="--", label=f"took {actual:.3g} s")
    if actual is not None or interval is not None:
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    axes.set_yticks(
        range(len(steps) + 2), ["level of the function", *(name for name, _ in steps), "prediction"]
    )
    axes.invert_yaxis()
    axes.set_xscale("log")
    every = [*points, *(interval or ()), *(() if actual is None else (actual,))]
    low, high = min(every), max(every)
    # Room on the right for the numbers beside the bars.
    axes.set_xlim(low / 1.08, high * max(1.12, (high / low) ** 0.15))
    # Within a factor of three a logarithmic locator finds one tick or none.
    if high / low < 3:
        axes.xaxis.set_major_locator(FixedLocator(MaxNLocator(5).tick_values(low, high)))
    else:
        subs = (1, 2, 3, 5, 7) if high / low < 30 else (1, 2, 5)
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=subs))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.set_xlabel("seconds")
    return figure


def _label(term: Term) -> str:
    if term.group != "model":
        return term.name
    if term.value is None:
        return f"model: {term.name}"
    value = "missing" if math.isnan(term.value) else f"{term.value:.4g}"
    return f"{term.name} = {value}"
