"""What a predictor remembers of the workflows that it was asked about.

Which tasks have ended and how long they took, what was expected of tasks before they started, and
the predictions of whole workflows that will be scored when the last task has ended.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic

import msgspec

from malearn.kernel.prediction import Prediction
from malearn.kernel.reading import run_ids
from malearn.kernel.reading.believable import LONGEST
from malearn.kernel.records import Record, Rejected
from malearn.kernel.workflow import Workflow, WorkflowPrediction
from malearn.kernel.workflows import workflow_estimate, workflow_shapes
from malearn.kernel.workflows.workflow_calibration import Outcome, WorkflowCalibration
from malearn.kernel.workflows.workflow_checkpoints import Checkpoints
from malearn.kernel.workflows.workflow_hints import Hint, HintsSoFar
from malearn.kernel.workflows.workflow_shapes import Shape, WorkflowShapes
from malearn.kernel.workflows.workflow_status import WorkflowStatus
from malearn.serving.generational_cache import GenerationalCache

__all__ = ["Place", "WorkflowTracker"]

_TASKS = 32_768  # ended ones that are remembered
_WORKFLOWS = 2_048  # that are waited for; the one asked about longest ago is forgotten first
_SHAPES = 256
_OUTCOMES = 512  # scores that wait to be shared

#: When a task ran, in seconds since the epoch, both 0 where its record does not tell; and the run
#: that counts it, "" while none does.
_Ended = tuple[float, float, str]


class Place(msgspec.Struct, frozen=True, gc=False):
    """What a workflow tells of one of its tasks that has ended: the hints, as they were before this
    task, the ids of the tasks that it waited for, and what it ran on; None and "" where that is
    not known."""

    hints: tuple[Hint, ...] = ()
    predecessors: tuple[str, ...] | None = None
    resource: str = ""


class _Tracked:
    """One workflow that was asked about and has tasks left."""

    __slots__ = (
        "checkpoints",
        "expected",
        "hints",
        "latest",
        "left",
        "running",
        "updated",
        "workflow",
    )

    def __init__(self, workflow: Workflow, hints: HintsSoFar, checkpoints: Checkpoints) -> None:
        self.workflow = workflow
        self.hints = hints
        self.checkpoints = checkpoints
        self.left: set[str] = set()
        #: Of each open task, as it was before it started.
        self.expected: Mapping[str, Prediction] = {}
        #: None once nothing is left.
        self.latest: WorkflowPrediction | None = None
        self.running: tuple[str, ...] = ()
        self.updated = 0.0


class WorkflowTracker:
    """Threads may share it; its lock is held for microseconds, never for I/O.

    A discovered workflow all of whose known tasks have ended, and of which more were expected, is
    over once it has not gone on for `pause` seconds. Here these are `monotonic`'s: it is published
    as ended, and shared, though nobody asks any more. Whether its shape teaches what to expect of
    others goes by the caller's clock, on which a replay's hours may pass in a second.
    """

    def __init__(self, pause: float = workflow_shapes.PAUSE) -> None:
        self._pause = pause
        #: Guards all that follows but `_ended`, which needs none; single look-ups go without it.
        self._lock = threading.Lock()
        self._ended: GenerationalCache[str, _Ended] = GenerationalCache(_TASKS)
        self._tracked: dict[str, _Tracked] = {}
        self._run_of: dict[str, str] = {}  # tasks that are left of tracked workflows
        #: Of tracked ones those that wait to go on, and since when, on `monotonic`'s clock.
        self._paused: dict[str, float] = {}
        self._calibration = WorkflowCalibration()
        #: What the calibration began with: scores that a model carries, and when that was trained;
        #: then those that others shared.
        self._carried: Sequence[Outcome] = ()
        self._carried_until = 0.0
        self._restored: Sequence[Outcome] = ()
        self._scored = False  # a workflow has finished here
        self._shapes = WorkflowShapes(pause)
        self._unshared: deque[Outcome] = deque(maxlen=_OUTCOMES)
        #: Discovered ones that wait to be shared, and since when, on `monotonic`'s clock.
        self._grown: dict[str, tuple[Shape, float]] = {}
        self._changed: dict[str, _Tracked] = {}  # since it was published
        #: What was to be published or shared and had to make room.
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._tracked)

    def ended(self, record: Record | Rejected) -> Place | None:
        """Take in a task that was reported; of a record that was rejected for anything but its
        failure nothing is known but that it ended.

        Returns what its workflow tells of it; None where no workflow waits for it.
        """
        if isinstance(record, Record):
            times = record.start, record.end
        else:
            times = record.times or (0.0, 0.0)
        run = self._run_of.get(record.task_id, "")
        self._ended.put(record.task_id, (*times, run))
        if run:  # nobody waits for most
            with self._lock:
                return self._check_off(record)
        return None

    def done(
        self, workflow: Workflow, named: Iterable[str], running: Mapping[str, float]
    ) -> set[str]:
        """Those of the workflow's tasks that have ended: `named` by the caller, or reported.

        One that was started again after it had been reported, as `running` tells, has not.
        """
        reported = self._reported(workflow)
        for task_id, started in running.items() if reported else ():
            ran = reported.get(task_id)
            # Rather than at its end: whoever says when it started may have another clock. Of what
            # was rejected both times may be 0.
            if ran is not None and started > (ran[0] + ran[1]) / 2.0:
                del reported[task_id]
        ended = set(reported)
        ended.update(named)
        return ended

    def hint(self, workflow: Workflow) -> Hint | None:
        """The hint by which tasks of a workflow are answered whose inputs are not known."""
        return self._hints(workflow, self._tracked.get(workflow.run_id)).latest

    def expected(self, run: str, task_id: str, before: Iterable[str]) -> Prediction | None:
        """What was expected of a task before it started, where that is remembered.

        None, too, where one of the tasks `before` it, which have ended, had not ended then: what
        they announced of its inputs was not part of that answer.
        """
        tracked = self._tracked.get(run)
        if tracked is None or not tracked.expected.keys().isdisjoint(before):
            return None
        return tracked.expected.get(task_id)

    def tick(self, now: float) -> None:
        """It is `now` on the caller's clock: all that follows is asked at that moment."""
        with self._lock:
            self._shapes.tick(now)

    def completed(self, workflow: Workflow) -> tuple[Workflow, tuple[str, ...]]:
        """`workflow` and, where more tasks may follow, those that are expected, with their ids."""
        if not workflow.growing:
            return workflow, ()
        with self._lock:
            return self._shapes.completed(workflow)

    def combine(
        self,
        workflow: Workflow,
        open_tasks: Mapping[str, Prediction],
        running: Mapping[str, float],
        now: float,
        whole: Workflow | None = None,
        unseen: tuple[str, ...] = (),
    ) -> WorkflowPrediction:
        """The prediction of the whole, which is scored once all open tasks have ended.

        `whole` and `unseen` are what `completed` gave for `workflow`; `open_tasks` holds
        predictions of the unseen ones, too.
        """
        with self._lock:
            found, state = workflow_estimate.combine(
                whole or workflow, open_tasks, running, now, self._calibration
            )
            if unseen:
                open_tasks = {i: one for i, one in open_tasks.items() if i not in unseen}
                found = msgspec.structs.replace(
                    found,
                    critical=tuple(i for i in found.critical if i not in unseen),
                    tasks={i: one for i, one in found.tasks.items() if i not in unseen},
                    unseen=len(unseen),
                )
            # Without the unseen ones: ids that were made up are never reported.
            if state is not None and (open_tasks or unseen):
                tracked = self._track(workflow, open_tasks)
                tracked.latest, tracked.running, tracked.updated = found, tuple(running), now
                tracked.expected = open_tasks
                self._paused.pop(workflow.run_id, None)
                if not open_tasks:
                    self._paused[workflow.run_id] = monotonic()
                elif workflow.growing:  # what it was so far is not what it becomes
                    self._grown.pop(workflow.run_id, None)
                    self._shapes.forget(workflow.run_id)
                self._note_change(workflow.run_id, tracked)
                # Of one that may grow nobody knows which task is the last.
                if not workflow.growing:
                    tracked.checkpoints.add(state, open_tasks, running, now)
            elif state is None:
                self._end(workflow, now)
        return found

    def restore(self, outcomes: Sequence[Outcome]) -> None:
        """Begin with scores that others shared, oldest first; then those learnt here."""
        with self._lock:
            self._restored = tuple(outcomes)
            self._begin()

    def warm(self, outcomes: Sequence[Outcome], until: float) -> None:
        """Begin with scores that a model carries, which was trained on what ended `until` then.

        Of several models the one that was trained last counts. Once a workflow has finished here
        nothing changes any more.
        """
        with self._lock:
            if outcomes and until > self._carried_until and not self._scored:
                self._carried, self._carried_until = outcomes, until
                self._begin()

    def _begin(self) -> None:
        """Learn what others did, in order of time, and what was learnt here and not shared."""
        calibration = WorkflowCalibration()
        # Of what is shared nothing is older than a model knows of: later scores count for more.
        for outcomes in (self._carried, self._restored, self._unshared):
            calibration.learn_many(outcomes)
        self._calibration = calibration

    @property
    def changed(self) -> bool:
        """Whether a workflow has changed that was not taken since."""
        return bool(self._changed)

    @property
    def unpublished(self) -> bool:
        """Whether anything has changed, or was learnt, that was not taken since."""
        return bool(self._changed or self._unshared or self._grown)

    def take_unshared(self) -> list[Outcome]:
        """The scores learnt since the last call, oldest first."""
        with self._lock:
            taken = list(self._unshared)
            self._unshared.clear()
        return taken

    def restore_shapes(self, shapes: Iterable[Shape]) -> None:
        """Begin with what others' workflows became, oldest first; then those seen here."""
        with self._lock:
            for shape in shapes:
                self._shapes.add(shape)
            for shape, _ in self._grown.values():
                self._shapes.add(shape, may_go_on=True)

    def take_shapes(self, *, ending: bool = False) -> list[Shape]:
        """What discovered workflows became that have not gone on since, oldest first.

        `ending` takes those that have only just finished, too, unless more is expected of them.
        """
        latest = monotonic() - self._pause
        with self._lock:
            taken = [
                run
                for run, (_, since) in self._grown.items()
                if run not in self._paused and (ending or since <= latest)
            ]
            return [self._grown.pop(run)[0] for run in taken]

    def take_changed(self, most: int) -> list[WorkflowStatus]:
        """Up to so many workflows that have changed since the last call."""
        with self._lock:
            self._end_paused()
            taken = [self._changed.pop(run) for run in list(self._changed)[:most]]
            return [self._status(tracked) for tracked in taken]

    def discard_changed(self) -> list[str]:
        """Forget which workflows have changed since they were taken; returns their ids."""
        with self._lock:
            runs = list(self._changed)
            self._changed.clear()
            return runs

    def in_progress(self, most: int) -> list[WorkflowStatus]:
        """Up to so many workflows that have tasks left, those asked about last."""
        with self._lock:
            self._end_paused()
            going_on = [one for one in self._tracked.values() if one.latest is not None]
            return [self._status(one) for one in going_on[-most:]]

    def renew_locks(self) -> None:
        """After a fork nobody holds what another thread held."""
        self._lock = threading.Lock()

    def _track(self, workflow: Workflow, open_tasks: Mapping[str, Prediction]) -> _Tracked:
        tracked = self._known_as(workflow, self._tracked.pop(workflow.run_id, None))
        # Between most calls no task has ended.
        if tracked.left != open_tasks.keys():
            for task_id in tracked.left.difference(open_tasks):
                self._run_of.pop(task_id, None)
            tracked.left = set(open_tasks)
            self._run_of.update(dict.fromkeys(open_tasks, workflow.run_id))
        self._tracked[workflow.run_id] = tracked  # the one asked about last stands last
        if len(self._tracked) > _WORKFLOWS:
            self._forget(next(iter(self._tracked)))
        return tracked

    def _known_as(self, workflow: Workflow, tracked: _Tracked | None) -> _Tracked:
        """`tracked` itself or, where a scheduler has built the workflow anew, what it is now."""
        if tracked is None:
            return _Tracked(workflow, self._hints(workflow, None), Checkpoints())
        if tracked.workflow is workflow:
            return tracked
        rebuilt = _Tracked(workflow, self._hints(workflow, tracked), tracked.checkpoints)
        rebuilt.left, rebuilt.latest = tracked.left, tracked.latest
        return rebuilt

    def _end(self, workflow: Workflow, now: float) -> None:
        """Nothing is left of a workflow, perhaps as its caller says; reports may yet follow."""
        run = workflow.run_id
        tracked = self._tracked.get(run)
        if tracked is None or tracked.latest is None:
            return
        # It stays until its last report, by which its predictions are scored.
        self._tracked[run] = tracked = self._known_as(workflow, tracked)
        tracked.latest, tracked.running, tracked.updated = None, (), now
        self._paused.pop(run, None)
        self._note_change(run, tracked)

    @staticmethod
    def _hints(workflow: Workflow, tracked: _Tracked | None) -> HintsSoFar:
        if tracked is None:
            return HintsSoFar.of(workflow)
        # A scheduler may build its workflows anew; what counts is their id.
        same = tracked.workflow is workflow
        return tracked.hints if same else tracked.hints.rebuilt(workflow)

    def _check_off(self, record: Record | Rejected) -> Place | None:
        run = self._run_of.pop(record.task_id, None)
        tracked = self._tracked.get(run) if run is not None else None
        if run is None or tracked is None:
            return None
        hints = tracked.hints.all
        task = tracked.workflow.tasks.get(record.task_id)
        place = Place(hints) if task is None else Place(hints, task.predecessors, task.resource)
        if isinstance(record, Record):
            tracked.hints = tracked.hints.after(record)
        tracked.left.discard(record.task_id)
        if not tracked.left:
            if tracked.latest is not None and tracked.latest.unseen:
                self._wait_for_more(run, tracked)
            else:
                self._finish(run, tracked)
        return place

    def _wait_for_more(self, run: str, tracked: _Tracked) -> None:
        """All known tasks have ended of a workflow to which more are expected to be appended."""
        self._paused[run] = monotonic()
        self._note_change(run, tracked)
        self._learn_shape(tracked.workflow)

    def _end_paused(self) -> None:
        """Finish those that have not gone on for long, though more was expected."""
        latest = monotonic() - self._pause
        while self._paused:
            run, since = next(iter(self._paused.items()))  # the one that waits longest
            if since > latest:
                return
            self._finish(run, self._tracked[run])

    def _learn_shape(self, workflow: Workflow) -> None:
        self._shapes.learn(workflow)
        # Of one whose shape is given nobody needs to guess the rest.
        shape = workflow_shapes.shape_of(workflow) if workflow.growing else None
        self._grown.pop(workflow.run_id, None)
        if shape is not None:
            self._grown[workflow.run_id] = shape, monotonic()
            if len(self._grown) > _SHAPES:
                del self._grown[next(iter(self._grown))]
                self.dropped += 1

    def _finish(self, run: str, tracked: _Tracked) -> None:
        self._forget(run)
        tracked.latest = None
        self._note_change(run, tracked)
        self._learn_shape(tracked.workflow)
        reported = self._reported(tracked.workflow)
        # Most rejected records have both times 0: they tell that their task ended, not what it
        # took. That of a failed task counts: the workflow waited for it.
        seconds = {i: end - start for i, (start, end, _) in reported.items() if end > 0.0}
        for outcome in tracked.checkpoints.scores(tracked.workflow, seconds):
            self._scored = True
            self._calibration.learn(*outcome)
            self.dropped += len(self._unshared) == _OUTCOMES
            self._unshared.append(outcome)

    def _reported(self, workflow: Workflow) -> dict[str, _Ended]:
        """The workflow's tasks of which a report counts for it."""
        run, order = workflow.run_id, workflow.order
        return {
            task_id: ran
            for task_id, ran in zip(order, self._ended.get_all(order), strict=True)
            if ran is not None and (ran[2] == run or self._claim(workflow, task_id, ran))
        }

    def _claim(self, workflow: Workflow, task_id: str, ran: _Ended) -> bool:
        """Whether a report that no run counts, or another one, is of this workflow."""
        start, end, run = ran
        if not run_ids.is_unmistakable(task_id, workflow.run_id):
            # Some schedulers number the tasks of each workflow alike. The end is 0 where the record
            # does not tell when it ended.
            early = workflow.arrived is not None and 0.0 < end < workflow.arrived
            if run or early:
                return False
        self._ended.put(task_id, (start, end, workflow.run_id))
        return True

    def _note_change(self, run: str, tracked: _Tracked) -> None:
        self._changed[run] = tracked
        # Nobody takes them while Redis is away.
        if len(self._changed) > _WORKFLOWS:
            del self._changed[next(iter(self._changed))]
            self.dropped += 1

    def _status(self, tracked: _Tracked) -> WorkflowStatus:
        workflow = tracked.workflow
        ran = self._reported(workflow).values()
        left = tracked.latest
        path = (left.seconds, left.low, left.high) if left is not None else (0.0, 0.0, 0.0)
        critical = left.critical if left is not None else ()
        return WorkflowStatus(
            workflow.run_id,
            tracked.updated,
            len(workflow),
            len(workflow) - (len(tracked.left) if left is not None else 0),
            *path,
            # Of what was rejected times may be anything.
            spent=sum(end - start for start, end, _ in ran if 0.0 < end - start < LONGEST),
            work=sum(left.work.values()) if left is not None else 0.0,
            arrived=workflow.arrived,
            deadline=workflow.deadline,
            late=left.late if left is not None else None,
            ended=None if left is not None else max([tracked.updated, *(end for _, end, _ in ran)]),
            running=tuple(workflow.tasks[i].function for i in tracked.running if i in tracked.left),
            next=tuple(workflow.tasks[i].function for i in critical if i in tracked.left),
            unseen=left.unseen if left is not None else 0,
        )

    def _forget(self, run: str) -> None:
        self._paused.pop(run, None)
        for task_id in self._tracked.pop(run).left:
            self._run_of.pop(task_id, None)
