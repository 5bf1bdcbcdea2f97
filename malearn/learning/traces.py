"""The workflows that a scheduler ran, from its run logs: what a simulation replays.

Which tasks a workflow has, what they run on and what they wait for is inferred from the logs
(`inferred_workflows`), or in a file of definitions, JSON:
`{workflow: {"tasks": {function: {"resource": "gpu"}}, "edges": [[from, to]]}}`. A task without a
resource runs on a GPU there. A logged run is of the definition whose functions are exactly those
of its tasks.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from malearn.data import run_logs, short_paths
from malearn.kernel.errors import InputError, WorkflowError
from malearn.kernel.estimation import observation
from malearn.kernel.reading import believable, run_ids
from malearn.kernel.records import Record, Rejected
from malearn.kernel.tool_types import ToolTypes, declared, resource_name
from malearn.kernel.workflow import Workflow
from malearn.learning import inferred_workflows
from malearn.learning.inferred_workflows import Definition, Seen

__all__ = [
    "UNTIMED",
    "RunTrace",
    "TaskTrace",
    "Traces",
    "WorkflowTrace",
    "in_time",
    "parts",
    "read",
    "seconds_held",
]


@dataclass(frozen=True, slots=True)
class TaskTrace:
    """One task as it ran: its true seconds, and its record where that teaches, else None.

    `unsuccessful` are those of which none does since they failed, or were skipped.
    """

    task_id: str
    function: str
    seconds: float
    record: Record | None
    unsuccessful: bool = False


@dataclass(frozen=True, slots=True)
class WorkflowTrace:
    """One workflow as it ran: its tasks by id, and when its first task began."""

    run_id: str
    kind: str
    shape: Mapping[str, tuple[str, str, list[str]]]
    tasks: Mapping[str, TaskTrace]
    arrived: float
    _path: list[float] = field(default_factory=list, init=False, compare=False, repr=False)

    def workflow(self, arrived: float, deadline: float | None = None) -> Workflow:
        """The same as a scheduler knows it when it arrives, in seconds since the epoch."""
        return Workflow(self.run_id, self.shape, arrived, deadline)

    @property
    def query(self) -> str:
        """The id of the query that it answered, the same each time that is asked; "" unknown."""
        records = (task.record for task in self.tasks.values())
        return next((record.query for record in records if record is not None), "")

    def seconds_on(self, resource: str) -> float:
        """The true seconds of all tasks that run on `resource`."""
        return sum(
            self.tasks[task_id].seconds
            for task_id, (_, where, _) in self.shape.items()
            if where == resource
        )

    @property
    def critical_path(self) -> float:
        """Its true seconds if no task had to wait for anything but its predecessors."""
        # Asked for in every simulation, and always the same.
        if not self._path:
            self._path.append(self._longest())
        return self._path[0]

    def _longest(self) -> float:
        ends: dict[str, float] = {}
        for task_id, task in self.workflow(0.0).tasks.items():
            start = max((ends[before] for before in task.predecessors), default=0.0)
            ends[task_id] = start + self.tasks[task_id].seconds
        return max(ends.values())


@dataclass(frozen=True, slots=True)
class RunTrace:
    """The workflows of one log file, in order of arrival."""

    name: str
    workflows: tuple[WorkflowTrace, ...]

    @property
    def began(self) -> float:
        """When its first workflow arrived, in seconds since the epoch."""
        return self.workflows[0].arrived

    @property
    def ended(self) -> float:
        """When the last of its tasks ended that teach anything, in seconds since the epoch."""
        ends = [
            task.record.end
            for workflow in self.workflows
            for task in workflow.tasks.values()
            if task.record is not None
        ]
        # Without any, as if each workflow had run alone.
        return max(ends or [one.arrived + one.critical_path for one in self.workflows])


@dataclass(frozen=True, slots=True)
class Traces:
    """All runs, in the order in which they began, and how many logged workflows were left out and
    why."""

    runs: tuple[RunTrace, ...]
    skipped: Mapping[str, int]

    def __len__(self) -> int:
        return sum(len(run.workflows) for run in self.runs)


#: Why a workflow is left out, a task of which has no times, or such as cannot be.
UNTIMED = "a task has no plausible times"
#: Why a workflow is left out that would count twice, the second time already learnt.
_AGAIN = "the same run was read before"

#: What comes as one log, where intervals need several, is cut into so many, each of which has a
#: few workflows.
_PARTS, _FEWEST = 5, 4


@dataclass(frozen=True, slots=True)
class _Logged:
    """One task of a log, and when it started, NaN where unknown."""

    task: TaskTrace
    start: float

    @property
    def function(self) -> str:
        return self.task.function


#: Of one workflow's run: its tasks by function, as definitions name them; None where one of these
#: ran more than once.
_Tasks = dict[str, _Logged] | None


def read(
    files: Sequence[Path], definitions: Path | None = None, tool_types: ToolTypes | None = None
) -> Traces:
    """The workflows logged in `files`, each a run of its own, named by the end of its path.

    Without `definitions` they are inferred, and `tool_types`, those declared unless others are
    given, say what functions run on.

    Raises `InputError` for a file that cannot be read, for definitions that do not hold together,
    and where no logged workflow can be replayed.
    """
    skipped: Counter[str] = Counter()
    files = short_paths.distinct(files)
    names = short_paths.names(files)
    logged = [(names[file], _by_run(file)) for file in files]
    if definitions is not None:
        known = _definitions(definitions)
    else:
        known = _inferred([tasks for _, by_run in logged for tasks in by_run.values()], tool_types)
    runs = []
    for name, by_run in logged:
        found = _workflows(by_run, known, skipped)
        runs.append(RunTrace(name, tuple(sorted(found, key=lambda w: (w.arrived, w.run_id)))))
    # First: what is left out is counted.
    ordered = in_time(runs, skipped)
    traces = Traces(ordered, dict(skipped))
    if not traces.runs:
        raise InputError(
            ", ".join(names.values()),
            "no workflow in it has times for all of its tasks"
            if definitions is None
            else f"no workflow in it matches a definition in {definitions.name}",
        )
    return traces


def seconds_held(start: float, end: float) -> float:
    """The seconds for which a task held a slot, whose times are in seconds since the epoch.

    NaN where these are not plausible, as where one is infinite: one rule for logs, datasets and
    stores. What was skipped may have taken no time at all.
    """
    if not (start >= 0.0 and believable.are_believable(start, end, time.time(), shortest=0.0)):
        return math.nan
    return end - start or observation.SHORTEST


def in_time(runs: Iterable[RunTrace], skipped: Counter[str]) -> tuple[RunTrace, ...]:
    """`runs` in the order in which they began, so that none is replayed with what came after it.

    A workflow that comes again, as in a copy of a log, counts where it comes first in the order
    given; the others are counted in `skipped`.
    """
    seen: set[tuple[str, float]] = set()
    found = []
    for run in runs:
        own = tuple(one for one in run.workflows if _identity(one) not in seen)
        seen.update(map(_identity, own))
        if len(own) < len(run.workflows):
            skipped[_AGAIN] += len(run.workflows) - len(own)
        if own:
            found.append(RunTrace(run.name, own))
    return tuple(sorted(found, key=lambda run: run.began))


def _identity(workflow: WorkflowTrace) -> tuple[str, float]:
    """Its run's id, and its arrival where others may have this id, as they are counted anew."""
    unmistakable = run_ids.is_unmistakable(workflow.run_id, "")
    return workflow.run_id, 0.0 if unmistakable else workflow.arrived


