"""Predictions of a workflow that are kept until it has finished, to learn from.

Of the many that are made of one workflow a few are enough: the first; the first once some task has
ended; and one each as the remaining path has shrunk to three, two and one quarters of the first
one, while its first task runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from malearn.kernel.workflow import Workflow
from malearn.kernel.workflows import workflow_calibration
from malearn.kernel.workflows.workflow_calibration import Outcome, Stage, State

__all__ = ["Checkpoints", "actual_path"]

_MARKS = (0.75, 0.5, 0.25)  # shares of the first remaining path: near enough to tell how it went


class _Checkpoint(msgspec.Struct, frozen=True, gc=False):
    # Ids and times alone: the workflow may grow or be built anew before it has finished.
    state: State
    now: float
    running: dict[str, float]
    open_tasks: frozenset[str]


class Checkpoints:
    """The predictions of one workflow that count."""

    __slots__ = ("_first", "_kept", "_next", "_waited")

    def __init__(self) -> None:
        self._kept: list[_Checkpoint] = []
        self._first = 0.0
        self._next = 0
        self._waited = False

    def add(
        self, state: State, open_tasks: Iterable[str], running: Mapping[str, float], now: float
    ) -> None:
        """Keep a prediction made `now`, if it counts; `running` says when tasks started."""
        if not self._kept:
            self._first, self._waited = state.seconds, state.stage == Stage.WAITING
        elif state.stage == Stage.WAITING and not self._waited:
            self._waited = True
        elif state.stage == Stage.RUNNING and self._next < len(_MARKS):
            left = state.seconds / self._first
            if left > _MARKS[self._next]:
                return
            # Between two calls a path may pass several marks, and is kept once.
            while self._next < len(_MARKS) and left <= _MARKS[self._next]:
                self._next += 1
        else:
            return
        self._kept.append(_Checkpoint(state, now, dict(running), frozenset(open_tasks)))

    def scores(self, workflow: Workflow, seconds: Mapping[str, float]) -> list[Outcome]:
        """The stage and score of each prediction, once all tasks have ended.

        `seconds` are what the tasks took; a prediction with a task among its open ones of which
        that is not known gives no score.
        """
        found: list[Outcome] = []
        for kept in self._kept:
            actual = actual_path(workflow, seconds, kept.open_tasks, kept.running, kept.now)
            if actual is not None:
                found.append((kept.state.stage, workflow_calibration.score(kept.state, actual)))
        return found


def actual_path(
    workflow: Workflow,
    seconds: Mapping[str, float],
    open_tasks: Iterable[str],
    running: Mapping[str, float],
    now: float,
) -> float | None:
    """The remaining path of `open_tasks`, had they been executed without waiting from `now` on.

    None where a task's time is not known.
    """
    wanted = frozenset(open_tasks)
    ends: dict[str, float] = {}
    for task_id, task in workflow.tasks.items():
        if task_id in wanted:
            took = seconds.get(task_id)
            if took is None:
                return None
            if task_id in running:
                # Of what ran then only the part after `now` was left.
                took = max(took + running[task_id] - now, 0.0)
            ends[task_id] = took + max((ends.get(b, 0.0) for b in task.predecessors), default=0.0)
    return max(ends.values(), default=0.0)
