"""One run of a Maze store: its tasks, and every attempt at them that ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from malearn.data.maze import events, run_file
from malearn.data.maze.events import DamagedLine, Event
from malearn.data.maze.run_file import RunFile, TaskNode
from malearn.data.maze.store import EVENTS, RUN, RunFolder
from malearn.kernel import features

__all__ = ["Attempt", "MazeRun", "read"]

_SUCCEEDED = {"succeeded", "completed", "success", "finished"}
_FINISH, _EXCEPTION = "finish_task", "task_exception"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a task that ended; `error` is empty where it succeeded.

    `line` is that of its event, 0 where only `run.json` tells of it. Times are seconds since
    the epoch, as they stand there. `predicted` and `source` are what the scheduler used.
    """

    task: str
    number: int
    line: int
    start: Any
    end: Any
    result: Mapping[str, Any]
    error: str = ""
    predicted: float | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class MazeRun:
    """One run as far as it has got: `attempts` in the order in which they ended."""

    name: str
    file: RunFile
    tasks: Mapping[str, TaskNode]
    attempts: Sequence[Attempt]
    damaged: Sequence[DamagedLine]
    #: The last line of its events that was read.
    lines: int = 0
    is_over: bool = False
    #: When the attempts that go on began, by task; seconds since the epoch.
    running: Mapping[str, float] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        return self.file.run_id or self.name

    @property
    def done(self) -> set[str]:
        """The tasks that finished."""
        found = set(self.last())
        # Only where events are lost: `run.json` is rewritten as a whole, and need not agree with
        # them at any one moment.
        if self.damaged or not self.lines:
            found |= {task for task, node in self.file.tasks.items() if _succeeded(node)}
        return found

    def last(self) -> dict[str, Attempt]:
        """Of each task that finished, the last attempt that did."""
        found: dict[str, Attempt] = {}
        for attempt in self.attempts:
            known = found.get(attempt.task)
            # By number: an attempt that was given up may report after the one that replaced it.
            if not attempt.error and (known is None or attempt.number >= known.number):
                found[attempt.task] = attempt
        return found


def read(folder: RunFolder) -> MazeRun:
    """The run in `folder`. Whatever cannot be read of it is in `damaged`; never raises."""
    file = run_file.read(folder.path / RUN)
    found = file or RunFile()
    tasks = dict(found.tasks)
    started: dict[tuple[str, int], tuple[float | None, str]] = {}
    began: dict[tuple[str, int], float | None] = {}
    attempts: list[Attempt] = []
    damaged: list[DamagedLine] = []
    complete = is_over = file is not None and file.is_over
    lines = 0
    for event in events.read(folder.path / EVENTS, complete=complete):
        lines = event.number or lines
        if isinstance(event, DamagedLine):
            damaged.append(event)
            continue
        data, kind = event.data, event.type
        is_over = is_over or kind == "finish_workflow"
        task, number = data.get("task_id"), _number(data.get("attempt"))
        if not isinstance(task, str) or not task:
            if kind in (_FINISH, _EXCEPTION):
                damaged.append(DamagedLine(event.number, "it names no task_id", str(kind)))
            continue
        # `run.json` wins where it knows: it is the definition, events repeat parts of it.
        tasks[task] = _known(tasks.get(task), data)
        if kind == "start_task":
            started[task, number] = _prediction(data.get("scheduling"))
            began[task, number] = features.finite(data.get("started_at"))
        elif kind in (_FINISH, _EXCEPTION):
            attempts.append(_attempt(event, task, number, started.get((task, number))))
    # While a run goes on its events may still be on their way, and would then count twice.
    if complete:
        attempts += _unlogged(found, attempts)
    running = {} if is_over else _running(began, attempts)
    return MazeRun(
        folder.path.name, found, tasks, attempts, damaged, lines, is_over=is_over, running=running
    )


def _running(
    began: Mapping[tuple[str, int], float | None], attempts: Sequence[Attempt]
) -> dict[str, float]:
    """When the attempts began that have not ended, nor were followed by another."""
    ended = {(attempt.task, attempt.number) for attempt in attempts}
    finished = {attempt.task for attempt in attempts if not attempt.error}
    latest: dict[str, int] = {}
    for task, number in (*began, *ended):
        latest[task] = max(number, latest.get(task, 0))
    return {
        task: at
        for (task, number), at in began.items()
        if at is not None
        and number == latest[task]
        and (task, number) not in ended
        and task not in finished
    }


def _attempt(
    event: Event, task: str, number: int, prediction: tuple[float | None, str] | None
) -> Attempt:
    data = event.data
    result = data.get("result")
    result = result if isinstance(result, dict) else {}
    start, end = data.get("started_at"), data.get("finished_at")
    if start is None and (took := features.finite(data.get("duration_ms"))) is not None:
        known = features.finite(end)
        start = None if known is None else known - took / 1000.0
    if event.type == _FINISH:
        if start is None or end is None:
            start, end = result.get("start_time"), result.get("end_time")
        predicted, source = prediction or (None, "")
        return Attempt(task, number, event.number, start, end, result, "", predicted, source)
    return Attempt(task, number, event.number, start, end, {}, _error(data))


def _unlogged(file: RunFile, attempts: Sequence[Attempt]) -> list[Attempt]:
    """Tasks that ended by `run.json` and that the events, cut short or lost, do not contain."""
    logged = {attempt.task for attempt in attempts}
    found = []
    for task, node in file.tasks.items():
        _, end, took, result = node.ended
        if task in logged or not _succeeded(node):
            continue
        start = None if end is None or took is None else end - took
        result = result if isinstance(result, dict) else {}
        if start is None:
            start, end = result.get("start_time"), result.get("end_time")
        found.append(Attempt(task, 1, 0, start, end, result))
    return found


def _succeeded(node: TaskNode) -> bool:
    return node.ended[0] in _SUCCEEDED


def _known(node: TaskNode | None, data: Mapping[str, Any]) -> TaskNode:
    """`node` completed with the fields of an event."""
    seen = data.get("resource_observation")
    seen = seen if isinstance(seen, dict) else {}
    said = run_file.node(
        {
            "task_name": data.get("task_name") or seen.get("task_name"),
            "task_kind": data.get("task_kind"),
            "parents": data.get("parents"),
            "model_anchor": data.get("model_anchor") or seen.get("model_anchor"),
        }
    )
    if node is None:
        return said
    return replace(
        node,
        function=node.function or said.function,
        kind=node.kind or said.kind,
        parents=said.parents if node.parents is None else node.parents,
        model=node.model or said.model,
        backend=node.backend or said.backend,
    )


def _prediction(scheduling: object) -> tuple[float | None, str]:
    if not isinstance(scheduling, dict):
        return None, ""
    seconds = features.finite(scheduling.get("predicted_duration"))
    source = scheduling.get("prediction_source")
    return seconds, source if isinstance(source, str) else ""


def _error(data: Mapping[str, Any]) -> str:
    error = data.get("error")
    if isinstance(error, dict):
        words = (error.get("error_type"), error.get("exception_type"))
        said = ", ".join(word for word in words if isinstance(word, str) and word)
    else:
        said = error if isinstance(error, str) else ""
    return said[:200] or "no cause is given"


def _number(given: object) -> int:
    # `type`, not `isinstance`: JSON's true is an `int`. No number means a first attempt.
    return given if type(given) is int and 0 <= given < 2**31 else 1
