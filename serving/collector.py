"""Finished tasks on their way to Redis.

The scheduler's thread appends to a deque and is done. Encoding and sending
happen on the background thread, in batches, at least once: ingestion is
idempotent on the task id. Memory is bounded; what had to be dropped is counted.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterable
from time import perf_counter

from malearn.serving import stream_format
from malearn.serving.connection import Connection, ResponseError, pack

__all__ = ["Collector"]

_BATCH = 256
_POLITE = 16  # entries encoded before other threads are let in

#: Function, entry for the stream, memo for the function's list.
_Parcel = tuple[str, bytes, bytes | None]


class Collector:
    """A bounded queue in front of the stream.

    `capacity` counts tasks waiting; `stream_length` is about how many entries
    the stream keeps. Send timeouts are in seconds.
    """

    def __init__(self, capacity: int = 20_000, stream_length: int = 100_000) -> None:
        self.sent = self.dropped = self.refused = 0
        self._capacity, self._stream_length = capacity, stream_length
        self._reports: deque[stream_format.CompletedTask] = deque()
        self._parcels: deque[_Parcel] = deque()
        head = (
            b"XADD",
            stream_format.STREAM.encode(),
            b"MAXLEN",
            b"~",
            b"%d" % stream_length,
            b"*",
            b"e",
        )
        self._xadd = b"*8\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in head)

    def __len__(self) -> int:
        return len(self._reports) + len(self._parcels)

    def put(self, report: stream_format.CompletedTask) -> None:
        """Take one report. The newest is dropped while there is no room."""
        if len(self._reports) >= self._capacity:
            self.dropped += 1
            return
        self._reports.append(report)

    def pack(self) -> None:
        """Encode what waits, so that it takes little room; of too many the oldest are dropped."""
        reports, parcels = self._reports, self._parcels
        for number in range(1, len(reports) + 1):
            report = reports.popleft()
            try:
                parcel = (
                    report.record.function,
                    stream_format.stream_entry(report),
                    stream_format.history_entry(report),
                )
            except (ValueError, TypeError):  # names that are no text, or no UTF-8
                self.dropped += 1
                continue
            parcels.append(parcel)
            if number % _POLITE == 0:
                time.sleep(0)
        while len(parcels) > self._capacity:
            parcels.popleft()
            self.dropped += 1

    def send(self, connection: Connection, timeout: float) -> bool:
        """Send one batch; False when nothing was left to send.

        What `connection.call` raises leaves the batch in the queue. So does a refusal
        of Redis, raised as `ResponseError`.
        """
        self.pack()
        parcels = self._parcels
        batch = [parcels[i] for i in range(min(_BATCH, len(parcels)))]
        if not batch:
            return False
        memos = _lists(batch)
        answers = connection.call(
            b"".join([*map(self._entry, batch), *memos]),
            len(batch) + 3 * len(memos),
            perf_counter() + timeout,
        )
        for answer in answers[: len(batch)]:
            if isinstance(answer, ResponseError):
                self.refused += 1
                raise answer
        for _ in batch:
            parcels.popleft()
        self.sent += len(batch)
        return True

    def give_up(self) -> None:
        """Drop everything unsent."""
        self.dropped += len(self)
        self.forget()

    def forget(self) -> None:
        """Drop everything unsent, uncounted: after a fork it is the parent's to send."""
        self._reports.clear()
        self._parcels.clear()

    def _entry(self, parcel: _Parcel) -> bytes:
        return b"%b$%d\r\n%b\r\n" % (self._xadd, len(parcel[1]), parcel[1])


def _lists(batch: Iterable[_Parcel]) -> list[bytes]:
    """Per function of a batch: push its memos, cut the list, renew its time to live."""
    by_function: dict[str, list[bytes]] = defaultdict(list)
    for function, _, memo in batch:
        if memo is not None:
            by_function[function].append(memo)
    return [
        pack("LPUSH", key, *memos[-stream_format.REMEMBERED :])
        + pack("LTRIM", key, "0", str(stream_format.REMEMBERED - 1))
        + pack("EXPIRE", key, str(stream_format.KEEP_SECONDS))
        for function, memos in by_function.items()
        for key in (stream_format.HISTORY + function,)
    ]
