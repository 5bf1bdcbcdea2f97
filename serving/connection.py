"""A connection to Redis whose every call ends by a deadline.

A client library's timeout bounds one `recv`, not a call: a server that drips a byte every
40 ms would hold a caller for minutes. Here the time that is left shrinks with every `recv`.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Sequence
from time import perf_counter
from typing import ClassVar, Protocol

from malearn.serving import resp
from malearn.serving.resp import INCOMPLETE, ProtocolError, Reply, ResponseError

__all__ = ["Connection", "DeadlineExceeded", "RedisConnection"]

_RECEIVE_SIZE = 64 * 1024  # bytes per `recv`; a larger buffer costs cache, not calls
#: Bytes of the answers to one call. No honest answer comes near it, and hiredis keeps them all.
_MAX_RECEIVED = 1024 * 1024 * 1024
_AT_LEAST = 0.0005  # seconds for reading what has arrived already


class DeadlineExceeded(TimeoutError):
    """The deadline passed before all replies were there; `replies` are those that were."""

    def __init__(self, replies: list[Reply]) -> None:
        super().__init__("the deadline passed")
        self.replies = replies


class RedisConnection(Protocol):
    """What `Connection` offers for one server and `ClusterConnection` for all nodes of a cluster.

    `in_order` is whether commands of one call are carried out in their order.
    """

    in_order: ClassVar[bool]

    def call(self, packed: bytes, count: int, deadline: float) -> list[Reply]: ...
    def get_many(self, keys: Sequence[str], deadline: float) -> list[bytes | None]: ...
    def probe(self, keys: Sequence[str], deadline: float) -> None: ...
    def maintain(self) -> None: ...
    def nodes(self) -> Sequence[RedisConnection]: ...
    @property
    def outdated(self) -> bool: ...
    def closed_by_server(self) -> bool: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...


class Connection:
    """One open connection to one server, for one caller at a time."""

    __slots__ = ("_buffer", "_reader", "_socket", "_timeout", "_view")
    in_order: ClassVar[bool] = True
    #: Whether another connection would do better: one server has no parts that come and go.
    outdated: ClassVar[bool] = False

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = resp.reader()
        self._buffer = bytearray(_RECEIVE_SIZE)
        self._view = memoryview(self._buffer)
        self._timeout = 0.0

    def call(self, packed: bytes, count: int, deadline: float) -> list[Reply]:
        """Send `packed` commands and return their `count` replies.

        `deadline` is on `perf_counter`'s clock. An error that Redis answers is returned in its
        place, as a `ResponseError`. Raises `DeadlineExceeded`, with the replies that came in
        time, OSError or `ProtocolError`; after any of them the connection must be discarded.
        """
        replies: list[Reply] = []
        try:
            self._limit(deadline)
            # A plain socket's timeout bounds the whole of `sendall`, but each single `recv`.
            self._socket.sendall(packed)
            self._receive(replies, count, deadline)
        except TimeoutError:
            raise DeadlineExceeded(replies) from None
        return replies

    def get_many(self, keys: Sequence[str], deadline: float) -> list[bytes | None]:
        """The values of `keys`, None where there is none or it is no string.

        One GET each, sent together: unlike one MGET, a slow network delivers part of them in
        time. Raises as `call`, and `ResponseError` where Redis refuses to answer.
        """
        return [_value(reply) for reply in self.call(resp.pack_gets(keys), len(keys), deadline)]

    def probe(self, keys: Sequence[str], deadline: float) -> None:
        """Ask whether `keys` exist, to find out whether the server works. Raises as `call`, and
        `ResponseError` where it refuses."""
        # Not PING, which a Sentinel and a node of a cluster answer as if they held our keys.
        (reply,) = self.call(resp.pack("EXISTS", *keys), 1, deadline)
        if isinstance(reply, ResponseError):
            raise reply

    def maintain(self) -> None:
        """Nothing is to be done for one server."""

    def nodes(self) -> Sequence[Connection]:
        """The connections to all servers that hold keys: this one."""
        return (self,)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def send(self, packed: bytes, deadline: float) -> None:
        """The first half of `call`, for whoever asks several servers at once."""
        self._limit(deadline)
        self._socket.sendall(packed)

    def receive(self, replies: list[Reply], count: int, deadline: float) -> bool:
        """The other half, once something has arrived: append what has to `replies`.

        Whether all `count` replies are there. Raises OSError and `ProtocolError`.
        """
        # What is there is read at the deadline, too.
        self._limit(max(deadline, perf_counter() + _AT_LEAST))
        while True:
            read = self._socket.recv_into(self._buffer)
            if read == 0:
                raise ConnectionError("the server closed the connection")
            self._reader.feed(self._view[:read])
            # TLS may have decrypted more, which no `poll` would tell of.
            if not getattr(self._socket, "pending", _nothing)():
                break
        self._parse(replies)
        if len(replies) > count or (len(replies) == count and self._reader.has_data()):
            raise ProtocolError("more was answered than asked")
        return len(replies) == count

    def closed_by_server(self) -> bool:
        """Whether the server has closed this idle connection, as far as one can see from here."""
        try:
            # Not `select`, which cannot look at descriptors from 1,024 on.
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            if not poll.poll(0):
                return False
            # Noted in `_timeout`, or `_limit` would leave the socket so.
            self._socket.settimeout(0.0)
            self._timeout = 0.0
            # Of a TLS connection, too, only the socket beneath is looked at, nothing is decrypted.
            return socket.socket.recv(self._socket, 1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except (OSError, ValueError):  # reset, or closed here
            return True

    def close(self) -> None:
        """Close quietly; safe to repeat."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def abandon(self) -> None:
        """Let go of a socket that is shared with the parent of a fork, saying nothing on it."""
        with contextlib.suppress(OSError):
            # The descriptor alone: a shutdown or TLS's closing message would reach the peer.
            socket.close(self._socket.detach())

    def _receive(self, replies: list[Reply], count: int, deadline: float) -> None:
        buffer, reader, received = self._buffer, self._reader, 0
        while True:
            read = self._socket.recv_into(buffer)
            if read == 0:
                raise ConnectionError("the server closed the connection")
            received += read
            if received > _MAX_RECEIVED:
                raise ProtocolError("an answer without an end")
            reader.feed(self._view[:read])
            self._parse(replies)
            if len(replies) >= count:
                break
            self._limit(deadline)
        # What is left over would be taken for the answer to the next caller's question.
        if len(replies) > count or reader.has_data():
            raise ProtocolError("more was answered than asked")

    def _parse(self, replies: list[Reply]) -> None:
        """Append all replies that have wholly arrived."""
        gets = self._reader.gets
        try:
            while (reply := gets()) is not INCOMPLETE:
                replies.append(reply)
        except ProtocolError:
            raise
        except Exception as error:  # such as a map, which nobody asked for, with lists as its keys
            raise ProtocolError(str(error)) from error

    def _limit(self, deadline: float) -> None:
        """How long the socket waits; that costs a system call, so a tenth off is near enough."""
        left = deadline - perf_counter()
        if left <= 0.0:
            raise TimeoutError
        if abs(left - self._timeout) > 0.1 * left:
            self._socket.settimeout(left)
            self._timeout = left


def _nothing() -> int:
    return 0


def _value(reply: Reply) -> bytes | None:
    if reply is None or type(reply) is bytes:
        return reply
    if not isinstance(reply, ResponseError):
        raise ProtocolError("not the answer to a GET")
    if reply.code == "WRONGTYPE":  # somebody else's key, and none of the others is to suffer
        return None
    raise reply
