"""A connection to Redis whose every call ends by a deadline.

A client library's timeout bounds one `recv`, not a call: a server that drips a byte every
40 ms would hold a caller for minutes. Here the time that is left shrinks with every `recv`.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable, Sequence
from time import perf_counter

from malearn.kernel.redis_address import Address
from malearn.serving import resp
from malearn.serving.resp import INCOMPLETE, ProtocolError, Reply, ResponseError

__all__ = ["Connection", "DeadlineExceeded", "connector"]

_RECEIVE_SIZE = 64 * 1024  # bytes per `recv`; a larger buffer costs cache, not calls
#: Bytes of the answers to one call. No honest answer comes near it, and hiredis keeps them all.
_MAX_RECEIVED = 1024 * 1024 * 1024


class DeadlineExceeded(TimeoutError):
    """The deadline passed before all replies were there; `replies` are those that were."""

    def __init__(self, replies: list[Reply]) -> None:
        super().__init__("the deadline passed")
        self.replies = replies


class Connection:
    """One open connection, for one caller at a time."""

    __slots__ = ("_buffer", "_reader", "_socket", "_timeout", "_view")

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


def connector(url: str, timeout: float) -> Callable[[], Connection]:
    """Opens connections to `url`; each step of opening one waits `timeout` seconds at most.

    The address is resolved anew each time. Where there is no connection to be had it raises
    OSError, `ProtocolError`, `ResponseError` or `InputError`.
    """

    def connect() -> Connection:
        # Here rather than once: an address that is wrong must not keep a scheduler from starting.
        address = Address.parse(url)
        connection = Connection(address.connect(timeout))
        greeting = address.greeting()
        try:
            packed = b"".join(resp.pack(*command) for command in greeting)
            if greeting:
                replies = connection.call(packed, len(greeting), perf_counter() + timeout)
                for reply in replies:
                    if isinstance(reply, ResponseError):
                        raise reply
        except BaseException:
            connection.close()
            raise
        return connection

    return connect


def _value(reply: Reply) -> bytes | None:
    if reply is None or type(reply) is bytes:
        return reply
    if not isinstance(reply, ResponseError):
        raise ProtocolError("not the answer to a GET")
    if reply.code == "WRONGTYPE":  # somebody else's key, and none of the others is to suffer
        return None
    raise reply
