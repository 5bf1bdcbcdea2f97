"""Connections to Redis whose every call ends by a deadline.

A client library's timeout bounds one `recv`, not a call: a server that drips a
byte every 40 ms would hold a caller for minutes. RESP2 is small enough to be
read in a page, and reading it here halves the cost of a round trip.
"""

from __future__ import annotations

import contextlib
import queue
import socket
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import Any

from malearn.serving.address import Address

__all__ = [
    "Connection",
    "ConnectionPool",
    "ProtocolError",
    "Reply",
    "ResponseError",
    "connector",
    "pack",
]

#: What Redis answers: text, a number, nothing, a list of such, or a `ResponseError`.
Reply = Any

_SMALL, _KEPT, _LARGEST = 64 * 1024, 2 * 1024 * 1024, 512 * 1024 * 1024
_LONGEST_LINE = 64 * 1024
_DEEPEST = 8
_DOLLAR, _STAR, _COLON, _PLUS, _MINUS, _RETURN = b"$*:+-\r"


class ProtocolError(Exception):
    """The server's bytes are no RESP; the connection is of no more use."""


class ResponseError(Exception):
    """Redis answered with an error, such as `OOM …` or `LOADING …`."""


class Connection:
    """One open connection. One caller at a time."""

    __slots__ = ("_at", "_buffer", "_deadline", "_filled", "_socket", "_timeout", "_view")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(_SMALL)
        self._view = memoryview(self._buffer)
        self._at = self._filled = 0
        self._deadline = self._timeout = 0.0

    def call(self, packed: bytes, replies: int, deadline: float) -> list[Reply]:
        """Send `packed` commands and return their `replies` answers.

        `deadline` is on `perf_counter`'s clock. Raises TimeoutError, OSError or
        `ProtocolError`; after any of them the connection must be dropped. An error that
        Redis answers is returned in its place as a `ResponseError`.
        """
        self._send(packed, deadline)
        answers = [self._reply(0) for _ in range(replies)]
        if self._at != self._filled:
            raise ProtocolError("more bytes than were asked for")
        self._at = self._filled = 0
        if len(self._buffer) > _KEPT:
            self._grow(_SMALL)
        return answers

    def mget(self, keys: Sequence[str], deadline: float) -> list[memoryview | None]:
        """The values of `keys`, None where there is none, uncopied: they last till the next call.

        Raises as `call`, and `ResponseError`.
        """
        self._send(_mget(keys), deadline)
        if len(self._buffer) > _KEPT:
            self._grow(_SMALL)
        # `_at` stays where it is until all have come, and so does what was received before.
        at = self._line_end(0) + 2
        buffer, view, filled = self._buffer, self._view, self._filled
        head = bytes(buffer[: at - 2])
        if head != b"*%d" % len(keys):
            if head[:1] == b"-":
                raise ResponseError(head[1:].decode("utf-8", "replace"))
            raise ProtocolError("not the answer to an MGET")
        values: list[memoryview | None] = []
        for _ in keys:
            line = buffer.find(b"\r\n", at, filled)
            if line < 0:
                line = self._line_end(at)
                buffer, view, filled = self._buffer, self._view, self._filled
            if buffer[at] != _DOLLAR:
                raise ProtocolError("not a value")
            length = _count(buffer[at + 1 : line])
            if length < 0:
                values.append(None)
                at = line + 2
                continue
            end = line + 2 + length
            if end + 2 > filled:
                self._receive(end + 2)
                buffer, view, filled = self._buffer, self._view, self._filled
            if buffer[end] != _RETURN:
                raise ProtocolError("a value of another length")
            values.append(view[line + 2 : end])  # which stays what it is if the buffer is replaced
            at = end + 2
        if at != filled:
            raise ProtocolError("more bytes than were asked for")
        self._filled = 0
        return values

    def close(self) -> None:
        """Close quietly; safe to repeat."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def abandon(self) -> None:
        """Let go of a socket that is shared with the parent of a fork, saying nothing on it."""
        with contextlib.suppress(OSError):
            socket.close(self._socket.detach())

    def _reply(self, depth: int) -> Reply:
        start = self._at
        end = self._line_end(start)
        self._at = end + 2
        kind, rest = self._buffer[start], self._buffer[start + 1 : end]
        if kind == _DOLLAR:
            return self._bulk(_count(rest))
        if kind == _STAR:
            if depth >= _DEEPEST:
                raise ProtocolError("nested too deep")
            count = _count(rest)
            return None if count < 0 else [self._reply(depth + 1) for _ in range(count)]
        if kind == _COLON:
            return _count(rest)
        if kind == _PLUS:
            return bytes(rest)
        if kind == _MINUS:
            return ResponseError(rest.decode("utf-8", "replace"))
        raise ProtocolError("an unknown kind of reply")

    def _bulk(self, length: int) -> bytes | None:
        if length < 0:
            return None
        self._receive(self._at + length + 2)
        start, end = self._at, self._at + length
        if self._buffer[end : end + 2] != b"\r\n":
            raise ProtocolError("a value of another length")
        self._at = end + 2
        return bytes(self._view[start:end])

    def _line_end(self, start: int) -> int:
        """Where the line that begins at `start` ends, after receiving as much of it as it takes."""
        searched = start
        while (end := self._buffer.find(b"\r\n", searched, self._filled)) < 0:
            if self._filled - start > _LONGEST_LINE:
                raise ProtocolError("a line without an end")
            searched = max(self._filled - 1, start)
            self._fill(self._filled + 1)
        return end

    def _receive(self, end: int) -> None:
        """Receive until the buffer is filled up to `end`."""
        if end - self._at > _LARGEST:
            raise ProtocolError("a value beyond Redis's own limit")
        while self._filled < end:
            self._fill(end)

    def _send(self, packed: bytes, deadline: float) -> None:
        self._deadline = deadline
        self._limit(max(deadline - perf_counter(), 1e-6))
        self._socket.sendall(packed)

    def _fill(self, end: int) -> None:
        """Receive once, into a buffer that has room up to `end`."""
        left = self._deadline - perf_counter()
        if left <= 0.0:
            raise TimeoutError("the deadline passed")
        if end > len(self._buffer):
            # No more than doubled at once: a length announced is not yet a length sent.
            self._grow(min(max(end, 2 * self._filled), max(_SMALL, 4 * len(self._buffer))))
        self._limit(left)
        received = self._socket.recv_into(self._view[self._filled :])
        if received == 0:
            raise ConnectionError("the server closed the connection")
        self._filled += received

    def _limit(self, seconds: float) -> None:
        """How long the socket waits; it costs a system call, so a tenth off is near enough."""
        if abs(seconds - self._timeout) > 0.1 * seconds:
            self._socket.settimeout(seconds)
            self._timeout = seconds

    def _grow(self, size: int) -> None:
        """Another buffer, of `size` bytes, with what was received in its place."""
        buffer = bytearray(max(size, self._filled + 1))
        buffer[: self._filled] = self._view[: self._filled]
        self._buffer, self._view = buffer, memoryview(buffer)


class ConnectionPool:
    """A handful of open connections, lent out one call at a time.

    `take` never connects (resolving a name or shaking hands cannot be bounded);
    `refill`, on a background thread, does.
    """

    def __init__(self, connect: Callable[[], Connection], size: int) -> None:
        self._connect, self._size = connect, size
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        self._open = 0

    @property
    def missing(self) -> bool:
        """Whether a connection was dropped and not yet replaced."""
        return self._open < self._size

    def acquire(self, deadline: float) -> Connection | None:
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

    def release(self, connection: Connection) -> None:
        """Hand back a connection whose call went well."""
        self._idle.put(connection)

    def discard(self, connection: Connection) -> None:
        """Throw away a connection whose call failed."""
        self._open -= 1
        connection.close()

    def fill(self) -> None:
        """Open what is missing. Raises what connecting raises. Background only."""
        while self.missing:
            connection = self._connect()
            self._open += 1
            self._idle.put(connection)

    def clear(self) -> None:
        """Close every idle connection."""
        for connection in self._drain():
            self.discard(connection)

    def abandon(self) -> None:
        """Forget all connections after a fork; they are the parent's."""
        for connection in self._drain():
            connection.abandon()
        self._idle = queue.SimpleQueue()
        self._open = 0

    def _drain(self) -> Iterable[Connection]:
        while True:
            try:
                yield self._idle.get_nowait()
            except queue.Empty:
                return


