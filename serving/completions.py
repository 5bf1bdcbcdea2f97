"""What becomes of a finished task.

What it said of its successors is kept at once, for that is asked next. What it
teaches may wait until somebody asks, or until the background thread comes by:
whoever reports a task need not stand by while a history takes it in.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from malearn.kernel.history import Observation
from malearn.kernel.records import Record, Rejected
from malearn.serving.collector import Collector
from malearn.serving.generational_cache import GenerationalCache
from malearn.serving.predecessor_cache import PredecessorCache
from malearn.serving.shared_history import SharedHistory
from malearn.serving.stats import CallCounters
from malearn.serving.stream_format import CompletedTask, Predicted

__all__ = ["CompletionHandler"]

_MOST_WAITING = 64
_AT_ONCE = 32  # so many are learnt when there are as many; less than a millisecond


class CompletionHandler:
    """Finished tasks on their way into memory, history and collector. Threads may share it.

    `predicted` are the answers that were given, by task id; `on_error` is told where learning
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
    ) -> None:
        self._predecessors, self._history, self._predicted = memory, history, predicted
        self._collector, self._counters, self._record_internal_error = collector, counters, on_error
        self._lock = threading.Lock()
        self._waiting: deque[Record | Rejected] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, record: Record | Rejected) -> None:
        """Take one finished task."""
        if isinstance(record, Rejected):
            self._predecessors.add_empty(record.task_id)
            self._counters.took(record.reason.value)
        else:
            self._predecessors.add(record)
            self._counters.took()
        self._waiting.append(record)
        if len(self._waiting) >= _MOST_WAITING:
            self._learn(_AT_ONCE)

    def drain(self) -> None:
        """Learn from all that waits now."""
        if self._waiting:
            self._learn(len(self._waiting))

    def drain_yielding(self) -> None:
        """The same, one at a time, so that others come in between."""
        for _ in range(len(self._waiting)):
            self._learn(1)
            time.sleep(0)

    def renew_locks(self) -> None:
        """After a fork nobody holds what another thread held."""
        self._lock = threading.Lock()

    def _learn(self, count: int) -> None:
        with self._lock:
            for _ in range(min(count, len(self._waiting))):
                record = self._waiting.popleft()
                try:
                    report = self._learnt(record)
                except Exception:  # noqa: BLE001 - costs no answer, and ingestion sees it all the same
                    self._record_internal_error("learning from a report")
                    report = CompletedTask(record)
                self._collector.put(report)

    def _learnt(self, record: Record | Rejected) -> CompletedTask:
        """What there is to report of `record`, once the history has taken it in."""
        if isinstance(record, Rejected):
            return CompletedTask(record)
        function, predicted = record.function, self._predicted.pop(record.task_id)
        tool_type = self._predecessors.tool_types.for_function(function)
        name = tool_type.name if tool_type is not None else ""
        values: tuple[float, ...] = ()
        context: tuple[str, ...] = ()
        if predicted is not None:
            values, context = predicted.values, predicted.context
            if predicted.basis is not None:
                self._history.learn(predicted.basis, predicted.seconds, record.seconds)
        if tool_type is not None:
            own = self._predecessors.schemas[name].vectorize(record.features)
            context = own.context or context
            if not any(value == value for value in values):
                # As in training: what it says of itself stands in for what nobody said before.
                values = own.values
        self._history.observe(
            record.task_id,
            Observation(function, name, record.start, record.end, values, context),
        )
        return CompletedTask(record, tool_type, predicted, values, context)
