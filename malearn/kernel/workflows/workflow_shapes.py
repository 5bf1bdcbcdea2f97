"""What workflows became that began alike: the tasks to expect of one whose shape is not yet known.

A workflow may be discovered while it runs. Of those that finished lately, began with the same
functions and had every function that it has so far, the one with the median number of further
tasks says what is still to come.

Nobody says which task of a discovered workflow is the last. So one that began like a longer one,
and has not been over for a while, is taken for the beginning of such a one, and passed over.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import msgspec

from malearn.kernel import text
from malearn.kernel.workflow import Workflow

__all__ = ["PAUSE", "Shape", "WorkflowShapes", "decode", "encode", "shape_of"]

#: Seconds after which a discovered workflow that has not gone on is over.
PAUSE = 120.0

_REMEMBERED = 256  # workflows; the one that finished longest ago goes first
_COMPARED = 15  # latest ones that began alike
_MOST_TASKS = 200  # of one that is remembered
_KINDS = 32  # different shapes, the latest ones, that one is taken for a beginning of

#: Function, resource, and the functions that it waits for.
_Step = tuple[str, str, tuple[str, ...]]


class Shape(msgspec.Struct, frozen=True):
    """What a workflow became: of each task its function, its resource, and the functions that it
    waited for."""

    run_id: str
    steps: tuple[_Step, ...]


class _Known(msgspec.Struct, gc=False):
    shape: Shape
    beginning: tuple[str, ...]
    functions: Counter[str]
    kind: tuple[tuple[str, int], ...]  # the same of what has the same functions
    #: Since when all its tasks have ended, on the caller's clock; infinite until that is known.
    since: float


_decoder = msgspec.json.Decoder(Shape)


def shape_of(workflow: Workflow) -> Shape | None:
    """The shape of `workflow`; None for one that is too large to be remembered."""
    tasks = workflow.tasks
    if not 0 < len(tasks) <= _MOST_TASKS:
        return None
    return Shape(
        text.encodable(workflow.run_id),
        tuple(
            (
                text.encodable(task.function),
                text.encodable(task.resource),
                tuple(text.encodable(tasks[b].function) for b in task.predecessors),
            )
            for task in list(tasks.values())  # another thread may append to them
        ),
    )


def encode(shape: Shape) -> bytes:
    """As JSON, for schedulers that start later; `decode` reads it back."""
    return msgspec.json.encode(shape)


def decode(raw: object) -> Shape | None:
    """From JSON; None for what is none."""
    try:
        shape = _decoder.decode(raw if isinstance(raw, bytes) else b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return shape if 0 < len(shape.steps) <= _MOST_TASKS else None


class WorkflowShapes:
    """The shapes of workflows that have finished, which may go on for `pause` seconds. Not
    thread-safe: its owner serialises calls."""

    __slots__ = ("_now", "_pause", "_shapes", "_undated")

    def __init__(self, pause: float = PAUSE) -> None:
        self._pause, self._now = pause, -math.inf
        self._shapes: dict[str, _Known] = {}
        self._undated: list[_Known] = []

    def tick(self, now: float) -> None:
        """It is `now` on the caller's clock, which may be a replay's."""
        self._now = now
        if self._undated:
            for known in self._undated:
                known.since = now
            self._undated.clear()

    def learn(self, workflow: Workflow) -> None:
        """Take in a finished workflow; one that went on after all replaces what it was before."""
        shape = shape_of(workflow)
        if shape is not None:
            self.add(shape, may_go_on=workflow.growing)
        else:  # it has grown beyond what is remembered
            self.forget(workflow.run_id)

    def add(self, shape: Shape, *, may_go_on: bool = False) -> None:
        """Take in the shape of a finished workflow."""
        self._forget(shape.run_id)  # so that the one that finished last stands last
        beginning = tuple(sorted(function for function, _, before in shape.steps if not before))
        functions = Counter(function for function, _, _ in shape.steps)
        since = math.inf if may_go_on else -math.inf
        known = _Known(shape, beginning, functions, tuple(sorted(functions.items())), since)
        self._shapes[shape.run_id] = known
        if may_go_on:
            self._undated.append(known)
        if len(self._shapes) > _REMEMBERED:
            del self._shapes[next(iter(self._shapes))]

    def forget(self, run: str) -> None:
        """The run goes on: what it was so far is not what it became."""
        self._forget(text.encodable(run))

    def completed(self, workflow: Workflow) -> tuple[Workflow, tuple[str, ...]]:
        """`workflow` with the tasks that are expected to be appended, and their made-up ids."""
        known = Counter([task.function for task in list(workflow.tasks.values())])
        steps = self._unseen(workflow, known)
        if not steps:
            return workflow, ()
        whole = Workflow(workflow.run_id, None, workflow.arrived, workflow.deadline)
        # Past the checks of the constructor, which the tasks of `workflow` have met already.
        whole.context = workflow.context
        whole.tasks = dict(workflow.tasks)
        latest = {task.function: task_id for task_id, task in whole.tasks.items()}
        added = []
        for number, (function, resource, before) in enumerate(steps):
            task_id = f"{workflow.run_id}/expected-{number}-{function}"
            whole.append(task_id, function, resource, [latest[b] for b in before if b in latest])
            latest[function] = task_id
            added.append(task_id)
        return whole, tuple(added)

    def _forget(self, run: str) -> None:
        self._shapes.pop(run, None)

    def _unseen(self, workflow: Workflow, known: Counter[str]) -> list[_Step]:
        beginning, run = _beginning(workflow), text.encodable(workflow.run_id)
        began_alike = [
            one
            # `>=` of Counters: each function at least as often as it occurs so far.
            for other, one in reversed(self._shapes.items())
            if other != run and one.beginning == beginning and one.functions >= known
        ]
        alike = self._over(began_alike)
        if not alike:
            return []
        alike.sort(key=len)
        left, unseen = known.copy(), []
        # The lower median: a task that was not expected shows itself when it is appended.
        for step in alike[(len(alike) - 1) // 2]:
            if left[step[0]]:
                left[step[0]] -= 1
            else:
                unseen.append(step)
        return unseen

    def _over(self, found: Sequence[_Known]) -> list[tuple[_Step, ...]]:
        """The first of `found`, newest first, without those that seem to go on."""
        kinds = list({one.kind: one.functions for one in found}.values())[:_KINDS]
        grows: dict[tuple[tuple[str, int], ...], bool] = {}
        over = []
        for one in found:
            if not self._now - one.since > self._pause:
                if one.kind not in grows:
                    grows[one.kind] = any(other > one.functions for other in kinds)
                if grows[one.kind]:
                    continue
            over.append(one.shape.steps)
            if len(over) == _COMPARED:
                break
        return over


def _beginning(workflow: Workflow) -> tuple[str, ...]:
    """The functions that wait for nothing."""
    return tuple(sorted(t.function for t in list(workflow.tasks.values()) if not t.predecessors))
