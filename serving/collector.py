"""Finished tasks on their way to Redis.

The scheduler's thread appends to a deque and is done. Encoding and sending
happen on the background thread, in batches, at least once: ingestion is
idempotent on the task id. Memory is bounded; what had to be dropped is counted.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from time import monotonic
from typing import NamedTuple

from malearn.kernel import names as names_
from malearn.kernel.names import Names
from malearn.kernel.reading import run_ids, stream_entries
from malearn.serving import stream_format
from malearn.serving.connection import RedisConnection
from malearn.serving.refusals import Refusals
from malearn.serving.resp import ResponseError, pack
from malearn.serving.stream_format import CompletedTask

__all__ = ["Collector"]

_BATCH = 256  # entries per round trip: a few ms of Redis, so that others' commands come between
_COMMANDS = 4  # for each function of a batch
# Seconds. Counted from a time nearby, the powers of two below stay within a double until 2043.
_COUNTED_FROM, _HALF_LIFE = 1_700_000_000.0, 7 * 86_400.0
_PAUSE = 1.0  # seconds in which nothing is sent to a stream that refuses, while others do not
_YIELD_AFTER = 16  # entries encoded before other threads are let in


class _Encoded(NamedTuple):
    """A finished task as it is sent: to the stream, and to its function's list unless None."""

    function: str
    stream: int
    stream_entry: bytes
    history_entry: bytes | None


