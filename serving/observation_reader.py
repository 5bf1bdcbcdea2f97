"""What other schedulers, and earlier runs of this one, observed: read from Redis.

At the start the shared lists of the functions used most; after that what comes into the streams
from where they ended before the lists were read, the newest first. Of a flood the newest of each
function are taken in, as many as `_MOST_TAKEN` allows, so that following costs a scheduler the same
however many others there are.
"""

from __future__ import annotations

import time
from time import perf_counter

from malearn.kernel import names as names_
from malearn.kernel.names import Names
from malearn.kernel.reading import stream_entries
from malearn.kernel.reading.believable import Clock
from malearn.serving import resp, shared_history, stream_format
from malearn.serving.connection import RedisConnection
from malearn.serving.predecessor_cache import PredecessorCache
from malearn.serving.refusals import Refusals
from malearn.serving.resp import NodeUnreachable, ProtocolError, ResponseError
from malearn.serving.shared_history import SharedHistory
from malearn.serving.stats import CallCounters

__all__ = ["ObservationReader"]

_PAGE = 256  # lists, or entries, per round trip: a few ms of Redis
_MOST_RESTORED = 32_768  # observations that are replayed at a start, of all functions together
#: Entries of all streams that are read, and observations that are taken in, between two looks.
_MOST_READ, _MOST_TAKEN = 8_192, 640
_YIELD_AFTER = 8

#: An entry that was read, with its function.
_Entry = tuple[str, stream_entries.PlainEntry, bytes]


