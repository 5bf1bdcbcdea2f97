"""Connections to Redis that callers borrow for one call each."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from time import perf_counter

from malearn.serving.connection import RedisConnection

__all__ = ["ConnectionPool"]


class ConnectionPool:
    """A handful of open connections, lent out one call at a time.

    `acquire` never connects (resolving a name or shaking hands cannot be bounded); `fill`, on a
    background thread, does.
    """

    def __init__(self, connect: Callable[[], RedisConnection], size: int) -> None:
        self._connect, self._size = connect, size
        self._idle: queue.SimpleQueue[RedisConnection] = queue.SimpleQueue()
        #: Idle or lent; what is no member any more is closed when it is handed back.
        self._members: set[RedisConnection] = set()

    @property
    def missing(self) -> bool:
        """Whether a connection was discarded and not yet replaced."""
        return len(self._members) < self._size

    def acquire(self, deadline: float) -> RedisConnection | None:
        """A connection, waiting for one until `deadline`; None when none came free."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            pass
        left = deadline - perf_counter()
        if left <= 0.0:
            return None
        try:
            return self._idle.get(timeout=left)
        except queue.Empty:
            return None

    def release(self, connection: RedisConnection) -> None:
        """Hand back a connection whose call went well."""
        if connection in self._members:
            self._idle.put(connection)
        else:
            connection.close()

    def discard(self, connection: RedisConnection) -> None:
        """Throw away a connection whose call failed."""
        self._members.discard(connection)
        connection.close()

    def fill(self) -> None:
        """Open what is missing. Raises what connecting raises. Background only."""
        while self.missing:
            connection = self._connect()
            # A member before anyone can borrow it: `release` closes what is none.
            self._members.add(connection)
            self._idle.put(connection)

    def prune(self) -> None:
        """Discard what the server closed while it was idle. Background only."""
        outdated = 0
        # All are taken first, or one that is handed back would be taken again.
        for connection in list(self._take_idle()):
            closed = connection.closed_by_server()
            outdated += (also := not closed and connection.outdated)
            # Those that only lack a part are replaced one by one: callers have the others.
            if closed or (also and outdated == 1):
                self.discard(connection)
            else:
                self.release(connection)

    def clear(self) -> None:
        """Close every connection: the idle ones now, those that are lent when they come back."""
        # First, so that one which is handed back meanwhile is closed, too.
        self._members.clear()
        for connection in self._take_idle():
            connection.close()

    def abandon(self) -> None:
        """Forget all connections after a fork; they are the parent's."""
        for connection in self._take_idle():
            connection.abandon()
        self._idle = queue.SimpleQueue()
        self._members = set()

    def _take_idle(self) -> Iterator[RedisConnection]:
        while True:
            try:
                yield self._idle.get_nowait()
            except queue.Empty:
                return
