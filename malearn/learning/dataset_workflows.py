"""The workflows in a home's datasets: what a simulation replays where there are no logs.

A dataset holds the tasks that a tool type claims, with their edges; the others of a run, and those
that were kept out, stand in the table of rejections with their times. There may be all tasks of a
run, where each that a tool type claims has failed. Where every task of a run
says what it waited for, these are the workflow's edges; elsewhere they are inferred, as from logs.
Of a run that was cut short there is what ran.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from malearn.data.dataset import Dataset
from malearn.data.rejected_row import RejectedRow
from malearn.data.rejections import Rejections
from malearn.kernel.errors import InputError, WorkflowError
from malearn.kernel.home import Home
from malearn.kernel.reading import run_ids
from malearn.kernel.records import Execution, Record, RejectReason
from malearn.kernel.tool_types import ToolTypes, resource_name
from malearn.kernel.workflow import Workflow
from malearn.learning import inferred_workflows, traces
from malearn.learning.inferred_workflows import Definition, Seen
from malearn.learning.traces import TaskTrace, Traces, WorkflowTrace

__all__ = ["read", "workflows"]

_ROWS = 20_000  # of each dataset, the newest: what is replayed costs what is recent
_OTHERS = 5  # times as many rejected records: most tasks of a run may belong to no tool type
#: The same record again, or one that retention has deleted: no task of its own.
_NO_TASK = frozenset({RejectReason.DUPLICATE, RejectReason.PAST_RETENTION})
#: Why a run is left out of which parts may be in the datasets, too old to be looked at.
_OLDER = "it is older than the tasks that are read of the datasets"


@dataclass(slots=True)
class _Task:
    """One task of a run. `seconds` are those for which it held a slot, `before` the ids of those
    it waited for, None where none says; `named` the functions that it named."""

    record: Record
    seconds: float
    resource: str
    before: tuple[str, ...] | None
    named: tuple[str, ...]
    serve: Mapping[str, object]
    teaches: bool
    unsuccessful: bool = False

    @property
    def function(self) -> str:
        """The name of what it ran."""
        return self.record.function


#: The tasks of one run by their ids.
_Tasks = dict[str, _Task]


def read(home: Home, tool_types: ToolTypes) -> Traces:
    """The workflows whose tasks are in the datasets below `home`, in parts that follow each other.

    Raises `InputError` where there is none, `DatasetError` for a dataset that cannot be read.
    """
    skipped = Counter[str]()
    found = workflows(home, tool_types, skipped)
    if not found:
        raise InputError(home.data, "holds no workflow yet; ingest something first")
    return Traces(tuple(traces.parts("datasets", found)), dict(skipped))


def workflows(
    home: Home, tool_types: ToolTypes, skipped: Counter[str] | None = None, rows: int = _ROWS
) -> list[WorkflowTrace]:
    """Those workflows in order of arrival, of the newest `rows` of each dataset.

    Why runs were left out is counted in `skipped`.
    """
    counted = Counter[str]() if skipped is None else skipped
    runs, since = _claimed_by_run(home, tool_types, rows)
    others: dict[str, dict[str, _Task | None]] = defaultdict(dict)
    for run, task_id, task in _others(home, tool_types, _OTHERS * rows):
        others[run].setdefault(task_id, task)
    for run, rejected in others.items():
        # What has ended in failure alone is a workflow as well, unless part of it is out of sight.
        if run not in runs and not _is_since(since, rejected):
            counted[_OLDER] += 1
        elif (why := _joined(runs[run], rejected)) is not None:
            counted[why] += 1
            del runs[run]
    exact = {run: tasks for run, tasks in runs.items() if _is_exact(tasks)}
    rest = {run: tasks for run, tasks in runs.items() if run not in exact}
    found = [_of_graph(run, tasks, counted) for run, tasks in exact.items()]
    found += _inferred(rest, tool_types, counted)
    return sorted((w for w in found if w is not None), key=lambda w: (w.arrived, w.run_id))


def _claimed_by_run(
    home: Home, tool_types: ToolTypes, rows: int
) -> tuple[dict[str, _Tasks], float]:
    """The claimed tasks by run, and since when all of them are known, in seconds since the epoch:
    retention deletes what is old, and of a dataset only the newest `rows` are looked at."""
    runs: dict[str, _Tasks] = defaultdict(dict)
    since = 0.0
    for tool_type in tool_types.values():
        dataset = Dataset.open(home, tool_type)
        found = [*_claimed(dataset, tool_types, rows)]
        for one in found:
            runs[run_ids.run_of(one.record.task_id, one.record.function)][one.record.task_id] = one
        since = max(since, dataset.deleted_before)
        if len(found) >= rows:
            since = max(since, min(one.record.start for one in found))
    return runs, since


def _is_since(since: float, tasks: Mapping[str, _Task | None]) -> bool:
    return all(task is None or task.record.start >= since for task in tasks.values())


def _joined(run: _Tasks, others: Mapping[str, _Task | None]) -> str | None:
    """Adds `others` to the tasks of their run; why it cannot be replayed, None where it can."""
    for task_id, task in others.items():
        if task is not None and "#" not in task_id:
            run.setdefault(task_id, task)
    for task_id in others:
        # Maze numbers attempts: one that failed may have been followed by one that succeeded.
        whole, _, number = task_id.partition("#")
        if whole not in run:
            return "a task did not finish" if number else traces.UNTIMED
    return None


def _claimed(dataset: Dataset, tool_types: ToolTypes, rows: int) -> Iterator[_Task]:
    tool_type = dataset.tool_type
    names = (*tool_type.feature_names, *tool_type.context)
    for one in dataset.newest(rows):
        own = _named(names, (*one.ran, *one.ran_context))
        serve = _named(names, (*one.serve, *one.serve_context))
        record = _record(one, own)
        resource = resource_name(one.resource or tool_type.resource)
        context = {**serve, **own}
        # Remembered: a tool type may claim a function by more than its name.
        tool_types.for_task(one.function, resource, context.get("model"), context.get("backend"))
        seconds = traces.seconds_held(one.start, one.end)
        yield _Task(record, seconds, resource, one.predecessors, one.successors, serve, True)


def _record(one: Execution, own: Mapping[str, object]) -> Record:
    named: dict[str, Mapping[str, object]] = {name: {} for name in one.successors}
    return Record(one.task_id, one.function, one.start, one.end, own, named, one.query)


def _named(names: Sequence[str], values: Iterable[object]) -> dict[str, object]:
    """What is known of them; values are fewer where there is no context."""
    given = zip(names, values, strict=False)
    return {name: value for name, value in given if value == value and value != ""}


def _others(
    home: Home, tool_types: ToolTypes, rows: int
) -> Iterator[tuple[str, str, _Task | None]]:
    """Rejected tasks with their runs and ids; None for one whose times are not known."""
    for row in Rejections.open(home).newest(rows):
        one = row.rejected
        if one.task_id and one.reason not in _NO_TASK:
            run = run_ids.run_of(one.task_id, one.function)
            yield run, one.task_id, _rejected(row, tool_types)


def _rejected(row: RejectedRow, tool_types: ToolTypes) -> _Task | None:
    one = row.rejected
    try:
        kept = json.loads(one.record)
        # As a worker's record has them, or an entry of the stream.
        start = float(kept.get("start_time", kept.get("start")))
        end = float(kept.get("end_time", kept.get("end")))
    except (ValueError, TypeError, AttributeError):
        return None
    seconds = traces.seconds_held(start, end)
    if math.isnan(seconds):
        return None
    named = kept.get("succ_task_feat") or kept.get("successors") or ()
    functions = tuple(name for name in named if isinstance(name, str) and name)
    before = kept.get("predecessors")
    tool_type = tool_types.for_function(one.function)
    resource = kept.get("resource")
    if not isinstance(resource, str) or not resource:
        resource = inferred_workflows.UNCLAIMED if tool_type is None else str(tool_type.resource)
    record = Record(
        one.task_id, one.function, start, end, {}, {name: _dict(named, name) for name in functions}
    )
    ids = tuple(map(str, before)) if isinstance(before, list) else None
    # It held a slot for its seconds, which teach where nothing is wrong with them.
    teaches = one.reason in (RejectReason.NO_FEATURES, RejectReason.UNMAPPED_FUNCTION)
    unsuccessful = one.reason in (RejectReason.SOFT_FAILED, RejectReason.SKIPPED)
    resource = resource_name(resource)
    return _Task(record, seconds, resource, ids, functions, {}, teaches, unsuccessful)


def _dict(named: Any, name: str) -> dict[str, object]:
    value = named.get(name) if isinstance(named, dict) else None
    return value if isinstance(value, dict) else {}


def _is_exact(tasks: _Tasks) -> bool:
    return all(task.before is not None for task in tasks.values())


def _of_graph(run: str, tasks: _Tasks, skipped: Counter[str]) -> WorkflowTrace | None:
    if any(one not in tasks for task in tasks.values() for one in task.before or ()):
        skipped["a task that others waited for is not in the datasets"] += 1
        return None
    kind = "graph of " + ", ".join(sorted(task.record.function for task in tasks.values()))
    return _trace(run, kind, tasks, {i: task.before or () for i, task in tasks.items()}, skipped)


def _inferred(
    runs: Mapping[str, _Tasks], tool_types: ToolTypes, skipped: Counter[str]
) -> list[WorkflowTrace | None]:
    by_function = {}
    for run, tasks in runs.items():
        named = inferred_workflows.by_function(tasks.values())
        if named is None:
            skipped[inferred_workflows.REPEATED] += 1
        else:
            by_function[run] = named
    seen = {run: _seen(tasks, runs[run]) for run, tasks in by_function.items()}
    known = {
        frozenset(d.resources): d for d in inferred_workflows.infer([*seen.values()], tool_types)
    }
    return [
        _of_definition(run, tasks, known[frozenset(tasks)], skipped)
        for run, tasks in by_function.items()
    ]


def _seen(named: Mapping[str, _Task], tasks: _Tasks) -> dict[str, Seen]:
    found = {}
    for function, task in named.items():
        before = None
        if task.before is not None and all(one in tasks for one in task.before):
            before = tuple(tasks[one].record.function for one in task.before)
        found[function] = Seen(task.record.start, task.record.end, task.named, before)
    return found


def _of_definition(
    run: str, named: Mapping[str, _Task], definition: Definition, skipped: Counter[str]
) -> WorkflowTrace | None:
    ids = {function: task.record.task_id for function, task in named.items()}
    before = {
        ids[function]: tuple(ids[one] for one in definition.predecessors[function])
        for function in named
    }
    tasks = {task.record.task_id: task for task in named.values()}
    return _trace(run, definition.name, tasks, before, skipped)


def _trace(
    run: str,
    kind: str,
    tasks: _Tasks,
    before: Mapping[str, Sequence[str]],
    skipped: Counter[str],
) -> WorkflowTrace | None:
    shape = {i: (t.record.function, t.resource, list(before[i])) for i, t in tasks.items()}
    try:
        Workflow(run, shape)
    except WorkflowError:
        skipped["its tasks do not hold together"] += 1
        return None
    reports = _reports(tasks, before)
    traced = {
        i: TaskTrace(
            i,
            t.record.function,
            t.seconds,
            reports[i] if t.teaches else None,
            t.unsuccessful,
        )
        for i, t in tasks.items()
    }
    arrived = min(task.record.start for task in tasks.values())
    return WorkflowTrace(run, kind, shape, traced, arrived)


def _reports(tasks: _Tasks, before: Mapping[str, Sequence[str]]) -> dict[str, Record]:
    """The tasks' records, in which predecessors report what was known of their successors.

    A dataset keeps that with the successor. Who named it said it; where nobody did, the last
    one to end.
    """
    said: dict[str, dict[str, Mapping[str, object]]] = {
        i: dict(task.record.successors) for i, task in tasks.items()
    }
    for task_id, task in tasks.items():
        if not task.serve or not before[task_id]:
            continue
        function = task.record.function
        named = [one for one in before[task_id] if function in tasks[one].named]
        last = max(before[task_id], key=lambda one: tasks[one].record.end)
        for one in named or [last]:
            said[one][function] = task.serve
    return {
        i: msgspec.structs.replace(task.record, successors=said[i]) for i, task in tasks.items()
    }
