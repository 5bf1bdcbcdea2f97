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
from malearn.serving.memory import Memory
from malearn.serving.recent import Recent
from malearn.serving.shared_history import SharedHistory
from malearn.serving.stats import Tally
from malearn.serving.wire import Predicted, Report

__all__ = ["Intake"]

_MOST_WAITING = 64
_AT_ONCE = 32  # so many are learnt when there are as many; less than a millisecond


class Intake:
    """Finished tasks on their way into memory, history and collector. Threads may share it.

    `predicted` are the answers that were given, by task id; `blame` is told where learning
    failed, within the handling of the error.
    """

    def __init__(
        self,
        memory: Memory,
        history: SharedHistory,
        predicted: Recent[str, Predicted],
        collector: Collector,
        tally: Tally,
        blame: Callable[[str], object],
    ) -> None:
        self._memory, self._history, self._predicted = memory, history, predicted
        self._collector, self._tally, self._blame = collector, tally, blame
        self._lock = threading.Lock()
        self._waiting: deque[Record | Rejected] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, record: Record | Rejected) -> None:
        """Take one finished task."""
        if isinstance(record, Rejected):
            self._memory.silence(record.task_id)
            self._tally.took(record.reason.value)
        else:
            self._memory.remember(record)
            self._tally.took()
        self._waiting.append(record)
        if len(self._waiting) >= _MOST_WAITING:
            self._learn(_AT_ONCE)

    def settle(self) -> None:
        """Learn from all that waits now."""
        if self._waiting:
            self._learn(len(self._waiting))

    def settle_politely(self) -> None:
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
                    self._blame("learning from a report")
                    report = Report(record)
                self._collector.put(report)

    def _learnt(self, record: Record | Rejected) -> Report:
        """What there is to report of `record`, once the history has taken it in."""
        if isinstance(record, Rejected):
            return Report(record)
        function, predicted = record.function, self._predicted.pop(record.task_id)
        tool_type = self._memory.tool_types.of(function)
        name = tool_type.name if tool_type is not None else ""
        values: tuple[float, ...] = ()
        context: tuple[str, ...] = ()
        if predicted is not None:
            values, context = predicted.values, predicted.context
            if predicted.width is not None:
                self._history.learn(
                    function, name, record.seconds, predicted.seconds, predicted.width
                )
        if tool_type is not None:
            own = self._memory.columns[name].told(record.features)
            context = own.context or context
            if not any(value == value for value in values):
                # As in training: what it says of itself stands in for what nobody said before.
                values = own.values
        self._history.observe(
            record.task_id,
            Observation(function, name, record.start, record.end, values, context),
        )
        return Report(record, tool_type, predicted, values, context)