class ObservationReader:
    """Reads observations into `history`; what is rejected is counted in `counters`.

    `timeout` bounds each exchange, in seconds. Raises what `Connection.call` raises, and
    `ResponseError`.
    """

    def __init__(
        self,
        history: SharedHistory,
        predecessors: PredecessorCache,
        counters: CallCounters,
        refusals: Refusals,
        clock: Clock,
        timeout: float,
        names: Names,
    ) -> None:
        self._history, self._declared = history, predecessors
        self._counters, self._refusals = counters, refusals
        self._clock, self._timeout = clock, timeout
        self._names, self._streams = names, names.streams(names_.stream_count())
        self._last_ids: dict[str, bytes] = {}
        #: What the lists held, until the streams were followed once: some of it is in both.
        self._listed_before: frozenset[tuple[str, float, float]] = frozenset()
        self.skipped = 0

    @property
    def restored(self) -> bool:
        """Whether the lists were read."""
        return bool(self._last_ids)

    def restore(self, connection: RedisConnection) -> None:
        """Remember where the streams end now, and read the lists of the functions used most."""
        # In this order: what is sent in between is in the lists, in the streams, or in both. Had
        # the lists been read first, it would have been in neither.
        last_ids = {key: self._newest(connection, key) for key in self._streams}
        functions = self._functions(connection)
        # Fewer of each where there are many functions: a start replays so many in all.
        each = max(1, min(stream_format.REMEMBERED, _MOST_RESTORED // max(len(functions), 1)))
        entries: list[tuple[str, bytes]] = []
        for start in range(0, len(functions), _PAGE):
            page = functions[start : start + _PAGE]
            packed = b"".join(
                resp.pack("LRANGE", self._names.history + function, "0", str(each - 1))
                for function in page
            )
            replies = connection.call(packed, len(page), perf_counter() + self._timeout)
            for function, reply in zip(page, replies, strict=True):
                if isinstance(reply, list):
                    entries += [(function, raw) for raw in reply if isinstance(raw, bytes)]
                # One key of another type costs its own function only.
                elif isinstance(reply, ResponseError):
                    self._refusals.refused("read", self._names.history + function, reply)
        read = [self._observation(raw, function) for function, raw in entries]
        found = [one[1] for one in read if one is not None]
        self._history.restore(found)
        self._listed_before = frozenset(map(shared_history.identity, found))
        # Last, as it says that the restoring is done: after a failure all of it is tried again.
        self._last_ids = last_ids

    def follow(self, connection: RedisConnection) -> None:
        """Bring in what came since, of a flood the newest of each function."""
        entries: list[_Entry] = []
        last_ids = dict[str, bytes]()
        for key in self._streams:
            try:
                found, last_ids[key] = self._since(
                    connection, key, _MOST_READ // len(self._streams)
                )
            except NodeUnreachable:  # what its node holds is read when that is back
                last_ids[key] = self._last_ids[key]
                continue
            entries += found
        # Only after all streams: what fails on the way is read again, and known tasks passed over.
        self._last_ids, self._listed_before = last_ids, frozenset()
        for number, raw in enumerate(self._chosen(entries)):
            if (observed := self._observation(raw)) is not None:
                self._history.observe(*observed)
            if number % _YIELD_AFTER == 0:
                time.sleep(0)  # others first

    def _since(
        self, connection: RedisConnection, key: str, most: int
    ) -> tuple[list[_Entry], bytes]:
        """The entries of a stream that came since the last look, newest first, at most `most`, and
        the id of the newest."""
        after, upto = self._last_ids[key], b"+"
        newest, found, read = b"", list[_Entry](), 0
        while read < most:
            reply = self._call(
                connection,
                # Backwards, so that of a flood the newest are read and the rest is never fetched.
                resp.pack("XREVRANGE", key, upto, b"(" + after, "COUNT", str(_PAGE)),
            )
            if not reply:
                break
            newest = newest or bytes(reply[0][0])
            read += len(reply)
            for _, fields in reply:
                if fields and fields[0] == b"e":
                    found += self._plain(fields[1])
            time.sleep(0)
            if len(reply) < _PAGE:
                break
            upto = b"(" + bytes(reply[-1][0])
        return found, newest or after

    def _plain(self, raw: bytes) -> list[_Entry]:
        """The entry, or none: what cannot be read, and what this scheduler reported itself."""
        entry = stream_entries.decode_plain(raw)
        # Entries that only ingestion can read, such as rejected ones, end here as well.
        if entry is None or not entry.function:
            self._counters.ignore("invalid_json")
            return []
        # This scheduler's own entries come back, too; with the end, as a retry is new.
        if self._history.knows_task(entry.task_id, entry.end):
            return []
        if (entry.function, entry.start, entry.end) in self._listed_before:
            return []
        return [(entry.function, entry, raw)]

    def _chosen(self, entries: list[_Entry]) -> list[bytes]:
        """At most `_MOST_TAKEN` of them, of each function the newest, in order of their ends."""
        entries.sort(key=lambda one: one[1].end, reverse=True)
        if len(entries) > _MOST_TAKEN:
            by_function: dict[str, list[_Entry]] = {}
            for one in entries:
                by_function.setdefault(one[0], []).append(one)
            # The same for all, so that one busy function cannot crowd out the others.
            share = max(1, _MOST_TAKEN // len(by_function))
            chosen = [one for own in by_function.values() for one in own[:share]][:_MOST_TAKEN]
            self.skipped += len(entries) - len(chosen)
            entries = sorted(chosen, key=lambda one: one[1].end, reverse=True)
        return [raw for _, _, raw in reversed(entries)]

    def _observation(self, raw: bytes, function: str = "") -> stream_format.Found | None:
        tool_types, schemas = self._declared.tool_types, self._declared.schemas
        found = stream_format.observation(raw, tool_types, schemas, self._clock(), function)
        if isinstance(found, str):
            self._counters.ignore(found)
            return None
        return found

    def _functions(self, connection: RedisConnection) -> list[str]:
        """As many functions as are remembered, those used most first."""
        limit = self._history.limit
        key = self._names.functions
        try:
            used = self._call(connection, resp.pack("ZREVRANGE", key, "0", str(limit - 1)))
        except ResponseError as error:  # which ones are used most is a help, no more
            self._refusals.refused("read", key, error)
            used = None
        functions = [bytes(name).decode("utf-8", "replace") for name in used or ()]
        if len(functions) < limit:  # lists of older versions, and of what was ingested, come last
            functions = list(dict.fromkeys([*functions, *self._listed(connection, limit)]))
        return functions[:limit]

    def _listed(self, connection: RedisConnection, limit: int) -> list[str]:
        """The functions that have a list. SCAN, so that the server is never held up."""
        prefix = self._names.history
        functions = list[str]()
        # Each node of a cluster knows its own keys only.
        for node in connection.nodes():
            cursor = b""
            while cursor != b"0" and len(functions) <= limit:
                reply = self._call(
                    node,
                    resp.pack("SCAN", cursor or b"0", "MATCH", f"{prefix}*", "COUNT", "1000"),
                )
                if not isinstance(reply, list) or len(reply) != 2:
                    raise ProtocolError("not the answer to a SCAN")
                cursor, keys = reply
                functions += [key.decode("utf-8", "replace")[len(prefix) :] for key in keys]
        return functions

    def _newest(self, connection: RedisConnection, key: str) -> bytes:
        """The id of the stream's last entry."""
        reply = self._call(connection, resp.pack("XREVRANGE", key, "+", "-", "COUNT", "1"))
        if isinstance(reply, list) and reply and isinstance(reply[0], list):
            return bytes(reply[0][0])
        return b"0-0"

    def _call(self, connection: RedisConnection, command: bytes) -> resp.Reply:
        """The reply to one command. Raises `ResponseError` where it is one."""
        (reply,) = connection.call(command, 1, perf_counter() + self._timeout)
        if isinstance(reply, ResponseError):
            raise reply
        return reply