class Collector:
    """A bounded queue in front of the stream.

    `capacity` counts tasks waiting; `stream_length` is about how many entries the stream keeps
    (`$MALEARN_STREAM_LENGTH`). `on_entry` is called on the background thread with each entry of the
    stream, before it is sent. Without `sends` none is; without either, nothing is taken.
    What Redis refuses to write is counted in `refusals`.
    """

    def __init__(
        self,
        refusals: Refusals,
        capacity: int = 20_000,
        stream_length: int | None = None,
        on_entry: Callable[[bytes], None] | None = None,
        *,
        sends: bool = True,
        names: Names | None = None,
        streams: int | None = None,
    ) -> None:
        if stream_length is None:
            stream_length = stream_entries.length_limit()
        self.sent = self.dropped = 0
        self._sends = sends
        self._refusals, self._on_entry = refusals, on_entry
        self._capacity = capacity
        self._tasks: deque[CompletedTask] = deque()
        self._names = Names.find() if names is None else names
        self._streams = self._names.streams(names_.stream_count() if streams is None else streams)
        #: By stream, each in the order of its entries.
        self._encoded: list[deque[_Encoded]] = [deque() for _ in self._streams]
        #: Until when nothing is sent to a stream that refused an entry while others took theirs.
        self._resume_at = [0.0] * len(self._streams)
        self._xadds = [_xadd(key, stream_length) for key in self._streams]

    def __len__(self) -> int:
        return len(self._tasks) + self._waiting()

    def put(self, task: CompletedTask) -> None:
        """Take one finished task. The newest is dropped while there is no room."""
        if not self._sends and self._on_entry is None:
            return
        # Without a lock: `append` and `popleft` of a deque are atomic, and a few tasks above the
        # capacity do no harm.
        if len(self._tasks) >= self._capacity:
            self.dropped += 1
            return
        self._tasks.append(task)

    def encode(self) -> None:
        """Encode what waits, so that it takes little room; of too many the oldest are dropped."""
        tasks, encoded = self._tasks, self._encoded
        for number in range(1, len(tasks) + 1):
            task = tasks.popleft()
            try:
                one = _Encoded(
                    task.record.function,
                    self._stream_of(task.record.task_id),
                    stream_format.stream_entry(task),
                    stream_format.history_entry(task),
                )
            except (ValueError, TypeError):  # names that are no text, or no UTF-8
                self.dropped += 1
                continue
            if self._sends:
                encoded[one.stream].append(one)
            # Before it is sent: learning in this process must not depend on Redis.
            if self._on_entry is not None:
                self._on_entry(one.stream_entry)
            # Encoding holds the interpreter, and a caller may be waiting for it.
            if number % _YIELD_AFTER == 0:
                time.sleep(0)
        while self._waiting() > self._capacity:
            # Of a stream that cannot be sent to, rather than of those that can.
            max(encoded, key=len).popleft()
            self.dropped += 1

    def send(self, connection: RedisConnection, deadline: float) -> bool:
        """Send one batch; False when nothing was left to send.

        What `connection.call` raises leaves the batch in the queue. Entries that a stream refuses
        stay there too, and raise their `ResponseError` unless another stream took its own. A
        refused list costs only what it would have told schedulers that start later.
        """
        self.encode()
        # Looked at, not taken out: what Redis has not confirmed is sent once more.
        batch = self._batch()
        if not batch:
            return False
        lists = _lists(batch, self._names)
        # Lists first: a scheduler that starts remembers where the stream ends, then reads the
        # lists, so whatever stands before that end must be in them.
        calls = [
            (b"".join(packed for _, packed in lists), _COMMANDS * len(lists)),
            (b"".join(map(self._entry, batch)), len(batch)),
        ]
        if connection.in_order:
            (lists_sent, listed), (entries_sent, added) = calls
            calls = [(lists_sent + entries_sent, listed + added)]
        replies = [
            reply
            for packed, count in calls
            if count
            for reply in connection.call(packed, count, deadline)
        ]
        entries, rest = replies[-len(batch) :], iter(replies[: -len(batch)])
        confirmed = self._confirm(batch, entries)
        self._note_lists([key for key, _ in lists], rest, refused=not confirmed)
        return True

    def close(self) -> None:
        """Count everything unsent as dropped, and take nothing more."""
        # So that `put`, called afterwards, counts its task as dropped, too.
        self._capacity = 0
        self.dropped += len(self)
        self.clear()

    def clear(self) -> None:
        """Forget everything unsent, uncounted: after a fork it is the parent's to send."""
        self._tasks.clear()
        for encoded in self._encoded:
            encoded.clear()

    def _waiting(self) -> int:
        return sum(map(len, self._encoded))

    def _batch(self) -> list[_Encoded]:
        """What is sent next: as much of each stream that takes anything."""
        now = monotonic()
        ready = [
            encoded
            for encoded, resume_at in zip(self._encoded, self._resume_at, strict=True)
            if encoded and resume_at <= now
        ]
        share = max(1, _BATCH // max(len(ready), 1))
        return [one for encoded in ready for one in islice(encoded, share)]

    def _confirm(self, batch: Sequence[_Encoded], replies: Sequence[object]) -> bool:
        """Take out what the streams took; whether that is all of `batch`. Raises `ResponseError`
        where none took anything."""
        refused: dict[int, list[ResponseError]] = defaultdict(list)
        kept = 0
        for one, reply in zip(batch, replies, strict=True):
            if isinstance(reply, ResponseError):
                refused[one.stream].append(reply)
            # In order: from a refused entry on, nothing leaves its stream's queue.
            elif one.stream not in refused:
                self._encoded[one.stream].popleft()
                kept += 1
        self.sent += kept
        for stream, errors in refused.items():
            self._refusals.refused("write", self._streams[stream], errors[0], len(errors))
            if not kept or len(self._streams) == 1:
                raise errors[0]
            # The other streams go on meanwhile.
            self._resume_at[stream] = monotonic() + _PAUSE
        return not refused

    def _stream_of(self, task_id: str) -> int:
        count = len(self._streams)
        return self._names.stream_of(run_ids.run_of(task_id), count) if count > 1 else 0

    def _entry(self, one: _Encoded) -> bytes:
        xadd = self._xadds[one.stream]
        return b"%b$%d\r\n%b\r\n" % (xadd, len(one.stream_entry), one.stream_entry)

    def _note_lists(self, keys: Iterable[str], replies: Iterator[object], *, refused: bool) -> None:
        for key in keys:
            for reply in islice(replies, _COMMANDS):
                if isinstance(reply, ResponseError):
                    refused = True
                    self._refusals.refused("write", key, reply)
        if not refused:
            self._refusals.accepted("write")


def _xadd(key: str, length: int) -> bytes:
    """The command that adds an entry to the stream `key`, up to the entry itself."""
    # `~` lets Redis trim whole nodes only, which costs it next to nothing.
    head = (b"XADD", key.encode(), b"MAXLEN", b"~", b"%d" % length, b"*", b"e")
    return b"*8\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in head)


def _lists(batch: Iterable[_Encoded], names: Names) -> list[tuple[str, bytes]]:
    """Per function of a batch its list's key, and the commands to push, cut, renew its life, and
    count how much the function is used.
    """
    by_function: dict[str, list[bytes]] = defaultdict(list)
    for one in batch:
        if one.history_entry is not None:
            by_function[one.function].append(one.history_entry)
    # Uses count half after `_HALF_LIFE`: those of later are worth more, none has to be changed.
    worth = 2.0 ** ((time.time() - _COUNTED_FROM) / _HALF_LIFE)
    return [
        (
            key,
            # Oldest first, so that the newest becomes the head; more than is kept need not be sent.
            pack("LPUSH", key, *entries[-stream_format.REMEMBERED :])
            + pack("LTRIM", key, "0", str(stream_format.REMEMBERED - 1))
            + pack("EXPIRE", key, str(stream_format.KEEP_SECONDS))
            # `repr`, which loses no digit of a double.
            + pack("ZINCRBY", names.functions, repr(worth * len(entries)), function),
        )
        for function, entries in by_function.items()
        for key in (names.history + function,)
    ]
