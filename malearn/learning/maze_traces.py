"""The workflows in a Maze store, for simulations: its own graphs say what waits for what."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from malearn.data import short_paths
from malearn.data.maze import outcomes, store
from malearn.data.maze import run as runs
from malearn.data.maze.run import MazeRun
from malearn.kernel.errors import InputError, WorkflowError
from malearn.kernel.records import Execution, Record
from malearn.kernel.tool_types import ToolTypes, resource_name
from malearn.kernel.workflow import Workflow
from malearn.learning import traces
from malearn.learning.traces import TaskTrace, Traces, WorkflowTrace

__all__ = ["executions", "read"]


def read(stores: Sequence[Path], tool_types: ToolTypes) -> Traces:
    """The runs in `stores` of which every task finished.

    Raises `InputError` where there is none.
    """
    skipped: Counter[str] = Counter()
    found = []
    stores = short_paths.distinct(stores)
    names = short_paths.names(stores)
    for one in stores:
        traced = [_trace(runs.read(folder), tool_types, skipped) for folder in store.find([one])]
        workflows = [workflow for workflow in traced if workflow is not None]
        workflows.sort(key=lambda w: (w.arrived, w.run_id))
        found += traces.parts(names[one], workflows)
    if not found:
        raise InputError(
            ", ".join(str(one) for one in stores), "holds no run of which every task finished"
        )
    # First: what is left out is counted.
    ordered = traces.in_time(found, skipped)
    return Traces(ordered, dict(skipped))


def _trace(run: MazeRun, tool_types: ToolTypes, skipped: Counter[str]) -> WorkflowTrace | None:
    last = run.last()
    # A workflow with a task missing would end too early in every simulation.
    if not last or last.keys() != run.tasks.keys():
        skipped["a task did not finish"] += 1
        return None
    shape: dict[str, tuple[str, str, list[str]]] = {}
    tasks: dict[str, TaskTrace] = {}
    starts = []
    for task, node in run.tasks.items():
        record = outcomes.record(run, last[task])
        tool_types.for_task(node.function, node.kind, node.model, node.backend)  # remembered
        seconds = math.nan
        if isinstance(record, Record):
            seconds = traces.seconds_held(record.start, record.end)
        if not isinstance(record, Record) or math.isnan(seconds):
            skipped["a task has no plausible times, or says that it failed"] += 1
            return None
        starts.append(record.start)
        tasks[task] = TaskTrace(task, node.function, seconds, record)
        shape[task] = (node.function, resource_name(node.kind or "cpu"), list(node.parents or ()))
    try:
        Workflow(run.run_id, shape)
    except WorkflowError:
        skipped["its tasks do not hold together"] += 1
        return None
    # Ids of tasks are told apart by their run: two runs may number theirs alike.
    names = {task: f"{run.run_id} {task}" for task in tasks}
    arrived = run.file.arrived
    return WorkflowTrace(
        run.run_id,
        run.file.workflow_id,
        {names[t]: (f, kind, [names[p] for p in before]) for t, (f, kind, before) in shape.items()},
        {
            names[t]: TaskTrace(names[t], one.function, one.seconds, one.record)
            for t, one in tasks.items()
        },
        min(starts) if arrived is None else min(arrived, *starts),
    )


def executions(
    stores: Sequence[Path], tool_types: ToolTypes, names: Mapping[Path, str]
) -> dict[str, tuple[Execution, str]]:
    """Every execution in `stores` by its task id, each with the name of its store in `names`."""
    found: dict[str, tuple[Execution, str]] = {}
    for one in stores:
        for folder in store.find([one]):
            for outcome in outcomes.of_run(runs.read(folder), tool_types):
                if isinstance(outcome, Execution):
                    found[outcome.task_id] = outcome, names[one]
    return found
