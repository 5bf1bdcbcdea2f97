"""Workflows in progress: expected end, progress, what they wait for, who is likely late."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from malearn.flows.report import tables
from malearn.kernel import text

if TYPE_CHECKING:
    from malearn.kernel.workflows.workflow_status import WorkflowStatus

__all__ = ["show_workflow", "show_workflows", "workflow_status"]

_LATE = 0.5  # a workflow more likely late than not is marked
_SHOWN = 3  # functions that a table names
_FRESH = 60.0  # seconds for which nothing is said of an estimate's age


def workflow_status(status: WorkflowStatus) -> dict[str, Any]:
    """As JSON: all that is published, with progress (0 to 1) and expected end (epoch seconds)."""
    expected, low, high = status.expected_end
    end = {"expected": expected, "low": low, "high": high}
    return asdict(status) | {"progress": status.progress, "end": end}


def show_workflows(found: Sequence[WorkflowStatus]) -> None:
    """One line each, and what is to be known of old estimates."""
    console, now = tables.console(), time.time()
    if not found:
        tables.line(console, "No workflow in progress: no scheduler asked within the last hour.")
        return
    table = tables.table("workflow", "done", "expected end", "80 % interval", "late", "running")
    table.columns[-1].justify = "left"
    for status in found:
        expected, low, high = status.expected_end
        table.add_row(
            tables.short_name(status.run_id),
            f"{status.progress:.0%}",
            f"{_clock(expected)} !" if expected < now else _clock(expected),
            f"{_clock(low)} to {_clock(high)}",
            _late(status),
            # Nothing runs: what it waits for is the next best answer to where it is.
            _named(status.running or status.next),
        )
    console.print(table)
    if any(status.expected_end[0] < now for status in found):
        tables.line(console, "An expected end with ! has passed: the workflow is overdue.", "dim")
    if ages := [age for status in found if (age := now - status.updated) > _FRESH]:
        which = f"{len(ages)} of {text.counted(len(found), 'estimate')}"
        oldest = f"the oldest {tables.age(max(ages))} ago"
        tables.line(
            console, f"Made over a minute ago: {which}, {oldest}. No scheduler asked since.", "dim"
        )


def show_workflow(status: WorkflowStatus) -> None:
    """All that is known of one."""
    console = tables.console()
    expected, low, high = status.expected_end
    tables.line(console, f"{tables.name(status.run_id)}: {status.progress:.0%} done", "bold")
    more = f", {status.unseen} more expected to be added" if status.unseen else ""
    tables.line(console, f"  {status.done} of {text.counted(status.tasks, 'task')} finished{more}")
    if status.ended is not None:
        tables.line(console, f"  ended at {_clock(status.ended)}")
        return
    tables.line(
        console,
        f"  expected end {_clock(expected)}, between {_clock(low)} and {_clock(high)} (80 %), "
        "unless tasks wait for a slot",
    )
    now = time.time()
    if expected < now:
        tables.line(console, f"  overdue: that was {tables.age(now - expected)} ago")
    if (age := now - status.updated) > _FRESH:
        tables.line(console, f"  estimated {tables.age(age)} ago: no scheduler asked since")
    if status.deadline is not None and status.late is not None:
        deadline = f"deadline {_clock(status.deadline)}"
        tables.line(console, f"  {deadline}: late with {status.late:.0%} probability")
    if status.running:
        tables.line(console, f"  running: {', '.join(map(tables.name, status.running))}")
    if status.next:
        tables.line(console, f"  critical path: {' → '.join(map(tables.name, status.next))}")


def _late(status: WorkflowStatus) -> str:
    if status.late is None:
        return "–"
    return f"{status.late:.0%} !" if status.late > _LATE else f"{status.late:.0%}"


def _named(functions: Sequence[str]) -> str:
    more = len(functions) - _SHOWN
    return ", ".join(map(tables.short_name, functions[:_SHOWN])) + (
        f" and {more} more" if more > 0 else ""
    )


def _clock(at: float) -> str:
    """Local time; with the date unless that is today's. What is no time of any calendar, as where a
    scheduler's clock counts milliseconds, is shown as the seconds that it says."""
    try:
        when = datetime.fromtimestamp(at).astimezone()
    except (ValueError, OverflowError, OSError):
        return f"{at:.0f} s"
    today = datetime.now().astimezone().date()
    return f"{when:%H:%M:%S}" if when.date() == today else f"{when:%Y-%m-%d %H:%M:%S}"
