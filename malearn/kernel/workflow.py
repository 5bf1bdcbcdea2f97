"""`Workflow`: tasks and what each waits for, as a scheduler knows them while they run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from malearn.kernel.errors import WorkflowError
from malearn.kernel.prediction import Prediction
from malearn.kernel.tool_type import resource_name

__all__ = ["Task", "Workflow", "WorkflowPrediction"]


#: The end of the year 9999, in seconds since the epoch: no clock in seconds shows more.
_LATEST = 253_402_300_800.0


class Task(msgspec.Struct, frozen=True, gc=False):
    """One task of a workflow: its function, what it runs on (gpu, cpu, io) and its predecessors."""

    function: str
    resource: str
    predecessors: tuple[str, ...] = ()


class WorkflowPrediction(msgspec.Struct, frozen=True, gc=False):
    """How much of a workflow is left, execution alone: no waiting in queues.

    `seconds` is the remaining critical path; `low` and `high` enclose it in about 80 % of
    workflows. `work` is the sum of remaining seconds and `left` the number of open tasks, per
    resource. `late` is the probability that the path ends after the deadline, None where the
    workflow has none. `critical` are the task ids of the critical path, first to last. `tasks`
    holds a `Prediction` for each task that is not done: of a running task, for what is left of
    it. `unseen` counts tasks that are expected to be appended, which `seconds`, `work` and
    `left` include.
    """

    seconds: float
    low: float
    high: float
    work: dict[str, float]
    late: float | None
    left: dict[str, int]
    critical: tuple[str, ...]
    tasks: dict[str, Prediction]
    unseen: int = 0


class Workflow:
    """The tasks of one workflow run, each after its predecessors.

    `tasks` maps each task id to its function, what it runs on (gpu, cpu or io) and the ids of
    the tasks it waits for, all of which must belong to the workflow; their order is free. A task
    id is the task's alone, as `<run id>-<function>` is. Where workflows number their tasks alike,
    `arrived` tells which reports are of earlier ones, and workflows in progress at the same time
    must not share an id.
    `arrived` and `deadline` are seconds since the epoch, None where unknown. `context` says what
    all tasks run with, such as `{"backend": "vllm"}`, where the scheduler knows. Raises
    `WorkflowError` for tasks that do not hold together.

    >>> workflow = Workflow("run-1", {"a": ("read", "io", []), "b": ("answer", "gpu", ["a"])})
    >>> workflow.append("c", "write", "io", ["b"])
    >>> workflow.order
    ('a', 'b', 'c')
    """

    __slots__ = ("_alike", "_order", "arrived", "context", "deadline", "growing", "run_id", "tasks")

    def __init__(
        self,
        run_id: str,
        tasks: Mapping[str, tuple[str, str, Sequence[str]]] | None = None,
        arrived: float | None = None,
        deadline: float | None = None,
        context: Mapping[str, object] | None = None,
    ) -> None:
        self.run_id = run_id
        self.arrived = _time(run_id, "arrived", arrived)
        self.deadline = _time(run_id, "deadline", deadline)
        # A copy, since the caller may use its own for the next workflow.
        self.context = dict(context or {})
        self.tasks: dict[str, Task] = {}
        #: Whether more tasks may follow: true once one was appended, or if there were none.
        self.growing = not tasks
        named = {i: _task(run_id, i, given) for i, given in (tasks or {}).items()}
        for task_id in _sorted(run_id, named):
            self.tasks[task_id] = named[task_id]
        self._order: tuple[str, ...] = ()
        self._alike: tuple[int, dict[tuple[str, str, tuple[str, ...]], list[str]]] = 0, {}

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def order(self) -> tuple[str, ...]:
        """The task ids, each after its predecessors."""
        # As in `alike`: another thread may append meanwhile.
        order = self._order
        if len(order) != len(self.tasks):
            order = self._order = tuple(self.tasks)
        return order

    @property
    def alike(self) -> Mapping[tuple[str, str, tuple[str, ...]], Sequence[str]]:
        """The ids of tasks that share function, resource and predecessors, by these."""
        # Of how many tasks it was: others may be appended, also while another thread is here.
        count, found = self._alike
        if count != len(self.tasks):
            count, found = len(self.tasks), {}
            for task_id, task in dict(self.tasks).items():
                key = task.function, task.resource, task.predecessors
                found.setdefault(key, []).append(task_id)
            self._alike = count, found
        return found

    def append(
        self, task_id: str, function: str, task_type: str, predecessors: Sequence[str] = ()
    ) -> None:
        """Add a task that was discovered while the workflow runs; its predecessors are known.

        Raises `WorkflowError` for one that is there already, or waits for an unknown task.
        """
        if task_id in self.tasks:
            raise WorkflowError(self.run_id, f"task {task_id} was added before")
        task = _task(self.run_id, task_id, (function, task_type, predecessors))
        for before in task.predecessors:
            if before not in self.tasks:
                raise WorkflowError(self.run_id, f"task {task_id} waits for {before}, not a task")
        self.tasks[task_id] = task
        # What is appended waits for known tasks only, so the order stays valid and free of cycles.
        self.growing = True

    def descendants(self, task_id: str) -> int:
        """How many tasks wait for `task_id`, directly or through others."""
        found = {task_id}
        for other, task in self.tasks.items():  # predecessors come first
            if other not in found and not found.isdisjoint(task.predecessors):
                found.add(other)
        return len(found) - 1

    def ready(self, done: Iterable[str], running: Iterable[str] = ()) -> list[str]:
        """The tasks that could start: neither done nor running, all predecessors done."""
        finished, begun = set(done), set(running)
        return [
            task_id
            for task_id, task in self.tasks.items()
            if task_id not in finished
            and task_id not in begun
            and finished.issuperset(task.predecessors)
        ]


def _task(run_id: str, task_id: str, given: Sequence[Any]) -> Task:
    try:
        function, resource, before = given
        # One id instead of a list: a text is a sequence, too, of its letters.
        names = (before,) if isinstance(before, str) else tuple(map(str, before or ()))
    except (TypeError, ValueError):
        raise WorkflowError(
            run_id, f"task {task_id} must be given as (function, task type, [predecessor ids])"
        ) from None
    return Task(str(function), resource_name(resource or "gpu"), names)


def _sorted(run_id: str, tasks: Mapping[str, Task]) -> list[str]:
    """The ids of `tasks`, each after its predecessors and otherwise in the order given."""
    waiting: dict[str, set[str]] = {}
    followers: dict[str, list[str]] = {task_id: [] for task_id in tasks}
    for task_id, task in tasks.items():
        waiting[task_id] = set(task.predecessors)
        for before in waiting[task_id]:
            if before not in tasks:
                raise WorkflowError(run_id, f"task {task_id} waits for {before}, not a task")
            followers[before].append(task_id)
    # Kahn's algorithm; what never comes to wait for nothing is part of a cycle.
    found = [task_id for task_id, before in waiting.items() if not before]
    for task_id in found:  # grows while it is walked
        for follower in followers[task_id]:
            waiting[follower].discard(task_id)
            if not waiting[follower]:
                found.append(follower)
    if len(found) < len(tasks):
        stuck = ", ".join(sorted(set(tasks) - set(found))[:5])
        raise WorkflowError(run_id, f"tasks wait for each other: {stuck}")
    return found


def _time(run_id: str, name: str, value: float | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise WorkflowError(run_id, f"'{name}' is {value!r}, not seconds since the epoch")
    if abs(seconds) > _LATEST:
        raise WorkflowError(
            run_id,
            f"'{name}' is {value!r}: it must be in seconds since the epoch, not milliseconds",
        )
    return seconds
