"""What becomes of the tasks of a Maze run: an `Execution` each, or a `Rejected` with its reason.

A task is known before it runs by what its parents, along the edges of the graph, report, and
by the model and backend that it is anchored to. A task without parents is known by the latter
alone: Maze hands its scheduler nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping

from malearn.data.maze import task_record
from malearn.data.maze.run import Attempt, MazeRun
from malearn.data.maze.run_file import TaskNode
from malearn.data.maze.store import EVENTS
from malearn.kernel import causality, generic, text
from malearn.kernel.reading import joining, record_reader, run_ids
from malearn.kernel.records import Execution, Record, Rejected, RejectReason
from malearn.kernel.tool_types import ToolTypes

__all__ = ["announced", "of_run", "record", "version_of"]

_OURS = "malearn:"


def of_run(
    run: MazeRun, tool_types: ToolTypes, now: float | None = None, after: int = 0
) -> list[Execution | Rejected]:
    """What became of every attempt of `run` that ended, and of every line that is damaged.

    `after` leaves out what stands in the first so many lines of its events.
    """
    # All finished attempts are read even with `after`: earlier tasks are predecessors of new ones.
    last = run.last()
    records = {task: record(run, attempt, now) for task, attempt in last.items()}
    known = {task: r for task, r in records.items() if isinstance(r, Record)}
    found: list[Execution | Rejected] = []
    for attempt in run.attempts:
        if attempt.line and attempt.line <= after:
            continue
        if attempt.error:
            found.append(_failed(run, attempt))
        elif attempt is not last[attempt.task]:
            detail = f"attempt {attempt.number} was followed by another"
            found.append(_rejected(run, attempt, RejectReason.DUPLICATE, detail))
        else:
            found.append(_execution(run, attempt, records[attempt.task], known, tool_types))
    found += [
        Rejected(
            "",
            "",
            RejectReason.INVALID_JSON,
            f"line {line.number} of {EVENTS} of run {run.name}: {line.problem}",
            line.kept,
        )
        for line in run.damaged
        if not line.number or line.number > after
    ]
    return found


def record(run: MazeRun, attempt: Attempt, now: float | None = None) -> Record | Rejected:
    """What `attempt`, which finished, reports; `now` is as in `record_reader.read`."""
    said = task_record.record(run.run_id, attempt.start, attempt.end, attempt.result)
    task_id = run_ids.of_task(run.run_id, attempt.task)
    return record_reader.read(task_id, said, run.tasks[attempt.task].function, now)


def announced(run: MazeRun, tool_types: ToolTypes) -> list[str]:
    """The names of numbers that tasks of `run` announced for tasks that only the generic tool
    type would claim."""
    names: dict[str, None] = {}
    functions = {node.function: node for node in run.tasks.values()}
    for attempt in run.attempts:
        # Any believable times: only what it announces is looked at, and the reader wants some.
        said = record_reader.read("", {**attempt.result, "start_time": 1.0, "end_time": 2.0})
        if not isinstance(said, Record):
            continue
        for function in said.successors:
            node = functions.get(function, TaskNode(function))
            claimed = tool_types.for_task(function, node.kind, node.model, node.backend)
            if claimed is None or claimed.generic:
                names |= dict.fromkeys(generic.announced(said.successors, function))
    return list(names)


def version_of(source: str) -> int | None:
    """The model's version in a prediction's source, `malearn:model:v7`; None where there is none.

    >>> version_of("malearn:model:v7"), version_of("task_kind_ema")
    (7, None)
    """
    if not source.startswith(_OURS):
        return None
    _, found, number = source.rpartition(":v")
    return (
        int(number)
        if found and number.isascii() and number.isdigit() and len(number) < 18
        else None
    )


def _execution(
    run: MazeRun,
    attempt: Attempt,
    record: Record | Rejected,
    known: Mapping[str, Record],
    tool_types: ToolTypes,
) -> Execution | Rejected:
    if isinstance(record, Rejected):
        return record
    node = run.tasks[attempt.task]
    tool_type = tool_types.for_task(record.function, node.kind, node.model, node.backend)
    context = task_record.context(node.model, node.backend)
    view = dict(context)
    if tool_type is not None:
        parents = _parents(attempt.task, node, record, known)
        view |= joining.serve_view(record.function, tool_type, parents)
    own = Record(
        record.task_id,
        record.function,
        record.start,
        record.end,
        {**context, **record.features},
        record.successors,
        record.query,
    )
    if tool_type is None and not record.features:
        own = record  # the reason is that it reports no features
    before = None
    if node.parents is not None:
        before = [run_ids.of_task(run.run_id, parent) for parent in node.parents]
    outcome = joining.to_execution(own, tool_type, view, before, node.kind or "")
    if isinstance(outcome, Rejected):
        return outcome
    return outcome.with_prediction(attempt.predicted, version_of(attempt.source))


def _parents(
    task: str, node: TaskNode, record: Record, known: Mapping[str, Record]
) -> list[Record]:
    """The records of those it waited for; without a graph, all that had ended before it."""
    if node.parents is not None:
        return [known[parent] for parent in node.parents if parent in known]
    return [
        other
        for name, other in known.items()
        if name != task and causality.was_known(other.end, record.start)
    ]


def _failed(run: MazeRun, attempt: Attempt) -> Rejected:
    detail = f"attempt {attempt.number} failed: {attempt.error}"
    return _rejected(run, attempt, RejectReason.SOFT_FAILED, detail)


def _rejected(run: MazeRun, attempt: Attempt, reason: RejectReason, detail: str) -> Rejected:
    """An attempt that is not the last of its task has an id of its own."""
    # Under the task's own id it could pass for the attempt that succeeded.
    task_id = f"{run_ids.of_task(run.run_id, attempt.task)}#{attempt.number}"
    kept = text.as_json({"start_time": attempt.start, "end_time": attempt.end})
    return Rejected(text.encodable(task_id), run.tasks[attempt.task].function, reason, detail, kept)
