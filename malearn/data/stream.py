"""Reader of the Redis stream of executions, to which schedulers append."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from malearn.data import gc_pause, redis_client
from malearn.data.batch import MOST_BYTES, Batch
from malearn.kernel.errors import InputError
from malearn.kernel.stream_entries import STREAM
from malearn.kernel.tool_types import ToolTypes

__all__ = ["Stream"]


_FIELD = b"e"
#: Entries that one XRANGE may bring.
_ENTRIES = 5_000
#: Bits of a stream position that count entries of one millisecond.
_SEQUENCE_BITS = 21


class Stream:
    """Entries of `malearn:executions`, oldest first, each with its position.

    A position is one integer in the order of the stream, as Delta keeps it in
    a commit. Only `trim` takes anything away. Every method raises `Unreachable`.
    """

    def __init__(self, url: str, tool_types: ToolTypes, key: str = STREAM) -> None:
        self.url, self.key, self._tool_types = url, key, tool_types
        with redis_client.answering(url):
            self._client = redis_client.connect(url)
            server = cast("Mapping[str, object]", self._client.info("server"))
        #: What tells this stream from any other: within one life of a Redis, ids only grow.
        self.name = f"{key}@{server['run_id']}"

    def last(self) -> int:
        """The position of the newest entry ever added; 0 where there was none."""
        with redis_client.answering(self.url):
            if not self._client.exists(self.key):
                return 0
            info = cast("Mapping[str, bytes]", self._client.xinfo_stream(self.key))
            return _position(info["last-generated-id"])

    def read(self, after: int, count: int = 5_000) -> tuple[int, Batch]:
        """At most `count` entries after position `after`, and the position of the last.

        Where there are no more the batch is empty and the position `after`.
        """
        batch, most = Batch(self._tool_types), _ENTRIES // 10
        while batch.records < count and batch.weight < MOST_BYTES:
            asked = min(most, count - batch.records)
            with redis_client.answering(self.url):
                start = f"({_id(after)}" if after else "-"
                answer = self._client.xrange(self.key, min=start, count=asked)
            entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", answer)
            if not entries:
                break
            with gc_pause.gc_paused():
                for entry_id, values in entries:
                    place = f"entry {entry_id.decode()} of {self.key}"
                    batch.add_entry(values.get(_FIELD, b""), place)
            after = _position(entries[-1][0])
            mean = sum(len(v) for _, values in entries for v in values.values()) / len(entries)
            most = redis_client.affordable(mean, _ENTRIES)
        return after, batch

    def trim(self, upto: int) -> int:
        """Remove the entries up to and including position `upto`; returns how many."""
        with redis_client.answering(self.url):
            return int(self._client.xtrim(self.key, minid=_id(upto + 1), approximate=False))

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _position(entry_id: bytes) -> int:
    milliseconds, _, sequence = entry_id.partition(b"-")
    if int(sequence) >> _SEQUENCE_BITS or int(milliseconds) >> (63 - _SEQUENCE_BITS):
        raise InputError(f"stream entry {entry_id.decode()}", "has an id out of the clock's range")
    return int(milliseconds) << _SEQUENCE_BITS | int(sequence)


def _id(position: int) -> str:
    return f"{position >> _SEQUENCE_BITS}-{position & (1 << _SEQUENCE_BITS) - 1}"
