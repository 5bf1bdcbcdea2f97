"""Orders in which a scheduler may run what waits: pure functions, the smallest key first.

Each takes a `Workflow`, its `WorkflowPrediction` and the clock, in seconds since the epoch, and
gives a key. The keys of one policy compare with each other, not with another policy's. HACS and
DAPS rank tasks and take the task's id besides; the others rank workflows. What each was worth in
replays of real runs of the Maze scheduler stands in docs/scheduling.md alone.

>>> from malearn.kernel.workflow import Workflow, WorkflowPrediction
>>> workflow = Workflow("run-1", {"a": ("answer", "gpu", [])}, arrived=100.0, deadline=160.0)
>>> left = WorkflowPrediction(50.0, 40.0, 60.0, {"gpu": 50.0}, 0.2, {"gpu": 1}, ("a",), {})
>>> shortest_remaining_work(workflow, left, now=110.0)
(50.0,)
>>> aged(workflow, left, now=110.0)
(45.0,)
>>> triage(workflow, left, now=110.0)
(0.0, 50.0)
"""

from __future__ import annotations

import math

from malearn.kernel import daps as formulas
from malearn.kernel.workflow import Workflow, WorkflowPrediction

__all__ = [
    "Key",
    "aged",
    "arrival",
    "daps",
    "earliest_deadline",
    "fewest_tasks",
    "hacs",
    "shortest_remaining_work",
    "triage",
]

#: What a policy sorts by, smallest first.
Key = tuple[float, ...]

# The values that the replays in docs/scheduling.md were made with.
_HOPELESS = 0.9  # a workflow that is late with more than this probability waits for the others
_WAITED = 0.5  # seconds of work that one second of waiting makes up for
_HACS_GROWTH, _HACS_LIMIT = 1.1, 20.0  # Maze's own; the limit keeps the power finite


def arrival(workflow: Workflow, left: WorkflowPrediction, now: float) -> Key:
    """First come, first served, by the arrival of the workflow; no seconds needed."""
    return (math.inf if workflow.arrived is None else workflow.arrived,)


def fewest_tasks(
    workflow: Workflow, left: WorkflowPrediction, now: float, resource: str = "gpu"
) -> Key:
    """Fewest open tasks on `resource` first: the best order that needs no seconds."""
    return (float(left.left.get(resource, 0)),)


def shortest_remaining_work(
    workflow: Workflow, left: WorkflowPrediction, now: float, resource: str = "gpu"
) -> Key:
    """Least remaining work on `resource` first (SRPT, Schrage 1968, on whole workflows)."""
    return (left.work.get(resource, 0.0),)


def aged(workflow: Workflow, left: WorkflowPrediction, now: float, resource: str = "gpu") -> Key:
    """Remaining work less half of what was waited: short ones first, and nobody starves."""
    waited = 0.0 if workflow.arrived is None else now - workflow.arrived
    return (left.work.get(resource, 0.0) - _WAITED * waited,)


def earliest_deadline(workflow: Workflow, left: WorkflowPrediction, now: float) -> Key:
    """Earliest deadline first (Liu and Layland 1973), those without one last; no seconds needed."""
    return (math.inf if workflow.deadline is None else workflow.deadline,)


def triage(workflow: Workflow, left: WorkflowPrediction, now: float, resource: str = "gpu") -> Key:
    """Least remaining work first among those that can still meet their deadline, then the others.

    Without a deadline, or a probability of missing it, it is `shortest_remaining_work`.
    """
    hopeless = left.late is not None and left.late > _HOPELESS
    return (1.0 if hopeless else 0.0, left.work.get(resource, 0.0))


def hacs(
    workflow: Workflow,
    left: WorkflowPrediction,
    now: float,
    task_id: str,
    average_completion: float,
    resource: str = "gpu",
) -> Key:
    """Maze's HACS: tasks that much hangs on, that are short, of workflows that waited long.

    `average_completion` is what workflows took lately from arrival to end, in seconds. Better
    seconds make it slightly worse in replays.
    """
    waited = 0.0 if workflow.arrived is None else now - workflow.arrived
    # 0 until a workflow has ended: then there is nothing yet to measure waiting by.
    patience = waited / average_completion if average_completion > 0.0 else 0.0
    age = min(_HACS_LIMIT, max(-_HACS_LIMIT, patience - left.left.get(resource, 0)))
    weight = math.log2(2.0 + 2.0 * workflow.descendants(task_id)) * _HACS_GROWTH**age
    # Negative, as the smallest key runs first; likewise in `daps`.
    return (-weight / left.tasks[task_id].seconds,)


def daps(
    workflow: Workflow,
    left: WorkflowPrediction,
    now: float,
    task_id: str,
    most_tasks: int,
    resource: str = "gpu",
) -> Key:
    """Maze's DAPS: tasks of nearly finished workflows, and those that most of the rest hangs on.

    `most_tasks` is the most open tasks on `resource` of any known workflow. Better seconds make it
    slightly worse in replays.
    """
    urgency = formulas.urgency(left.left.get(resource, 0), most_tasks)
    criticality = formulas.criticality(left.tasks[task_id].seconds, left.seconds)
    return (-formulas.score(urgency, criticality),)
