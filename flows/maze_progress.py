"""Workflows in progress in Maze's run stores, predicted by a predictor of one's own.

A store tells what each run consists of, what has finished and what runs now. The predictor is
told that in the order in which it happened, and asked as Maze's scheduler would ask it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from malearn.data.maze import run, store, task_record
from malearn.data.maze.run import Attempt, MazeRun
from malearn.kernel import features, generic
from malearn.kernel.errors import MalearnError, WorkflowError
from malearn.kernel.home import Home
from malearn.kernel.reading import run_ids
from malearn.kernel.tool_types import ToolTypes, resource_name
from malearn.kernel.workflow import Workflow
from malearn.kernel.workflows.workflow_status import WorkflowStatus

if TYPE_CHECKING:
    from malearn import DAGTaskPredictor

__all__ = [
    "begin",
    "estimate",
    "estimated",
    "find",
    "recent",
    "settled",
    "still_open",
    "tool_types",
]

#: Seconds after the last change of its files for which a run that is not over counts as one in
#: progress: a head that was killed never writes that it is over.
_RECENT = 86_400.0


def tool_types(home: Home) -> ToolTypes:
    """The tool types of `home`, and the generic one that tasks of a store may need."""
    return generic.with_generic(generic.declared(home))


def recent(stores: Sequence[Path]) -> list[MazeRun]:
    """The runs of which something was written within the last day, over or not, each once."""
    since = (time.time() - _RECENT) * 1e9
    folders = store.find(stores)
    read = [run.read(one) for one in folders if max(one.fingerprint[1::2], default=0) >= since]
    return list({one.run_id: one for one in read}.values())


def find(stores: Sequence[Path], run_id: str) -> MazeRun | None:
    """The run in the directory of that name; None where there is none."""
    for folder in store.find(stores):
        if folder.path.name == run_id:
            return run.read(folder)
    return None


def still_open(
    published: Iterable[WorkflowStatus], runs: Iterable[MazeRun]
) -> list[WorkflowStatus]:
    """Those `published` but for runs that the store knows to be over, as failed ones may be."""
    over = {one.run_id for one in runs if one.is_over}
    return [status for status in published if status.run_id not in over]


def estimated(
    predictor: DAGTaskPredictor,
    types: ToolTypes,
    stores: Sequence[Path],
    runs: Sequence[MazeRun],
) -> tuple[list[WorkflowStatus], list[str]]:
    """The status of each of `runs`, and what kept some from having one."""
    begin(predictor, types, stores, runs)
    found, problems = [], []
    for one in runs:
        try:
            found.append(estimate(predictor, one, time.time()))
        except MalearnError as error:
            problems.append(str(error))
    return found, problems


def begin(
    predictor: DAGTaskPredictor,
    types: ToolTypes,
    stores: Sequence[Path],
    runs: Sequence[MazeRun],
) -> None:
    """Let `predictor` know what runs in `stores` took before, for it to estimate `runs`."""
    from malearn.integrations.maze import warm_start

    predictor.reads_results = False  # Maze keeps no results in Redis
    # Without those asked about: their tasks are reported one by one.
    without = {one.run_id for one in runs}
    for place in stores:
        predictor.remember(warm_start.observations(place, types, without))


def estimate(predictor: DAGTaskPredictor, found: MazeRun, now: float) -> WorkflowStatus:
    """What is left of `found` at `now`. Raises `WorkflowError` where its graph has a cycle."""
    done = found.done
    if found.is_over or done.issuperset(found.tasks):
        return settled(found, now)
    workflow = _workflow(found)
    for node in found.tasks.values():
        # The workflow's tasks name neither model nor backend, by which a tool type may claim them.
        predictor.tool_type_of(
            node.function, node.kind, task_record.context(node.model, node.backend)
        )
    # First as at its arrival: what its first task announces counts for those that follow.
    predictor.estimate_workflow(workflow, now=workflow.arrived or now)
    waiting = sorted(found.last().values(), key=_end, reverse=True)
    running: dict[str, float] = {}
    for task, began in sorted(found.running.items(), key=lambda one: one[1]):
        while waiting and _end(waiting[-1]) <= began:
            _report(predictor, found, waiting.pop())
        # What is left of a running task is judged by what was expected before it started.
        predictor.estimate_workflow(workflow, running, now=began)
        running[run_ids.of_task(found.run_id, task)] = began
    while waiting:
        _report(predictor, found, waiting.pop())
    finished = [run_ids.of_task(found.run_id, task) for task in done]
    predictor.estimate_workflow(workflow, running, finished, now)
    for status in reversed(predictor.stats().workflows):
        if status.run_id == found.run_id:
            return status
    raise WorkflowError(found.run_id, "what is left of it cannot be estimated")


def settled(found: MazeRun, now: float) -> WorkflowStatus:
    """Of a run that is over, or all known tasks of which have finished."""
    times = [
        (start, end)
        for attempt in found.last().values()
        if (start := features.finite(attempt.start)) is not None
        and (end := features.finite(attempt.end)) is not None
    ]
    file = found.file
    last = file.finished or max((end for _, end in times), default=file.arrived or now)
    return WorkflowStatus(
        found.run_id,
        now,
        len(found.tasks),
        len(found.done),
        0.0,
        0.0,
        0.0,
        spent=sum(max(end - start, 0.0) for start, end in times),
        arrived=file.arrived,
        deadline=file.deadline,
        ended=last if found.is_over else None,
    )


def _workflow(found: MazeRun) -> Workflow:
    def named(task: str) -> str:
        return run_ids.of_task(found.run_id, task)

    tasks = {
        named(task): (
            node.function,
            resource_name(node.kind or "cpu"),
            [named(parent) for parent in node.parents or () if parent in found.tasks],
        )
        for task, node in found.tasks.items()
    }
    return Workflow(found.run_id, tasks, found.file.arrived, found.file.deadline)


def _report(predictor: DAGTaskPredictor, found: MazeRun, attempt: Attempt) -> None:
    node = found.tasks[attempt.task]
    context = task_record.context(node.model, node.backend)
    said = task_record.record(found.run_id, attempt.start, attempt.end, attempt.result, context)
    task_id = run_ids.of_task(found.run_id, attempt.task)
    predictor.collect_data_for_task(task_id, node.function, said)


def _end(attempt: Attempt) -> float:
    """When it ended; what does not tell counts as long ago."""
    return features.finite(attempt.end) or 0.0
