"""A connection reads what Redis says, however it arrives, or gives up by its deadline."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import pytest

from malearn.serving.connection import (
    Connection,
    ConnectionPool,
    ProtocolError,
    ResponseError,
    connector,
    pack,
)


@pytest.fixture
def line() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the other end of its line."""
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    with contextlib.closing(theirs):
        yield connection, theirs
    connection.close()


def soon() -> float:
    return perf_counter() + 5.0


def text(values: list[Any]) -> list[bytes | None]:
    return [None if value is None else bytes(value) for value in values]


@pytest.mark.parametrize("piece", [1, 3, 7, 4096])
def test_values_may_arrive_in_pieces(line: Any, piece: int) -> None:
    connection, theirs = line
    values = [b"x" * 3000, b"", b"\r\n$-1\r\n", b"y" * 70_000]
    raw = b"*5\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(v), v) for v in values) + b"$-1\r\n"

    def speak() -> None:
        for start in range(0, len(raw), piece):
            theirs.sendall(raw[start : start + piece])

    for _ in range(2):
        thread = threading.Thread(target=speak)
        thread.start()
        assert text(connection.mget(list("abcde"), soon())) == [*values, None]
        thread.join()


@pytest.mark.parametrize(
    "raw",
    [
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"$1\r\na\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$1\r\nabc\r\n",
        b"*1\r\n$99999999999999\r\n",
        b"*1\r\n$1\r\na\r\nmore",
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
)
def test_what_is_no_answer_is_told_apart(line: Any, raw: bytes) -> None:
    connection, theirs = line
    theirs.sendall(raw)
    with pytest.raises(ProtocolError):
        connection.mget(["a"], soon())


def test_an_error_of_redis_is_one(line: Any) -> None:
    connection, theirs = line
    theirs.sendall(b"-LOADING Redis is loading\r\n")
    with pytest.raises(ResponseError, match="LOADING"):
        connection.mget(["a"], soon())


def test_bytes_that_drip_do_not_stretch_the_deadline(line: Any) -> None:
    connection, theirs = line
    done = threading.Event()

    def drip() -> None:
        theirs.sendall(b"*1\r\n$1000\r\n")
        while not done.wait(0.01):
            with contextlib.suppress(OSError):
                theirs.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    started = perf_counter()
    with pytest.raises(TimeoutError):
        connection.mget(["a"], started + 0.1)
    assert perf_counter() - started < 1.0
    done.set()
    thread.join()


def test_any_reply_is_read(line: Any) -> None:
    connection, theirs = line
    theirs.sendall(b"+OK\r\n:7\r\n-ERR no\r\n*2\r\n$1\r\na\r\n*-1\r\n")
    fine, seven, refused, nested = connection.call(b"", 4, soon())
    assert (fine, seven, nested) == (b"OK", 7, [b"a", None])
    assert isinstance(refused, ResponseError)


def test_keys_beyond_ascii_are_sent_whole(redis_url: str, redis_client: Any) -> None:
    redis_client.set("schlüssel", "wert")
    connection = connector(redis_url, 1.0)()
    assert text(connection.mget(["schlüssel", "plain"], soon())) == [b"wert", None]
    connection.close()


def test_pack_counts_bytes() -> None:
    assert pack("SET", "ü", b"\xff") == b"*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xbc\r\n$1\r\n\xff\r\n"


def test_whoever_finds_no_idle_link_waits_no_longer_than_allowed() -> None:
    pool = ConnectionPool(_refuse, 1)
    started = perf_counter()
    assert pool.acquire(started + 0.05) is None
    assert perf_counter() - started < 1.0
    with pytest.raises(ConnectionError):
        pool.fill()


def _refuse() -> Connection:
    raise ConnectionError
