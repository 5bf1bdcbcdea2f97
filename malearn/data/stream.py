"""Reader of the Redis stream of executions, to which schedulers append."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from malearn.data import gc_pause, redis_client
from malearn.data.batch import MOST_BYTES, Batch
from malearn.kernel.errors import InputError
from malearn.kernel.home import Home
from malearn.kernel.names import Names
from malearn.kernel.reading import stream_entries
from malearn.kernel.tool_types import ToolTypes

__all__ = ["UNCOUNTED", "Stream", "StreamState", "existing", "state_of", "warnings"]


_FIELD = b"e"
#: Entries that one XRANGE may bring.
_ENTRIES = 5_000
#: Bits of a stream position that count entries of one millisecond.
#: Of a signed 64-bit number 42 bits are left for milliseconds: they last until 2109.
_SEQUENCE_BITS = 21
#: Seconds for which a home counts as a reader.
#: Long enough for a home whose ingestion is run by hand now and then.
_READER_SECONDS = 30 * 86_400.0
#: The warning about a Redis before version 7.
UNCOUNTED = (
    "This Redis does not count the entries of its stream (versions before 7 do not): whether any "
    "left it before they were read cannot be known"
)
#: The share of its length from which a stream is nearly full.
_NEARLY_FULL = 0.8


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream at one moment: `length` entries of at most about `limit`.

    `last` is the position of the newest entry ever added and `added` how many ever were; None
    where the server does not count them (Redis before 7). `deleted` is the position of the
    newest entry that XDEL removed.
    """

    length: int
    limit: int
    last: int
    added: int | None
    deleted: int = 0

    @property
    def is_nearly_full(self) -> bool:
        """Whether the next entries may push out some that nobody has read yet."""
        return self.length >= _NEARLY_FULL * self.limit

    @property
    def warning(self) -> str:
        """What to do about a stream that is nearly full; empty for any other."""
        if not self.is_nearly_full:
            return ""
        return (
            f"The stream holds {self.length:,} of about {self.limit:,} entries; what does not fit "
            f"is lost: ingest more often, or set {stream_entries.LENGTH_SETTING} higher for "
            "schedulers."
        )


class Stream:
    """Entries of `malearn:executions`, oldest first, each with its position.

    A position is one integer in the order of the stream, as Delta keeps it in a commit. Only
    `trim` takes anything away. Every method raises `Unreachable`, and `InputError` where Redis
    refuses a command. `created`, in milliseconds since the epoch, is when somebody first read
    it; it survives restarts of Redis, not FLUSHALL.
    """

    def __init__(self, url: str, tool_types: ToolTypes, key: str = "") -> None:
        key = key or Names.find().stream
        self.url, self.key, self._tool_types = url, key, tool_types
        with redis_client.answering(url):
            self._client = redis_client.connect(url)
            # Kept in Redis, so that the mark is lost exactly when the stream is: the next one has
            # another value, and positions of the old stream do not apply.
            self._client.set(self._marker, _now(), nx=True)
            self.created = int(cast("bytes", self._client.get(self._marker)))

    @property
    def name(self) -> str:
        """What identifies this stream among all others."""
        return f"{self.key}@{self.created}"

    @property
    def _marker(self) -> str:
        return f"{self.key}:created"

    def restart(self) -> None:
        """Give the stream another name, because what was read under this one is no longer so."""
        # A clock that was set back must not give a name that was used before.
        self.created = max(_now(), self.created + 1)
        with redis_client.answering(self.url):
            self._client.set(self._marker, self.created)

    def state(self) -> StreamState:
        """The stream as it is now."""
        with redis_client.answering(self.url):
            return _state(self._client, self.key)

    def other_readers(self, home: Home) -> list[str]:
        """Homes that read this stream lately, `home` left out, which is noted as a reader."""
        own = f"{home.root.resolve()} on {socket.gethostname()}"
        readers = f"{self.key}:readers"
        now = time.time()
        with redis_client.answering(self.url):
            # Only for the sentence about a gap: homes that share a stream share its entries.
            self._client.hset(readers, own, int(now))
            found = cast("dict[bytes, bytes]", self._client.hgetall(readers))
        lately = {name.decode("utf-8", "replace"): float(at) for name, at in found.items()}
        return sorted(n for n, at in lately.items() if n != own and at > now - _READER_SECONDS)

    def read(self, after: int, count: int = 5_000) -> tuple[int, Batch]:
        """At most `count` entries after position `after`, and the position of the last.

        Where there are no more the batch is empty and the position `after`.
        """
        # The first answer is small, since the size of entries is not known yet.
        batch, most = Batch(self._tool_types), _ENTRIES // 10
        while batch.records < count and batch.weight < MOST_BYTES:
            asked = min(most, count - batch.records)
            with redis_client.answering(self.url):
                # "(" excludes that position itself.
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
            # Exact: the count of lost entries relies on the stream holding only what was not read.
            return int(self._client.xtrim(self.key, minid=_id(upto + 1), approximate=False))

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def existing(url: str) -> list[str]:
    """The keys of this installation's streams: the first, and what further ones schedulers use.

    Whatever `$MALEARN_STREAMS` is here, none is overlooked. Raises `Unreachable`.
    """
    with redis_client.connected(url) as client:
        return _existing(client)