def pack(*words: str | bytes) -> bytes:
    """One command as RESP."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else word.encode("utf-8", "surrogatepass")
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


def _mget(keys: Sequence[str]) -> bytes:
    """As `pack("MGET", *keys)`, in a third of the time where keys are ASCII."""
    words = "".join([f"${len(key)}\r\n{key}\r\n" for key in keys])
    if words.isascii():
        return f"*{len(keys) + 1}\r\n$4\r\nMGET\r\n{words}".encode()
    return pack("MGET", *keys)


def connector(url: str, timeout: float) -> Callable[[], Connection]:
    """Opens connections to `url`; each step of opening one waits `timeout` seconds at most.

    Where none can be had it raises OSError, `ProtocolError`, `ResponseError` or `InputError`.
    """

    def connect() -> Connection:
        address = Address.parse(url)
        connection = Connection(address.connect(timeout))
        greeting = address.greeting()
        try:
            packed = b"".join(pack(*command) for command in greeting)
            for answer in connection.call(packed, len(greeting), perf_counter() + timeout):
                if isinstance(answer, ResponseError):
                    raise answer
        except BaseException:
            connection.close()
            raise
        return connection

    return connect


def _count(digits: bytes | bytearray) -> int:
    try:
        return int(digits)
    except ValueError:
        raise ProtocolError("a length that is no number") from None
