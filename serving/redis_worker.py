"""The one background thread that speaks to Redis on nobody's time.

It opens connections for callers, probes a server that went away, sends what was
collected, reads the records that were only named, and brings in what other
schedulers observed. Each step may fail by itself; all of them go on.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, perf_counter

from malearn.serving import stream_format
from malearn.serving.circuit_breaker import CircuitBreaker
from malearn.serving.collector import Collector
from malearn.serving.connection import (
    Connection,
    ConnectionPool,
    ProtocolError,
    ResponseError,
    pack,
)

__all__ = ["RedisWorker"]

_log = logging.getLogger("malearn.serving")

_TICK = 0.05
_TIMEOUT = 2.0
_MOST_ASKED = 20_000
_MOST_FUNCTIONS = 5_000
_PAGE = 256

#: Takes `(task_id, function, raw)` of a record that was read for it.
Delivery = Callable[[str, str | None, bytes], None]


class RedisWorker:
    """Owns the pool, the breaker and the collector's sending.

    `deliver` takes records that were asked for, `observe` entries of the
    stream, `restore` all memos found at the start, by function; `drain` is called
    every round. `pull` is the pause between looks at the stream, in seconds.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        collector: Collector,
        *,
        deliver: Delivery,
        observe: Callable[[list[bytes]], None],
        restore: Callable[[dict[str, list[bytes]]], None],
        drain: Callable[[], None],
        pool: int = 4,
        pull: float = 2.0,
    ) -> None:
        self.breaker = CircuitBreaker()
        self.pool = ConnectionPool(connect, pool)
        self.restored = threading.Event()
        self.lost = 0
        self._connect, self._collector = connect, collector
        self._deliver, self._observe, self._restore = deliver, observe, restore
        self._drain = drain
        self._asked: deque[tuple[str, str | None]] = deque()
        self._pull, self._pull_at, self._send_at = pull, 0.0, 0.0
        self._connection: Connection | None = None
        self._last_id = b""
        self._away = False
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None

    def __len__(self) -> int:
        return len(self._asked)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="malearn-redis", daemon=True)
        self._thread.start()

    def read_later(self, task_id: str, function: str | None) -> None:
        """Read `result:<task_id>` soon, and deliver it."""
        if len(self._asked) >= _MOST_ASKED:
            self.lost += 1
            return
        self._asked.append((task_id, function))

    def wake(self) -> None:
        """There is something to do now, such as a connection to replace."""
        self._wake.set()

    def close(self, timeout: float) -> None:
        """Send what is left, waiting `timeout` seconds at most, and close every connection."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)
        self.pool.clear()

    def abandon(self) -> None:
        """After a fork: nothing of the parent's is touched; `start` begins afresh."""
        self.pool.abandon()
        if self._connection is not None:
            self._connection.abandon()
        self._connection = self._thread = None
        self._asked.clear()
        self._collector.forget()
        self._wake = threading.Event()
        restored, self.restored = self.restored.is_set(), threading.Event()
        if restored:
            self.restored.set()
        self.breaker = CircuitBreaker()

    def _run(self) -> None:
        while not self._closing:
            self._round()
            self._wake.wait(_TICK)
            self._wake.clear()
        self._drain()
        connection = self._connection
        if self.breaker.closed and connection is not None:
            self._attempt(self._read_asked, connection)
            self._attempt(self._send_all, connection)
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._collector.give_up()

    def _round(self) -> None:
        self._drain()
        self._collector.pack()
        connection = self._connected()
        if connection is None:
            self.restored.set()  # nothing to be had for now: nobody need wait for it
            return
        if not self._last_id and monotonic() >= self._pull_at:
            self._pull_at = monotonic() + self._pull
            self._attempt(self._restore_all, connection)
            self.restored.set()
        self._attempt(self._read_asked, connection)
        if monotonic() >= self._send_at and not self._attempt(self._send_all, connection):
            self._send_at = monotonic() + 1.0
        if self._last_id and monotonic() >= self._pull_at:
            self._pull_at = monotonic() + self._pull
            self._attempt(self._pull_stream, connection)

    def _connected(self) -> Connection | None:
        """A connection of our own, after making sure that callers have theirs."""
        breaker = self.breaker
        if breaker.closed and self._connection is not None and not self.pool.missing:
            return self._connection
        if not breaker.closed and not breaker.due:
            return None
        try:
            if not breaker.closed:
                self.pool.clear()  # whatever made it fail, old connections are suspect
            if self._connection is None:
                self._connection = self._connect()
            (answer,) = self._connection.call(
                pack("EXISTS", stream_format.STREAM), 1, perf_counter() + _TIMEOUT
            )
            if isinstance(answer, ResponseError):
                raise answer
            self.pool.fill()
        except Exception as error:  # noqa: BLE001 - a URL that is none must not end the thread
            self._disconnect(error)
            return None
        breaker.close()
        self._away = False
        return self._connection

    def _attempt(self, step: Callable[[Connection], None], connection: Connection) -> bool:
        """Whether `step` went well. A step that fails costs its connection, if that is to blame."""
        if connection is not self._connection:
            return False
        try:
            step(connection)
        except ResponseError as error:
            _log.debug("Redis refuses: %s", error)
            return False
        except Exception as error:  # noqa: BLE001 - whatever a server answers, the thread lives on
            self._disconnect(error)
            return False
        return True

    def _disconnect(self, error: Exception) -> None:
        # An outage is said once, not at every probe.
        level = logging.DEBUG if self._away else logging.WARNING
        _log.log(level, "Redis does not answer (%s: %s)", type(error).__name__, error)
        self._away = True
        self.breaker.fail()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read_asked(self, connection: Connection) -> None:
        asked = self._asked
        while asked:
            batch = [asked[i] for i in range(min(_PAGE, len(asked)))]
            keys = [f"result:{task_id}" for task_id, _ in batch]
            values = connection.mget(keys, perf_counter() + _TIMEOUT)
            for (task_id, function), raw in zip(batch, values, strict=True):
                asked.popleft()
                if raw is None:
                    self.lost += 1
                else:
                    self._deliver(task_id, function, bytes(raw))

    def _send_all(self, connection: Connection) -> None:
        while self._collector.send(connection, _TIMEOUT):
            pass

    def _restore_all(self, connection: Connection) -> None:
        functions = self._functions(connection)
        memos: dict[str, list[bytes]] = {}
        for start in range(0, len(functions), _PAGE):
            page = functions[start : start + _PAGE]
            packed = b"".join(pack("LRANGE", stream_format.HISTORY + f, "0", "-1") for f in page)
            answers = connection.call(packed, len(page), perf_counter() + _TIMEOUT)
            for function, answer in zip(page, answers, strict=True):
                if isinstance(answer, list):
                    memos[function] = [raw for raw in answer if isinstance(raw, bytes)]
        self._last_id = self._newest(connection)
        self._restore(memos)

    def _functions(self, connection: Connection) -> list[str]:
        """Whose history Redis keeps. SCAN, so that the server is never held up."""
        cursor, functions = b"0", []
        while True:
            command = pack("SCAN", cursor, "MATCH", f"{stream_format.HISTORY}*", "COUNT", "1000")
            (answer,) = connection.call(command, 1, perf_counter() + _TIMEOUT)
            if not isinstance(answer, list) or len(answer) != 2:
                raise ProtocolError("not the answer to a SCAN")
            cursor, keys = answer
            functions += [
                key.decode("utf-8", "replace")[len(stream_format.HISTORY) :] for key in keys
            ]
            if cursor == b"0" or len(functions) > _MOST_FUNCTIONS:
                return functions

    def _newest(self, connection: Connection) -> bytes:
        command = pack("XREVRANGE", stream_format.STREAM, "+", "-", "COUNT", "1")
        (answer,) = connection.call(command, 1, perf_counter() + _TIMEOUT)
        if isinstance(answer, list) and answer and isinstance(answer[0], list):
            return bytes(answer[0][0])
        return b"0-0"

    def _pull_stream(self, connection: Connection) -> None:
        """Bring in what came since; of a flood only its first page, for more would tell little."""
        command = pack("XREAD", "COUNT", str(_PAGE), "STREAMS", stream_format.STREAM, self._last_id)
        (answer,) = connection.call(command, 1, perf_counter() + _TIMEOUT)
        if isinstance(answer, ResponseError):
            raise answer
        if not answer:
            return
        entries = answer[0][1]
        raws = [fields[1] for _, fields in entries if fields and fields[0] == b"e"]
        self._last_id = bytes(entries[-1][0])
        if len(entries) == _PAGE:
            self._last_id = self._newest(connection)
        self._observe(raws)
