"""What workflows became that began alike: the tasks to expect of one whose shape is not yet known.

A workflow may be discovered while it runs. Of those that finished lately, began with the same
functions and had every function that it has so far, the one with the median number of further
tasks says what is still to come.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from malearn.kernel.workflow import Workflow

__all__ = ["WorkflowShapes"]

_REMEMBERED = 256  # workflows; the one that finished longest ago goes first
_COMPARED = 15  # latest ones that began alike
_MOST_TASKS = 200  # of one that is remembered

#: Function, resource, and the functions that it waits for.
_Step = tuple[str, str, tuple[str, ...]]


class _Shape(msgspec.Struct, frozen=True, gc=False):
    beginning: tuple[str, ...]
    functions: Counter[str]
    steps: tuple[_Step, ...]


class WorkflowShapes:
    """The shapes of workflows that have finished. Not thread-safe: its owner serialises calls."""

    __slots__ = ("_shapes",)

    def __init__(self) -> None:
        self._shapes: dict[str, _Shape] = {}

    def learn(self, workflow: Workflow) -> None:
        """Take in a finished workflow; one that went on after all replaces what it was before."""
        # First: one that has grown beyond what is remembered must not leave its former shape.
        self._shapes.pop(workflow.run_id, None)
        if not 0 < len(workflow) <= _MOST_TASKS:
            return
        tasks = workflow.tasks
        steps = tuple(
            (task.function, task.resource, tuple(tasks[b].function for b in task.predecessors))
            for task in tasks.values()
        )
        functions = Counter(task.function for task in tasks.values())
        self._shapes[workflow.run_id] = _Shape(_beginning(workflow), functions, steps)
        if len(self._shapes) > _REMEMBERED:
            del self._shapes[next(iter(self._shapes))]

    def completed(self, workflow: Workflow) -> tuple[Workflow, tuple[str, ...]]:
        """`workflow` with the tasks that are expected to be appended, and their made-up ids."""
        known = Counter(task.function for task in workflow.tasks.values())
        steps = self._unseen(workflow, known)
        if not steps:
            return workflow, ()
        whole = Workflow(workflow.run_id, None, workflow.arrived, workflow.deadline)
        # Past the checks of the constructor, which the tasks of `workflow` have met already.
        whole.context = workflow.context
        whole.tasks = dict(workflow.tasks)
        latest = {task.function: task_id for task_id, task in workflow.tasks.items()}
        added = []
        for number, (function, resource, before) in enumerate(steps):
            task_id = f"{workflow.run_id}/expected-{number}-{function}"
            whole.append(task_id, function, resource, [latest[b] for b in before if b in latest])
            latest[function] = task_id
            added.append(task_id)
        return whole, tuple(added)

    def _unseen(self, workflow: Workflow, known: Counter[str]) -> list[_Step]:
        beginning, run = _beginning(workflow), workflow.run_id
        alike = [
            shape
            # `>=` of Counters: each function at least as often as it occurs so far.
            for other, shape in reversed(self._shapes.items())
            if other != run and shape.beginning == beginning and shape.functions >= known
        ][:_COMPARED]
        if not alike:
            return []
        alike.sort(key=lambda shape: len(shape.steps))
        left, unseen = known.copy(), []
        # The lower median: a task that was not expected shows itself when it is appended.
        for step in alike[(len(alike) - 1) // 2].steps:
            if left[step[0]]:
                left[step[0]] -= 1
            else:
                unseen.append(step)
        return unseen


def _beginning(workflow: Workflow) -> tuple[str, ...]:
    """The functions that wait for nothing."""
    return tuple(sorted(t.function for t in workflow.tasks.values() if not t.predecessors))
