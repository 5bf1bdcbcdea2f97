"""The pictures of a comparison of policies: gains, lateness, and the slots of one run."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from malearn.kernel import text
from malearn.learning.policy_comparison import FEWEST_DRAWN, Comparison
from malearn.learning.simulation import WITHOUT_SECONDS
from malearn.learning.titled_figure import INK, titled

__all__ = ["completions", "gantt", "lateness", "of_comparison"]

#: A colour for each predictor.
_COLOURS: Mapping[str, str] = {
    "function_ema": "#e69f00",
    "malearn": "#0072b2",
    "noise_limited": "#009e73",
    "oracle": "#cc79a7",
}
#: A colour for each policy; those who see no red or no green can tell them apart, too.
_PALETTE = (
    "#222222", "#e69f00", "#56b4e9", "#009e73", "#0072b2", "#d55e00", "#cc79a7", "#8a8a8a",
    "#7a5195",
)  # fmt: skip
_MARKERS, _LINES = "os^Dv<>PX", ("-", "--", "-.", ":")
_QUIET = "#666d76"
_CONSTANTS = "default"
#: The part of a turn of the colour wheel by which many colours in a row differ most.
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def of_comparison(comparison: Comparison) -> dict[str, Figure]:
    """All of them, by the name of their file."""
    figures = {"completion": completions(comparison), "lateness": lateness(comparison)}
    if comparison.example:
        figures["gantt"] = gantt(comparison)
    return figures


def completions(comparison: Comparison) -> Figure:
    """By how much mean completion is shorter than with constants, by policy and predictor.

    Gains of a few per cent could not be seen in bars of seconds from zero.
    """
    policies = comparison.settings.policies
    predictors = [who for who in comparison.settings.predictors if who != _CONSTANTS]
    figure, axes = titled(
        "Gain in mean completion of a workflow, over constants under the same policy",
        (9.0, 1.8 + 0.55 * len(policies)),
    )
    height = 0.8 / max(len(predictors), 1)
    for number, who in enumerate(predictors):
        # From the top down, in the order in which they are named.
        rows = [row for row, policy in enumerate(policies) if policy not in WITHOUT_SECONDS]
        gains = [comparison.gain(policies[row], who) for row in rows]
        axes.barh(
            [row + (number - (len(predictors) - 1) / 2) * height for row in rows],
            [gain.mean for gain in gains],
            height,
            # A gain of too few runs has no interval, and its line is not drawn.
            xerr=[[g.mean - g.low for g in gains], [g.high - g.mean for g in gains]],
            label=who,
            color=_COLOURS.get(who, _PALETTE[number % len(_PALETTE)]),
            error_kw={"ecolor": INK, "elinewidth": 1.0, "capsize": 2.0},
        )
    for row, policy in enumerate(policies):
        if policy in WITHOUT_SECONDS:
            note = " the same with any predictor: uses no seconds"
            axes.text(0.0, row, note, va="center", fontsize=9, color=_QUIET)
    axes.axvline(0.0, color=INK, linewidth=0.8)
    labels = [f"{p}\n{comparison.seconds(p, _CONSTANTS).mean():,.0f} s" for p in policies]
    axes.set_yticks(range(len(policies)), labels, fontsize=9)
    axes.set_ylim(len(policies) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(f"shorter mean completion{_intervals(comparison)}")
    axes.set_ylabel("policy, and its mean completion with constants", fontsize=9)
    _say(axes, comparison)
    if predictors:
        _legend(figure, len(predictors))
    return figure


def lateness(comparison: Comparison, predictor: str = "malearn") -> Figure:
    """The share of deadlines missed, against how far away they are, by policy."""
    settings = comparison.settings
    shown = predictor if predictor in settings.predictors else settings.predictors[0]
    figure, axes = titled(f"Missed deadlines, predictions by {shown}", (8.0, 5.2))
    factors = sorted(settings.deadlines)
    for number, policy in enumerate(settings.policies):
        axes.plot(
            factors,
            [comparison.late(policy, shown, factor) for factor in factors],
            label=policy,
            color=_PALETTE[number % len(_PALETTE)],
            linestyle=_LINES[number % len(_LINES)],
            marker=_MARKERS[number % len(_MARKERS)],
        )
    axes.set_xticks(factors, [f"{factor:g}" for factor in factors])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("deadline, in multiples of the critical path")
    axes.set_ylabel("missed")
    _say(axes, comparison)
    _legend(figure, 5)
    return figure


def gantt(comparison: Comparison) -> Figure:
    """The example of `comparison`: what each slot did when, a colour for each workflow."""
    tasks, settings = comparison.example, comparison.settings
    workflows = {name: n for n, name in enumerate(dict.fromkeys(t.workflow for t in tasks))}
    figure, axes = titled(
        f"Slots of one simulated run, a colour for each of "
        f"{text.counted(len(workflows), 'workflow')}",
        (10.0, 4.2),
    )
    free_at: list[float] = []
    for task in sorted(tasks, key=lambda task: task.start):
        # Slots have no numbers in a simulation: a task is drawn in the first that is free.
        slot = next((n for n, end in enumerate(free_at) if end <= task.start), len(free_at))
        free_at[slot : slot + 1] = [task.end]
        colour = _distinct(workflows[task.workflow])
        axes.barh(slot, task.end - task.start, left=task.start, color=colour, edgecolor="white")
    names = [f"{settings.resource} {slot + 1}" for slot in range(len(free_at))]
    axes.set_yticks(range(len(free_at)), names)
    axes.set_xlim(left=0.0)
    axes.set_xlabel("seconds since the run began")
    _subtitle(
        axes,
        f"{comparison.runs[-1]} under {settings.policies[-1]}, predictions by malearn, "
        f"{_load(settings.loads[0])}, {_slots(settings.slots)}",
    )
    return figure


def _distinct(number: int) -> tuple[float, float, float]:
    """The colour of that number, from 0: no two are equal, and neighbours differ much."""
    # Darker and lighter in turn: people tell few hues apart.
    return colorsys.hls_to_rgb(number * _GOLDEN % 1.0, (0.42, 0.62, 0.3)[number % 3], 0.65)


def _say(axes: Axes, comparison: Comparison) -> None:
    """Below the title: what was simulated."""
    settings = comparison.settings
    loads = " and ".join(map(_load, settings.loads))
    workflows = text.counted(comparison.workflows, "workflow")
    of_runs = text.counted(len(comparison.runs), "run")
    each = text.counted(settings.seeds, "simulation")
    _subtitle(
        axes, f"{loads}, {_slots(settings.slots)}; {workflows} of {of_runs}, {each} of each run"
    )


def _subtitle(axes: Axes, said: str) -> None:
    axes.set_title(said, loc="left", fontsize=10, color=_QUIET)


def _load(load: float | None) -> str:
    return "arrivals as recorded" if load is None else f"load {load:g}"


def _slots(slots: Mapping[str, int]) -> str:
    return ", ".join(text.counted(count, f"{name} slot") for name, count in slots.items())


def _intervals(comparison: Comparison) -> str:
    """What the lines across bars are, for the name of an axis; empty where there are none."""
    runs = len(comparison.runs)
    if (runs if runs > 1 else comparison.workflows) < FEWEST_DRAWN:
        return ""
    return f"; lines: 95 % interval over {'runs' if runs > 1 else 'the workflows of the run'}"


def _legend(figure: Figure, columns: int) -> None:
    figure.legend(frameon=False, ncols=columns, loc="outside lower left")
