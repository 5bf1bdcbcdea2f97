"""Reader of results as they are set, for schedulers that delete them when a workflow is released.

Redis publishes each `SET result:…` (keyspace notifications), and the value is read at once.
A notification reaches only current subscribers, once: a result that is set while nobody
subscribes, and deleted before the scan that follows each connection, is lost. The stream
loses nothing; this is for schedulers that do not write to it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from malearn.data import redis_client, redis_scan
from malearn.data.batch import Outcomes
from malearn.kernel.errors import InputError, MalearnError, Unreachable, without_password
from malearn.kernel.reading import joining, record_reader
from malearn.kernel.records import Record, Rejected
from malearn.kernel.tool_types import ToolTypes

__all__ = ["Watch"]

_SETTING = "notify-keyspace-events"
#: What the setting must contain: messages by key, of string commands.
_FLAGS = "K$"
#: Values that are read at once.
_MANY = 500
#: Records that are remembered, because they may hold features of later tasks.
#: Counted in records but dropped by the run, since part of a run cannot be joined.
_REMEMBERED = 100_000
#: Records that may wait; beyond that notifications stay in Redis's output buffer, for a while.
#: That buffer is limited too (client-output-buffer-limit): Redis then closes the connection, and
#: the scan after the next connect finds what is still there.
_WAITING = 200_000
#: Seconds between two checks whether to stop, and between two attempts to connect.
_CHECK, _AGAIN = 0.25, 1.0
_LOOK = 10.0  # seconds between two looks at which nodes a cluster has


class Watch:
    """What is set in the Redis at `url` as a task's result, until `stopped`::

        for batch in Watch(url, tool_types, stopped).batches():
            ingest.take(batch, "redis")

    A batch ends after `size` records, or once none came for `quiet` seconds. `notify` is called
    with a sentence, from another thread, when Redis goes away and comes back. With `enable`
    the notifications are switched on where they are not.
    """

    def __init__(
        self,
        url: str,
        tool_types: ToolTypes,
        stopped: Callable[[], bool],
        *,
        size: int = 5_000,
        quiet: float = 2.0,
        enable: bool = False,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.url, self.missed = url, 0
        self._tool_types, self._stopped = tool_types, stopped
        self._size, self._quiet, self._enable, self._notify = size, quiet, enable, notify
        self._caught: deque[Record | Rejected] = deque()
        self._connected, self._over = threading.Event(), threading.Event()
        self._failure: MalearnError | None = None
        self._runs: OrderedDict[str, dict[str, Record]] = OrderedDict()
        self._remembered = 0

    def batches(self) -> Iterator[Outcomes]:
        """What is there already, then what comes; at the end what was caught until then.

        `missed` counts what was gone before it could be read. Values are read on another
        thread meanwhile, however long a batch takes. A Redis that goes away is waited for.
        Raises `Unreachable` where there is none at first, `InputError` where
        notifications are disabled.
        """
        # A thread of its own: validation of a batch takes seconds, in which results are deleted.
        catcher = threading.Thread(target=self._catch, name="malearn-watch", daemon=True)
        catcher.start()
        waiting: list[Record | Rejected] = []
        last = time.monotonic()
        try:
            while not self._stopped() and self._failure is None:
                if self._connected.is_set():
                    self._connected.clear()
                    yield from self._there()
                if self._caught:
                    last = time.monotonic()
                    waiting += self._take()
                # `quiet` ends a batch while schedulers idle, or its tasks would wait for more.
                if waiting and (
                    len(waiting) >= self._size or time.monotonic() - last >= self._quiet
                ):
                    yield self._outcomes(waiting)
                    waiting = []
                elif not self._caught:
                    time.sleep(_CHECK)
        finally:
            # Also where the caller closes this generator: the thread must not outlive it.
            self._over.set()
            catcher.join(30.0)
        if waiting := [*waiting, *self._take()]:
            yield self._outcomes(waiting)
        if self._failure is not None:
            raise self._failure

    def _there(self) -> Iterator[Outcomes]:
        """What was set while nobody subscribed; `Ingest` recognises what it has already."""
        try:
            with redis_client.connected(self.url) as client:
                found: Iterable[bytes] = client.scan_iter(match=b"result:*", count=5_000)
                # Whole runs, because features of a task stand in the records of its predecessors.
                keys = list[bytes]()
                for _, run in groupby(redis_scan.in_runs(found), key=redis_scan.run_of):
                    keys += run
                    if len(keys) >= self._size:
                        yield self._outcomes(_values(client, keys))
                        keys.clear()
                if keys:
                    yield self._outcomes(_values(client, keys))
        except Unreachable:
            pass  # the other thread notices too, and asks for another scan

    def _take(self) -> list[Record | Rejected]:
        return [self._caught.popleft() for _ in range(len(self._caught))]

    def _outcomes(self, fresh: Iterable[Record | Rejected]) -> Outcomes:
        """Each of `fresh`, joined with its features in the remembered records of its run."""
        batch: Outcomes = []
        # Only new tasks are returned, but all that is remembered of their runs is joined.
        wanted: dict[str, str] = {}  # task id: run
        for one in fresh:
            if isinstance(one, Rejected):
                batch.append(one)
            elif self._is_news(one):
                wanted[one.task_id] = one.run
        runs = dict.fromkeys(wanted.values())
        known = [record for run in runs for record in self._runs.get(run, {}).values()]
        joined, refused = joining.join(known, self._tool_types)
        batch += [e for e in joined if e.task_id in wanted]
        batch += [r for r in refused if r.task_id in wanted]
        # Those that are needed now were moved to the end.
        while self._remembered > _REMEMBERED and len(self._runs) > len(runs):
            self._remembered -= len(self._runs.popitem(last=False)[1])
        return batch

    def _is_news(self, record: Record) -> bool:
        """Remember `record`; False where it is known: a scan finds notified results, too."""
        run = self._runs.setdefault(record.run, {})
        self._runs.move_to_end(record.run)
        # Equal, not merely the same id: a retry that ended later is new.
        if run.get(record.task_id) == record:
            return False
        self._remembered += record.task_id not in run
        run[record.task_id] = record
        return True

    # On the other thread.

    def _catch(self) -> None:
        """Listen and read until it is over, or fails for good."""
        met = False
        while not self._over.is_set():
            try:
                with redis_client.connected(self.url) as client, _listeners(client) as listeners:
                    self._prepare(client)
                    nodes = redis_client.primaries(client).keys()
                    for listener in listeners:
                        listener.psubscribe(f"__keyspace@{_database(client)}__:result:*")
                        listener.get_message(timeout=5.0)  # from here on nothing escapes us
                    if met:
                        self._notify("Redis is back; catching up")
                    met = True
                    # Subscribed first, scanned second: what is set in between is not missed.
                    self._connected.set()
                    looked = time.monotonic()
                    while not self._over.is_set():
                        self._read(client, _notified(listeners))
                        if time.monotonic() - looked > _LOOK:
                            looked = time.monotonic()
                            if self._has_other_nodes(nodes):
                                break  # to subscribe at all of them
                    self._read(client, _notified(listeners))  # what was notified until the end
            except Unreachable as error:
                # The first connect failed: that is the caller's address, not an outage to wait for.
                if not met:
                    self._failure = error
                    return
                self._notify(f"Waiting for Redis: {error}")
                self._over.wait(_AGAIN)
            except MalearnError as error:
                self._failure = error
                return

    def _has_other_nodes(self, nodes: Collection[str]) -> bool:
        """Whether others than `nodes` hold keys by now."""
        if "" in nodes:
            return False  # one server stays one
        with redis_client.connected(self.url) as client:
            return redis_client.primaries(client).keys() != set(nodes)

    def _prepare(self, client: redis.Redis) -> None:
        """Check that notifications are enabled. Raises `InputError` with what to do otherwise."""
        for one in redis_client.primaries(client).values():
            self._enable_on(one)

    def _enable_on(self, client: redis.Redis) -> None:
        try:
            answer: Any = client.config_get(_SETTING)
        except redis.ResponseError:  # a managed Redis keeps its settings to itself
            self._notify("This Redis hides its settings; assuming that it sends notifications")
            return
        flags = str(answer.get(_SETTING, ""))
        if "K" in flags and ("$" in flags or "A" in flags):
            return
        wanted = flags + "".join(flag for flag in _FLAGS if flag not in flags)
        if not self._enable:
            raise InputError(
                f"Redis at {without_password(self.url)}",
                f"has keyspace notifications disabled; run CONFIG SET {_SETTING} {wanted}, "
                "or pass --set-notifications",
            )
        # Other clients may rely on flags that are set: they are kept, ours added.
        client.config_set(_SETTING, wanted)

    def _read(self, client: redis.Redis, keys: list[bytes]) -> None:
        if not keys:
            return
        values = redis_client.get_many(client, keys)
        for key, value in zip(keys, values, strict=True):
            if value is None:
                self.missed += 1
            else:
                self._caught.append(record_reader.read(redis_scan.task_id(key), value))
        # The consumer is behind: reading stops, so that memory stays bounded.
        while len(self._caught) > _WAITING and not self._over.is_set():
            time.sleep(_CHECK)


@contextmanager
def _listeners(client: redis.Redis) -> Iterator[list[Any]]:
    """For messages of one connection to each server: after it there is something to catch up on.

    Each node of a cluster notifies of its own keys alone.
    """
    with ExitStack() as stack:
        listeners = []
        for one in redis_client.primaries(client).values():
            # redis-py would reconnect and subscribe again by itself, and nobody would notice the
            # gap.
            one.set_retry(Retry(NoBackoff(), 0))
            untyped: Any = one
            listeners.append(stack.enter_context(untyped.pubsub()))
        yield listeners


def _notified(listeners: Sequence[Any]) -> list[bytes]:
    """The keys that were set lately, each once; waits a moment for the first."""
    keys: dict[bytes, None] = {}
    for listener in listeners:
        message = listener.get_message(timeout=_CHECK / len(listeners))
        while message is not None:
            if message["type"] == "pmessage" and message["data"] == b"set":
                # `__keyspace@0__:<key>`: keys hold colons themselves, hence only the first one
                # divides.
                keys[message["channel"].partition(b":")[2]] = None
            if len(keys) >= _MANY:
                break
            message = listener.get_message(timeout=0.0)
    return list(keys)


def _values(client: redis.Redis, keys: Sequence[bytes]) -> Iterator[Record | Rejected]:
    """What stands under those of `keys` that are still there."""
    for at in range(0, len(keys), _MANY):
        part = keys[at : at + _MANY]
        values = redis_client.get_many(client, part)
        for key, value in zip(part, values, strict=True):
            if value is not None:
                yield record_reader.read(redis_scan.task_id(key), value)


def _database(client: redis.Redis) -> int:
    (one, *_) = redis_client.primaries(client).values()
    return int(one.connection_pool.connection_kwargs.get("db") or 0)
