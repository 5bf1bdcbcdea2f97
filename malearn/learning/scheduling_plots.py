"""The pictures of a comparison of policies: completion, lateness, and the slots of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from malearn.learning.policy_comparison import Comparison, TaskRun
from malearn.learning.titled_figure import titled

__all__ = ["completions", "gantt", "lateness", "of_comparison"]

_COLOURS: Mapping[str, str] = {
    "default": "#8a8a8a",
    "function_ema": "#e69f00",
    "malearn": "#0072b2",
    "noise_limited": "#009e73",
    "oracle": "#cc79a7",
}
_PALETTE = tuple(_COLOURS.values())
_MARKERS = "os^Dv<>PX"


def of_comparison(comparison: Comparison) -> dict[str, Figure]:
    """All of them, by the name of their file."""
    figures = {"completion": completions(comparison), "lateness": lateness(comparison)}
    if comparison.example:
        figures["gantt"] = gantt(comparison.example)
    return figures


def completions(comparison: Comparison) -> Figure:
    """Mean completion by policy and predictor, in seconds."""
    policies, predictors = comparison.settings.policies, comparison.settings.predictors
    figure, axes = titled("Mean completion of a workflow, by policy and predictor", (9.0, 5.0))
    width = 0.8 / len(predictors)
    for number, predictor in enumerate(predictors):
        at = [row + (number - (len(predictors) - 1) / 2) * width for row in range(len(policies))]
        values = [float(comparison.seconds(policy, predictor).mean()) for policy in policies]
        axes.bar(at, values, width, label=predictor, color=_colour(predictor, number))
    axes.set_xticks(range(len(policies)), policies, rotation=20)
    axes.set_ylabel("seconds from arrival to end")
    _legend(axes, len(predictors))
    return figure


def lateness(comparison: Comparison, predictor: str = "malearn") -> Figure:
    """The share of deadlines missed, against how far away they are, by policy."""
    settings = comparison.settings
    shown = predictor if predictor in settings.predictors else settings.predictors[0]
    figure, axes = titled(f"Missed deadlines, predictions by {shown}", (8.0, 4.8))
    factors = sorted(settings.deadlines)
    for number, policy in enumerate(settings.policies):
        values = [comparison.late(policy, shown, factor) for factor in factors]
        colour, marker = _PALETTE[number % len(_PALETTE)], _MARKERS[number % len(_MARKERS)]
        axes.plot(factors, values, label=policy, color=colour, marker=marker)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.0%}"))
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("deadline, in multiples of the critical path")
    axes.set_ylabel("missed")
    _legend(axes, 5)
    return figure


def gantt(tasks: Sequence[TaskRun]) -> Figure:
    """One simulated run: what each slot did when, a colour for each workflow."""
    figure, axes = titled("Slots of one simulated run, a colour for each workflow", (10.0, 4.0))
    free_at: list[float] = []
    workflows = {name: n for n, name in enumerate(dict.fromkeys(t.workflow for t in tasks))}
    for task in sorted(tasks, key=lambda task: task.start):
        # Slots have no numbers in a simulation: a task is drawn in the first that is free.
        slot = next((n for n, end in enumerate(free_at) if end <= task.start), len(free_at))
        free_at[slot : slot + 1] = [task.end]
        colour = _PALETTE[workflows[task.workflow] % len(_PALETTE)]
        axes.barh(slot, task.end - task.start, left=task.start, color=colour, edgecolor="white")
    axes.set_yticks(range(len(free_at)), [f"slot {slot + 1}" for slot in range(len(free_at))])
    axes.set_xlabel("seconds")
    return figure


def _legend(axes: Axes, columns: int) -> None:
    axes.legend(frameon=False, ncols=columns, loc="upper left", bbox_to_anchor=(0, -0.2))


def _colour(name: str, number: int) -> str:
    return _COLOURS.get(name, _PALETTE[number % len(_PALETTE)])
