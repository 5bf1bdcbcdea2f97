"""How far predictors without a memory are off the remaining critical path of whole workflows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from malearn.learning.simulated_predictors import Noisy, SimulatedWorkflow
from malearn.learning.traces import RunTrace

__all__ = ["median_error"]


def median_error(
    runs: Sequence[RunTrace], predictor: Callable[[RunTrace], Noisy], passed: float
) -> float:
    """The median relative error of the remaining path, of workflows executed alone.

    `passed` is the share of the true critical path that has passed, `predictor` makes the
    predictor of one run.
    """
    errors = []
    for run in runs:
        made = predictor(run)
        for trace in run.workflows:
            live = SimulatedWorkflow(trace, trace.workflow(0.0))
            now = passed * trace.critical_path
            _advance(live, now)
            # First as if nothing ran: what runs was predicted before it started.
            live.expected = {i: made.drawn(trace, i) for i in trace.tasks if i not in live.done}
            made.expect([live], now)
            assert live.left is not None
            errors.append(abs(live.left.seconds / (trace.critical_path - now) - 1.0))
    return statistics.median(errors)


def _advance(live: SimulatedWorkflow, now: float) -> None:
    """Say what has ended and what runs of a workflow that arrived at 0 and is executed alone."""
    ends: dict[str, float] = {}
    for task_id, task in live.workflow.tasks.items():
        start = max((ends[before] for before in task.predecessors), default=0.0)
        ends[task_id] = start + live.trace.tasks[task_id].seconds
        if ends[task_id] <= now:
            live.done[task_id] = None
        elif start < now:
            live.running[task_id] = start