def parts(name: str, workflows: Sequence[WorkflowTrace]) -> list[RunTrace]:
    """`workflows`, in order of arrival, in parts that are about equal and follow each other."""
    count = max(1, min(_PARTS, len(workflows) // _FEWEST))
    size = -(-len(workflows) // count) if workflows else 1
    cut = [workflows[at : at + size] for at in range(0, len(workflows), size)]
    if len(cut) == 1:
        return [RunTrace(name, tuple(cut[0]))]
    return [RunTrace(f"{name}, part {n} of {len(cut)}", tuple(p)) for n, p in enumerate(cut, 1)]


def _by_run(file: Path) -> dict[str, _Tasks]:
    """Of a task that was written twice the later record counts."""
    found: dict[str, dict[str, _Logged]] = defaultdict(dict)
    for run, outcome in run_logs.tasks(file):
        one = _logged(run, outcome)
        found[run][one.task.task_id] = one
    return {run: inferred_workflows.by_function(its.values()) for run, its in found.items()}


def _inferred(runs: Iterable[_Tasks], tool_types: ToolTypes | None) -> list[Definition]:
    """The kinds of workflows of `runs` of which all times are known."""
    seen = [
        {
            function: Seen(one.start, one.start + one.task.seconds, _named(one.task))
            for function, one in tasks.items()
        }
        for tasks in runs
        if tasks is not None and not any(math.isnan(one.start) for one in tasks.values())
    ]
    types = declared() if tool_types is None else tool_types
    return inferred_workflows.infer(seen, types)


def _named(task: TaskTrace) -> tuple[str, ...]:
    return () if task.record is None else tuple(task.record.successors)


def _workflows(
    by_run: Mapping[str, _Tasks], known: Sequence[Definition], skipped: Counter[str]
) -> list[WorkflowTrace]:
    """Those of one file."""
    found = []
    for run, tasks in by_run.items():
        if tasks is None:
            skipped[inferred_workflows.REPEATED] += 1
            continue
        traced = {function: one.task for function, one in tasks.items()}
        starts = [one.start for one in tasks.values()]
        # By exactly the same functions: with a task too few or too many the edges would be guesses.
        definition = next((d for d in known if d.resources.keys() == traced.keys()), None)
        if definition is None and any(math.isnan(start) for start in starts):
            skipped[UNTIMED] += 1
        elif definition is None:
            skipped["its functions match no definition"] += 1
        elif any(math.isnan(start) for start in starts):
            skipped[UNTIMED] += 1
        else:
            found.append(_workflow(run, definition, traced, min(starts)))
    return found


def _workflow(
    run: str, definition: Definition, traced: Mapping[str, TaskTrace], arrived: float
) -> WorkflowTrace:
    ids = {function: task.task_id for function, task in traced.items()}
    shape = {
        ids[function]: (
            function,
            definition.resources[function],
            [ids[before] for before in definition.predecessors[function]],
        )
        for function in definition.resources
    }
    tasks = {task.task_id: task for task in traced.values()}
    return WorkflowTrace(run, definition.name, shape, tasks, arrived)


def _logged(run: str, outcome: Record | Rejected) -> _Logged:
    # Two runs may number their tasks alike; a simulation, and what it teaches, goes by the id.
    task_id = outcome.task_id
    if not run_ids.is_unmistakable(task_id, run):
        task_id = run_ids.of_task(run, task_id)
    if isinstance(outcome, Record):
        start, seconds = outcome.start, seconds_held(outcome.start, outcome.end)
        record = msgspec.structs.replace(outcome, task_id=task_id)
        return _Logged(TaskTrace(task_id, outcome.function, seconds, record), start)
    # A failed or skipped task teaches nothing, but its seconds held a slot.
    start, end = _times(outcome)
    seconds = seconds_held(start, end)
    task = TaskTrace(task_id, outcome.function, seconds, None, outcome.times is not None)
    return _Logged(task, math.nan if math.isnan(seconds) else start)


def _times(rejected: Rejected) -> tuple[float, float]:
    """When a task ran whose record does not teach: a failed one took its time, too."""
    try:
        kept = json.loads(rejected.record)
        return float(kept["start_time"]), float(kept["end_time"])
    except (ValueError, TypeError, KeyError):
        return math.nan, math.nan


def _definitions(file: Path) -> list[Definition]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(file, f"cannot be read as JSON ({error})") from error
    if not isinstance(found, dict) or not found:
        raise InputError(file, "must be an object of workflow definitions by name")
    return [_definition(file, str(name), given) for name, given in found.items()]


def _definition(file: Path, name: str, given: Any) -> Definition:
    try:
        resources = {
            str(function): _resource(file, name, str(function), (options or {}).get("resource"))
            for function, options in given["tasks"].items()
        }
        edges = [(str(before), str(after)) for before, after in given.get("edges", [])]
    except (AttributeError, KeyError, TypeError, ValueError):
        form = '{"tasks": {function: {"resource": "gpu"}}, "edges": [[from, to]]}'
        raise InputError(file, f"workflow {name} must be given as {form}") from None
    for end in {end for edge in edges for end in edge} - set(resources):
        raise InputError(file, f"workflow {name} has an edge to {end}, which is none of its tasks")
    predecessors = {
        function: tuple(before for before, after in edges if after == function)
        for function in resources
    }
    try:
        # Built only to be checked, for cycles and the like, while the file's name is at hand.
        Workflow(name, {f: (f, resources[f], predecessors[f]) for f in resources})
    except WorkflowError as error:
        raise InputError(file, str(error).rstrip(".")) from error
    return Definition(name, resources, predecessors)


def _resource(file: Path, name: str, function: str, given: Any) -> str:
    """What a function runs on, in the letters in which `Workflow` and `--slots` have it."""
    if given is None:
        return "gpu"
    if not isinstance(given, str) or not given.strip():
        raise InputError(
            file,
            f"the resource of {function} in workflow {name} must be a name such as gpu, cpu or io, "
            f"not {given!r}",
        )
    return resource_name(given)
