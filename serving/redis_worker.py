"""The background thread that talks to Redis, so that no caller has to wait for it.

It opens connections for callers, probes a server that went away, sends finished tasks, reads
the records that were only named, and brings in what other schedulers observed. Each step may
fail by itself; all of them go on.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, perf_counter

from malearn.kernel.errors import InputError
from malearn.kernel.names import Names
from malearn.serving.circuit_breaker import CircuitBreaker
from malearn.serving.cluster_connection import UNANSWERED, PartlyAnswered
from malearn.serving.collector import Collector
from malearn.serving.connection import RedisConnection
from malearn.serving.connection_pool import ConnectionPool
from malearn.serving.connector import Connector
from malearn.serving.observation_reader import ObservationReader
from malearn.serving.refusals import RESOLVE_AGAIN, Refusals
from malearn.serving.resp import ResponseError
from malearn.serving.workflow_publisher import WorkflowPublisher

__all__ = ["RedisWorker"]

_log = logging.getLogger("malearn.serving")

_TICK = 0.05  # seconds between two rounds
_TIMEOUT = 2.0  # seconds for one exchange
_FOLLOW_INTERVAL = 2.0  # seconds between two looks at the stream
# Seconds before what was refused is sent again: a full memory or a missing permission outlasts a
# round.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 5.0
_MAX_TO_READ = 20_000  # task ids whose records are yet to be read, some 2 MB
_PAGE = 256  # records per round trip: up to 25 MB where they hold long texts

#: Takes `(task_id, function, raw)` of a record that was read for it.
OnRecord = Callable[[str, str | None, bytes], None]


class RedisWorker:
    """Owns the connections, the circuit breaker and the collector's sending.

    `on_record` takes records that were to be read; `drain` is called every round. Without
    `connect` there is no server, and nothing to exchange with it.
    """

    def __init__(
        self,
        connect: Connector | None,
        collector: Collector,
        observations: ObservationReader,
        refusals: Refusals,
        workflows: WorkflowPublisher,
        *,
        on_record: OnRecord,
        drain: Callable[[], None],
        pool_size: int = 4,
        names: Names | None = None,
    ) -> None:
        self._names = Names.find() if names is None else names
        self.breaker = CircuitBreaker(closed=connect is not None)
        self.pool = ConnectionPool(connect or _no_server, pool_size)
        self.restored = threading.Event()
        self.refusals = refusals
        self.expired = 0
        self._connect, self._collector, self._observations = connect, collector, observations
        self._on_record, self._drain = on_record, drain
        self._workflows = workflows
        self._to_read: deque[tuple[str, str | None]] = deque()
        self._follow_at = self._send_at = 0.0
        self._pause = _FIRST_PAUSE
        self._connection: RedisConnection | None = None
        self._away = False
        self._wake = threading.Event()
        self._close_by: float | None = None
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None

    def __len__(self) -> int:
        return len(self._to_read)

    @property
    def skipped(self) -> int:
        """How many executions of other schedulers were beyond what is followed."""
        return self._observations.skipped

    @property
    def workflow_dropped(self) -> int:
        """What of workflows found no room while Redis took none, or was unsent at the end; 0 where
        there is no Redis."""
        return self._workflows.dropped if self._connect is not None else 0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="malearn-redis", daemon=True)
        self._thread.start()

    def read_later(self, task_id: str, function: str | None) -> None:
        """Read `result:<task_id>` soon, and hand it to `on_record`."""
        if len(self._to_read) >= _MAX_TO_READ:
            self.expired += 1
            return
        self._to_read.append((task_id, function))

    def replace(self, connection: RedisConnection) -> None:
        """A caller's call failed on `connection`: another is opened at once."""
        self.pool.discard(connection)
        self._wake.set()

    def close(self, timeout: float) -> None:
        """Send what is left, waiting `timeout` seconds at most, and close every connection.

        What could not be sent by then is counted as dropped.
        """
        self._close_by = perf_counter() + timeout
        self._wake.set()
        if self._thread is not None:
            # A thread that hangs is left behind: it is a daemon and cannot hold up the end.
            self._thread.join(timeout)
        self.expired += len(self._to_read)
        self._to_read.clear()
        self._collector.close()
        self._workflows.close()
        self.pool.clear()

    def abandon(self) -> None:
        """After a fork: nothing of the parent's is touched; `start` begins afresh."""
        self.pool.abandon()
        if self._connection is not None:
            self._connection.abandon()
        self._connection = self._thread = None
        self._to_read.clear()
        self._collector.clear()
        self._workflows.abandon()
        self._wake = threading.Event()
        restored, self.restored = self.restored.is_set(), threading.Event()
        # Whoever waits for it in the child must not wait for what the parent has done.
        if restored:
            self.restored.set()
        self.breaker = CircuitBreaker(closed=self._connect is not None)

    def _run(self) -> None:
        while self._close_by is None:
            self._round()
            self._wake.wait(_TICK)
            self._wake.clear()
        self._drain()
        self._collector.encode()
        if self._to_read or len(self._collector) or self._workflows.pending:
            self._send_at = 0.0
            # An outage that lasts is tried once more; what was just reported is worth it.
            connection = self._connected(probe_now=True)
            if connection is not None:
                self._attempt(self._read_records, connection)
                # What was just read is sent with the rest.
                self._drain()
                self._attempt(self._send_all, connection)
                self._attempt(self._publish_rest, connection)
        self._disconnect()

    def _round(self) -> None:
        self._drain()
        self._collector.encode()
        connection = self._connected()
        if connection is None:
            self.restored.set()  # nothing to be had for now: nobody need wait for it
            return
        observations = self._observations
        # Before anything is sent: a scheduler's first answers need it.
        if not observations.restored and monotonic() >= self._follow_at:
            self._follow_at = monotonic() + _FOLLOW_INTERVAL
            self._attempt(observations.restore, connection)
            # With it how intervals of whole workflows did.
            self._attempt(self._publish, connection)
            # After a failure, too: waiting longer would help nobody.
            self.restored.set()
        self._attempt(self._read_records, connection)
        self._send(connection)
        self._attempt(self._publish, connection)
        if observations.restored and monotonic() >= self._follow_at:
            self._follow_at = monotonic() + _FOLLOW_INTERVAL
            self._attempt(observations.follow, connection)

    def _send(self, connection: RedisConnection) -> None:
        if monotonic() < self._send_at:
            return
        if self._attempt(self._send_all, connection):
            self._pause = _FIRST_PAUSE
        else:
            self._send_at = monotonic() + self._pause
            self._pause = min(2.0 * self._pause, _LONGEST_PAUSE)

    def _connected(self, *, probe_now: bool = False) -> RedisConnection | None:
        """A connection of our own, after making sure that callers have theirs."""
        breaker = self.breaker
        if self._connect is None:
            return None
        # So that callers do not spend their budget on connections that are closed already.
        self.pool.prune()
        if breaker.closed and self._connection is not None and not self.pool.missing:
            self._connection.maintain()
            return self._connection
        if not breaker.closed and not (breaker.due or probe_now):
            return None
        try:
            if not breaker.closed:
                self.pool.clear()  # whatever made it fail, old connections are suspect
            try:
                self._open()
            except ConnectionError:
                # What closes connections may have met a new one before it was answered. That is no
                # outage yet: one that lasts fails twice.
                self._disconnect()
                self._open()
        except Exception as error:  # noqa: BLE001 - a URL that is none must not end the thread
            self._unreachable(error)
            return None
        breaker.close()
        self.refusals.accepted("connect")
        self._away = False
        return self._connection

    def _open(self) -> None:
        """Probe our own connection, and open what callers miss of theirs."""
        self._probe()
        self.pool.fill()

    def _probe(self) -> None:
        """Ask the server something over our own connection, which is opened where need be."""
        if self._connection is not None and self._connection.closed_by_server():
            self._disconnect()
        if self._connection is None:
            self._connection = self._connect() if self._connect else _no_server()
        try:
            self._connection.probe(self._names.in_several_slots, self._deadline())
        except ResponseError as error:
            if self._connect is None or not self._connect.found_cluster(error):
                raise
            self._disconnect()
            self.pool.clear()
            self._connection = self._connect()

    def _attempt(
        self, step: Callable[[RedisConnection], None], connection: RedisConnection
    ) -> bool:
        """Whether `step` went well. If it fails because of its connection, that is closed."""
        # An earlier step of this round has lost it; the next round opens another.
        if connection is not self._connection:
            return False
        try:
            step(connection)
        except ResponseError as error:
            _log.debug("Redis refuses: %s", error)
            if error.code in RESOLVE_AGAIN:
                self._disconnect()
                self.pool.clear()
            return False
        except ConnectionError:
            # Idle connections are closed by some servers and balancers. It is an outage only
            # if no other can be opened, which the next round finds out.
            self._disconnect()
            return False
        except Exception as error:  # noqa: BLE001 - whatever a server answers, the thread lives on
            self._unreachable(error)
            return False
        return True

    def _unreachable(self, error: Exception) -> None:
        """Open the breaker. An outage is logged once, not at every probe."""
        if isinstance(error, ResponseError):
            self.refusals.refused("connect", "", error)
        elif isinstance(error, InputError):  # which says itself what is wrong, and with what
            if not self._away:
                _log.warning("%s", error)
        elif not self._away:
            _log.warning(
                "Redis at %s does not answer (%s: %s)",
                self.refusals.server,
                type(error).__name__,
                error,
            )
        self._away = True
        self.breaker.fail()
        self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _deadline(self) -> float:
        """When an exchange that begins now must end, on `perf_counter`'s clock."""
        deadline = perf_counter() + _TIMEOUT
        # While closing, an exchange may not outlast the time that `close` was given.
        return deadline if self._close_by is None else min(deadline, self._close_by)

    def _read_records(self, connection: RedisConnection) -> None:
        to_read = self._to_read
        later: list[tuple[str, str | None]] = []
        while to_read:
            page = [to_read[i] for i in range(min(_PAGE, len(to_read)))]
            keys = [f"result:{task_id}" for task_id, _ in page]
            values: Sequence[object]
            try:
                values = connection.get_many(keys, self._deadline())
            except PartlyAnswered as error:
                values = error.values
            for (task_id, function), raw in zip(page, values, strict=True):
                # Callers only append, so it is the one that was looked at.
                to_read.popleft()
                if isinstance(raw, bytes):
                    self._on_record(task_id, function, raw)
                elif raw is UNANSWERED:
                    later.append((task_id, function))
                else:
                    self.expired += 1
        to_read.extend(later)

    def _publish(self, connection: RedisConnection) -> None:
        self._workflows.exchange(connection, self._deadline())

    def _publish_rest(self, connection: RedisConnection) -> None:
        self._workflows.flush(connection, self._deadline())

    def _send_all(self, connection: RedisConnection) -> None:
        while self._collector.send(connection, self._deadline()):
            pass


def _no_server() -> RedisConnection:
    raise ConnectionRefusedError("there is no Redis")