def state_of(url: str, key: str = "") -> StreamState:
    """The stream `key`, by default the first of this installation, of the Redis at `url`.

    Raises `Unreachable` and `InputError`.
    """
    with redis_client.connected(url) as client:
        return _state(client, key or Names.find().stream)


def warnings(url: str, timeout: float = 60.0) -> dict[str, str]:
    """What is wrong with a Redis that answers, in sentences by kind; empty where all is well.

    `writes`: it refuses them; `full`: a stream nearly is; `uncounted`: lost entries cannot be
    counted. Raises `Unreachable`, and `InputError` where it refuses the query.
    """
    found = {}
    with redis_client.connected(url, timeout) as client:
        keys = _existing(client)
        states = [_state(client, key) for key in keys]
        try:
            with redis_client.answering(url):
                for key in keys:
                    # In the same slot of a cluster: each of its nodes may refuse writes.
                    redis_client.check_writable(client, f"{Names.find().prefix}:writable:{{{key}}}")
        except InputError as error:
            found["writes"] = f"{error} Until then no execution is recorded or ingested."
    if full := [state.warning for state in states if state.is_nearly_full]:
        found["full"] = full[0]
    if any(state.added is None for state in states):
        found["uncounted"] = f"{UNCOUNTED}."
    return found


def _existing(client: Any) -> list[str]:
    first, *further = Names.find().streams()
    with client.pipeline(transaction=False) as pipe:
        for key in further:
            pipe.exists(key)
        found = pipe.execute()
    # The first is named even where nothing was sent yet, so that its state can be shown.
    return [first, *(key for key, there in zip(further, found, strict=True) if there)]


def _now() -> int:
    return int(time.time() * 1000.0)


def _state(client: Any, key: str) -> StreamState:
    limit = stream_entries.length_limit()
    # XINFO raises for a key that is not there; an absent stream is an empty one.
    if not client.exists(key):
        return StreamState(0, limit, 0, 0)
    info: Mapping[str, Any] = client.xinfo_stream(key)
    return StreamState(
        int(info["length"]),
        limit,
        _position(info["last-generated-id"]),
        info.get("entries-added"),
        _position(info.get("max-deleted-entry-id", b"0-0")),
    )


def _position(entry_id: bytes) -> int:
    milliseconds, _, sequence = entry_id.partition(b"-")
    # Only entries with ids that somebody chose, not Redis's clock.
    if int(sequence) >> _SEQUENCE_BITS or int(milliseconds) >> (63 - _SEQUENCE_BITS):
        raise InputError(f"stream entry {entry_id.decode()}", "has an id out of the clock's range")
    return int(milliseconds) << _SEQUENCE_BITS | int(sequence)


def _id(position: int) -> str:
    return f"{position >> _SEQUENCE_BITS}-{position & (1 << _SEQUENCE_BITS) - 1}"
