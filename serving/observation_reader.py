"""What other schedulers, and earlier runs of this one, observed: read from Redis.

At the start the shared list of each function; after that what comes into the stream.
"""

from __future__ import annotations

import time
from time import perf_counter

from malearn.kernel.believable import Clock
from malearn.serving import resp, stream_format
from malearn.serving.connection import Connection
from malearn.serving.predecessor_cache import PredecessorCache
from malearn.serving.refusals import Refusals
from malearn.serving.resp import ProtocolError, ResponseError
from malearn.serving.shared_history import SharedHistory
from malearn.serving.stats import CallCounters

__all__ = ["ObservationReader"]

_MAX_FUNCTIONS = 5_000  # whose lists are read at a start; SCAN ends there
_PAGE = 256  # entries per round trip: a few ms of Redis


class ObservationReader:
    """Reads observations into `history`; what is not believed is counted in `counters`.

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
    ) -> None:
        self._history, self._declared = history, predecessors
        self._counters, self._refusals = counters, refusals
        self._clock, self._timeout = clock, timeout
        self._last_id = b""

    @property
    def restored(self) -> bool:
        """Whether the lists were read."""
        return bool(self._last_id)

    def restore(self, connection: Connection) -> None:
        """Read every function's list, and remember where the stream ends now."""
        functions = self._functions(connection)
        entries: list[tuple[str, bytes]] = []
        for start in range(0, len(functions), _PAGE):
            page = functions[start : start + _PAGE]
            packed = b"".join(
                resp.pack("LRANGE", stream_format.HISTORY + function, "0", "-1")
                for function in page
            )
            replies = connection.call(packed, len(page), perf_counter() + self._timeout)
            for function, reply in zip(page, replies, strict=True):
                if isinstance(reply, list):
                    entries += [(function, raw) for raw in reply if isinstance(raw, bytes)]
                elif isinstance(reply, ResponseError):
                    self._refusals.refused("read", stream_format.HISTORY + function, reply)
        self._last_id = self._newest(connection)
        found = [self._observation(raw, function) for function, raw in entries]
        self._history.restore([one[1] for one in found if one is not None])

    def follow(self, connection: Connection) -> None:
        """Bring in what came since; of a flood only its first page, for more would tell little."""
        command = resp.pack(
            "XREAD", "COUNT", str(_PAGE), "STREAMS", stream_format.STREAM, self._last_id
        )
        reply = self._call(connection, command)
        if not reply:
            return
        entries = reply[0][1]
        raws = [fields[1] for _, fields in entries if fields and fields[0] == b"e"]
        self._last_id = bytes(entries[-1][0])
        if len(entries) == _PAGE:
            self._last_id = self._newest(connection)
        for raw in raws:
            if (found := self._observation(raw)) is not None:
                self._history.observe(*found)
                time.sleep(0)  # others first

    def _observation(self, raw: bytes, function: str = "") -> stream_format.Found | None:
        tool_types, schemas = self._declared.tool_types, self._declared.schemas
        found = stream_format.observation(raw, tool_types, schemas, self._clock(), function)
        if isinstance(found, str):
            self._counters.ignore(found)
            return None
        return found

    def _functions(self, connection: Connection) -> list[str]:
        """The functions that have a list. SCAN, so that the server is never held up."""
        cursor, functions = b"0", []
        while True:
            reply = self._call(
                connection,
                resp.pack("SCAN", cursor, "MATCH", f"{stream_format.HISTORY}*", "COUNT", "1000"),
            )
            if not isinstance(reply, list) or len(reply) != 2:
                raise ProtocolError("not the answer to a SCAN")
            cursor, keys = reply
            prefix = len(stream_format.HISTORY)
            functions += [key.decode("utf-8", "replace")[prefix:] for key in keys]
            if cursor == b"0" or len(functions) > _MAX_FUNCTIONS:
                return functions

    def _newest(self, connection: Connection) -> bytes:
        """The id of the stream's last entry."""
        reply = self._call(
            connection, resp.pack("XREVRANGE", stream_format.STREAM, "+", "-", "COUNT", "1")
        )
        if isinstance(reply, list) and reply and isinstance(reply[0], list):
            return bytes(reply[0][0])
        return b"0-0"

    def _call(self, connection: Connection, command: bytes) -> resp.Reply:
        """The reply to one command. Raises `ResponseError` where it is one."""
        (reply,) = connection.call(command, 1, perf_counter() + self._timeout)
        if isinstance(reply, ResponseError):
            raise reply
        return reply
