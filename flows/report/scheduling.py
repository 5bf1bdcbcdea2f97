"""What predictions would have gained, per policy and predictor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from malearn.flows.report import tables
from malearn.kernel import text

if TYPE_CHECKING:
    from malearn.learning.policy_comparison import Comparison

__all__ = ["show_comparison"]


def show_comparison(comparison: Comparison) -> None:
    """Completion and missed deadlines of each pair; policies that use no seconds once."""
    console = tables.console()
    settings = comparison.settings
    workflows = text.counted(comparison.workflows, "workflow")
    heading = f"{workflows}, deadline {settings.deadlines[0]:g} × path"
    tables.line(console, heading, "bold")
    tables.line(console, _settings(comparison), "dim")
    table = tables.table("policy", "predictor", "mean, s", "P95, s", "late", "gain in mean")
    for policy, predictors in comparison.as_json()["policies"].items():
        # A policy that uses no seconds comes to the same with every predictor: one row says it.
        same = len({(row["mean"], row["late"]) for row in predictors.values()}) == 1
        for predictor, row in predictors.items():
            gain = row["gain"]
            table.add_row(
                policy,
                "any" if same else f"{predictor} ←" if predictor == "malearn" else predictor,
                f"{row['mean']:.1f}",
                f"{row['p95']:.0f}",
                f"{row['late']:.1%}",
                "–"
                if same or predictor == "default"
                else f"{gain['mean']:+.1%} ({_interval(gain)})",
            )
            if same:
                break
    console.print(table)
    tables.line(
        console,
        "Gain: shorter mean completion than with constants under the same policy; "
        f"{_drawn(comparison)}.",
        "dim",
    )


def _settings(comparison: Comparison) -> str:
    """What the numbers are means over."""
    found = comparison.as_json()["settings"]
    loads = ", ".join(load if load == "recorded" else f"{load:g}" for load in found["loads"])
    several = "load" if len(found["loads"]) == 1 else "all loads together:"
    slots = ", ".join(f"{resource}={count}" for resource, count in found["slots"].items())
    runs, seeds = text.counted(len(found["runs"]), "run"), text.counted(found["seeds"], "seed")
    return f"{runs}, {seeds}, {several} {loads}; slots {slots}"


def _drawn(comparison: Comparison) -> str:
    """What the intervals are over, or why there are none."""
    from malearn.learning.policy_comparison import FEWEST_DRAWN

    runs = len(comparison.runs)
    drawn, count = ("runs", runs) if runs > 1 else ("workflows of one run", comparison.workflows)
    if count < FEWEST_DRAWN:
        return f"no 95 % interval of fewer than {FEWEST_DRAWN} {drawn}"
    return f"95 % interval over {'runs' if runs > 1 else 'the workflows of one run'}"


def _interval(gain: Mapping[str, float | None]) -> str:
    low, high = gain["low"], gain["high"]
    return "–" if low is None or high is None else f"{low:+.1%} to {high:+.1%}"
