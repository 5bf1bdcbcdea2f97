"""From the predictions of its open tasks to that of a whole workflow: the one place for it."""

from __future__ import annotations

from collections.abc import Mapping

from malearn.kernel.prediction import Prediction
from malearn.kernel.workflow import Workflow, WorkflowPrediction
from malearn.kernel.workflows import remaining
from malearn.kernel.workflows.workflow_calibration import Stage, State, WorkflowCalibration

__all__ = ["combine", "left_of", "totals"]


def combine(
    workflow: Workflow,
    open_tasks: Mapping[str, Prediction],
    running: Mapping[str, float],
    now: float,
    calibration: WorkflowCalibration,
) -> tuple[WorkflowPrediction, State | None]:
    """What is left of `workflow`, and what to learn from once it has finished.

    `open_tasks` holds the prediction of each task that is not done, made before it started;
    `running` says when those that run have started. Times are seconds since the epoch. There is
    no state of a workflow of which nothing is left.
    """
    tasks = left_of(open_tasks, running, now)
    path = remaining.longest_path(workflow.tasks, tasks)
    work, left = totals(workflow, tasks)
    if not path.tasks:
        late = None if workflow.deadline is None else float(now > workflow.deadline)
        return WorkflowPrediction(0.0, 0.0, 0.0, work, late, left, (), {}), None
    if path.tasks[0] in running:
        stage = Stage.RUNNING
    else:
        stage = Stage.WAITING if len(tasks) < len(workflow.tasks) else Stage.ARRIVED
    state = State.of_path(path, stage)
    seconds, low, high = calibration.interval(state)
    late = None
    if workflow.deadline is not None:
        late = calibration.beyond(state, workflow.deadline - now)
    found = WorkflowPrediction(seconds, low, high, work, late, left, path.tasks, tasks)
    return found, state


def left_of(
    open_tasks: Mapping[str, Prediction], running: Mapping[str, float], now: float
) -> dict[str, Prediction]:
    """`open_tasks`, of those that are running what is left."""
    # A copy: the caller keeps what was expected before the start, to answer from and to score.
    tasks = dict(open_tasks)
    for task_id, started in running.items():
        prediction = tasks.get(task_id)
        if prediction is not None:
            tasks[task_id] = remaining.of_running(prediction, now - started)
    return tasks


def totals(
    workflow: Workflow, tasks: Mapping[str, Prediction]
) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds of work and number of open tasks, per resource that the workflow uses."""
    work: dict[str, float] = {}
    left: dict[str, int] = {}
    for task_id, task in dict(workflow.tasks).items():  # a copy, as in `longest_path`
        resource = task.resource
        # A resource whose tasks have all ended is named with 0, rather than missing.
        if resource not in work:
            work[resource], left[resource] = 0.0, 0
        prediction = tasks.get(task_id)
        if prediction is not None:
            work[resource] += prediction.seconds
            left[resource] += 1
    return work, left
