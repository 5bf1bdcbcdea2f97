"""Finished tasks, as they are reported: kept for their successors, learnt from, sent on.

What a task gives its successors is kept at once, for that is asked for next. Learning from it
may wait until the next estimate, or until the background thread comes by: whoever reports a
task need not wait while a history takes it in.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from malearn.kernel.estimation.observation import Observation
from malearn.kernel.features import FeatureSchema
from malearn.kernel.reading import believable, record_reader
from malearn.kernel.reading.believable import Clock
from malearn.kernel.records import Record, Rejected
from malearn.serving.collector import Collector
from malearn.serving.generational_cache import GenerationalCache
from malearn.serving.predecessor_cache import PredecessorCache
from malearn.serving.shared_history import SharedHistory
from malearn.serving.stats import CallCounters
from malearn.serving.stream_format import CompletedTask, Predicted
from malearn.serving.workflow_tracker import Place

__all__ = ["CompletionHandler", "read"]

_NOWHERE = Place()

_MOST_WAITING = 64  # beyond it whoever reports learns, too, so that memory stays bounded
_MOST_AHEAD = 10 * 366 * 86_400.0  # seconds by which a caller's clock may run ahead of ours
_AT_ONCE = 32  # so many are learnt when there are as many; less than a millisecond


class CompletionHandler:
    """Finished tasks on their way into memory, history and collector. Threads may share it.

    `predicted` are the answers that were given, by task id; `on_error` is called where learning
    failed, within the handling of the error.
    """

    def __init__(
        self,
        memory: PredecessorCache,
        history: SharedHistory,
        predicted: GenerationalCache[str, Predicted],
        collector: Collector,
        counters: CallCounters,
        on_error: Callable[[str], object],
        clock: Clock = time.time,
    ) -> None:
        self._predecessors, self._history, self._predicted = memory, history, predicted
        self._collector, self._counters, self._record_internal_error = collector, counters, on_error
        self._clock = clock
        self._ahead = -math.inf  # the latest time by a caller's own clock
        #: One learner at a time, so that tasks are learnt in the order in which they were reported.
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Record | Rejected, Place]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, record: Record | Rejected, place: Place | None = None) -> None:
        """Take one finished task, and what its workflow tells of it, if it is of a known one."""
        if isinstance(record, Rejected):
            self._predecessors.add_empty(record.task_id)
            self._counters.took(record.reason.value)
        else:
            self._predecessors.add(record)
            self._counters.took()
        self._waiting.append((record, place or _NOWHERE))
        if len(self._waiting) >= _MOST_WAITING:
            self._learn(_AT_ONCE)

    def follow_clock(self, now: float) -> None:
        """A caller's own clock, which runs ahead of ours where it replays or simulates: what ended
        by it is no more in the future than its questions are."""
        # Not milliseconds: what is reported in them would be a thousand times too long.
        if self._ahead < now < self._clock() + _MOST_AHEAD:
            self._ahead = now

    def drain(self) -> None:
        """Learn from all that waits now."""
        if self._waiting:
            self._learn(len(self._waiting))

    def drain_yielding(self) -> None:
        """The same, one at a time, so that others come in between."""
        for _ in range(len(self._waiting)):
            self._learn(1)
            # Gives the interpreter to a thread that waits for it.
            time.sleep(0)

    def renew_locks(self) -> None:
        """After a fork nobody holds what another thread held."""
        self._lock = threading.Lock()

    def _learn(self, count: int) -> None:
        with self._lock:
            # Counted under the lock: another thread may have learnt some since the caller looked.
            for _ in range(min(count, len(self._waiting))):
                record, place = self._waiting.popleft()
                try:
                    report = self._learnt(record, place)
                except Exception:  # noqa: BLE001 - costs no answer, and ingestion sees it all the same
                    self._record_internal_error("learning from a report")
                    report = CompletedTask(record)
                self._collector.put(report)

    def _learnt(self, record: Record | Rejected, place: Place) -> CompletedTask:
        """What there is to report of `record`, once the history has taken it in."""
        if isinstance(record, Rejected):
            self._learn_unsuccessful(record, place)
            return CompletedTask(record)
        # Taken out: an answer whose task is reported twice is learnt from once.
        function, predicted = record.function, self._predicted.pop(record.task_id)
        types = self._predecessors.tool_types
        # What was asked for tells the resource, too; a task that was not tells what it ran with.
        tool_type = types.for_known(function) or types.for_record(function, record.features)
        schema = self._predecessors.schemas[tool_type.name] if tool_type is not None else None
        if (reason := self._doubt(record, schema)) is not None:
            # Ingestion gets it all the same, and records why it is rejected.
            self._counters.reject(reason)
            return CompletedTask(
                record,
                tool_type,
                predicted,
                believed=False,
                predecessors=place.predecessors,
                resource=place.resource,
            )
        values: tuple[float, ...] = ()
        context: tuple[str, ...] = ()
        if predicted is not None:
            values, context = predicted.values, predicted.context
            if predicted.basis is not None:
                self._history.learn(predicted.basis, predicted.seconds, record.seconds, values)
        if schema is not None:
            own = schema.vectorize(record.features)
            # What it ran with counts more than what was expected.
            context = own.context or context
            if not any(value == value for value in values):
                # As in training: its own features stand in for those that nobody gave before.
                values = own.values
        name = tool_type.name if tool_type is not None else ""
        self._history.observe(
            record.task_id,
            Observation(function, name, record.start, record.end, values, context),
            place.hints,
        )
        return CompletedTask(
            record,
            tool_type,
            predicted,
            values,
            context,
            predecessors=place.predecessors,
            resource=place.resource,
        )

    def _learn_unsuccessful(self, rejected: Rejected, place: Place) -> None:
        """Learn how long workflows wait for a task that failed or was skipped."""
        if rejected.times is None:
            return
        start, end = rejected.times
        if not believable.are_believable(start, end, max(self._clock(), self._ahead), shortest=0.0):
            return
        # Left there: the task may be tried again, under the same id.
        predicted = self._predicted.get(rejected.task_id)
        tool_type = self._predecessors.tool_types.for_known(rejected.function)
        values, context = ((), ()) if predicted is None else (predicted.values, predicted.context)
        name = tool_type.name if tool_type is not None else ""
        self._history.observe_unsuccessful(
            rejected.task_id,
            Observation(rejected.function, name, start, end, values, context),
            place.hints,
            *(() if predicted is None else (predicted.basis, predicted.seconds)),
        )

    def _doubt(self, record: Record, schema: FeatureSchema | None) -> str | None:
        """The reason code for which nothing is learnt from `record`; None where all is well."""
        now = max(self._clock(), self._ahead)
        if (problem := believable.problem(record.start, record.end, now)) is not None:
            return problem[0]
        if schema is not None and schema.problem(record.features) is not None:
            return "invalid_feature"
        return None


def read(
    task_id: str, raw: str | bytes | Mapping[str, object], function: str | None
) -> Record | Rejected:
    """A finished task's record, whatever its clock says.

    A wrong clock makes the times useless, which `CompletionHandler` sees to, but not what the
    task reports of those after it.
    """
    return record_reader.read(task_id, raw, function, now=math.inf)
