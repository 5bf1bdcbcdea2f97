"""A connection reads what Redis answers, however it arrives, or gives up by its deadline."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import pytest

from malearn.serving.connection import Connection, DeadlineExceeded
from malearn.serving.connection_pool import ConnectionPool
from malearn.serving.connector import Connector
from malearn.serving.resp import ProtocolError, ResponseError, pack


@pytest.fixture
def line() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the server's end of it."""
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    with contextlib.closing(theirs):
        yield connection, theirs
    connection.close()


def soon() -> float:
    return perf_counter() + 60.0


@pytest.mark.parametrize("piece", [1, 3, 7, 4096])
def test_values_may_arrive_in_pieces(line: Any, piece: int) -> None:
    connection, theirs = line
    values = [b"x" * 3000, b"", b"\r\n$-1\r\n", b"y" * 70_000]
    raw = b"".join(b"$%d\r\n%b\r\n" % (len(v), v) for v in values) + b"$-1\r\n"

    def speak() -> None:
        for start in range(0, len(raw), piece):
            theirs.sendall(raw[start : start + piece])

    for _ in range(2):
        thread = threading.Thread(target=speak)
        thread.start()
        assert connection.get_many(list("abcde"), soon()) == [*values, None]
        thread.join()


@pytest.mark.parametrize(
    "raw",
    [
        b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        b"$1\r\na\r\n$1\r\nb\r\n",
        b":1\r\n",
        b"$x\r\n",
        b"$1\r\nabc\r\n",
        b"$1\r\na\r\nmore",
        b"$1\r\na\r\n$1",
        b"%1\r\n*0\r\n:1\r\n",
        b"*4294967295\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
)
def test_what_is_no_answer_to_a_get_is_told_apart(line: Any, raw: bytes) -> None:
    connection, theirs = line
    theirs.sendall(raw)
    with pytest.raises(ProtocolError):
        connection.get_many(["a"], soon())


def test_an_error_of_redis_is_one(line: Any) -> None:
    connection, theirs = line
    theirs.sendall(b"-LOADING Redis is loading\r\n")
    with pytest.raises(ResponseError, match="LOADING") as error:
        connection.get_many(["a"], soon())
    assert error.value.code == "LOADING"


def test_a_key_of_another_kind_costs_only_its_own_value(redis_url: str, redis_client: Any) -> None:
    redis_client.lpush("list", "x")
    redis_client.set("text", "y")
    connection = Connector(redis_url, 1.0)()
    assert connection.get_many(["list", "text", "none"], soon()) == [None, b"y", None]
    connection.close()


def test_bytes_that_drip_do_not_stretch_the_deadline(line: Any) -> None:
    connection, theirs = line
    done = threading.Event()

    def drip() -> None:
        theirs.sendall(b"$1\r\na\r\n$10000\r\n")
        while not done.wait(0.01):
            with contextlib.suppress(OSError):
                theirs.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    started = perf_counter()
    with pytest.raises(DeadlineExceeded) as late:
        connection.get_many(["a", "b"], started + 0.1)
    assert perf_counter() - started < 50.0  # it would have been a hundred seconds
    assert late.value.replies == [b"a"]  # what came in time is not lost
    done.set()
    thread.join()


def test_any_reply_is_read(line: Any) -> None:
    connection, theirs = line
    theirs.sendall(b"+OK\r\n:7\r\n-ERR no\r\n*2\r\n$1\r\na\r\n*-1\r\n")
    fine, seven, refused, nested = connection.call(b"", 4, soon())
    assert (fine, seven, nested) == (b"OK", 7, [b"a", None])
    assert isinstance(refused, ResponseError)


def test_a_connection_knows_when_the_server_closed_it(line: Any) -> None:
    connection, theirs = line
    assert not connection.closed_by_server()
    theirs.sendall(b"$1\r\na\r\n")
    assert connection.get_many(["a"], soon()) == [b"a"]  # having looked changes nothing
    theirs.close()
    assert connection.closed_by_server()


def test_keys_beyond_ascii_are_sent_whole(redis_url: str, redis_client: Any) -> None:
    redis_client.set("schlüssel", "wert")
    connection = Connector(redis_url, 1.0)()
    assert connection.get_many(["schlüssel", "plain"], soon()) == [b"wert", None]
    connection.close()


def test_pack_counts_bytes() -> None:
    assert pack("SET", "ü", b"\xff") == b"*3\r\n$3\r\nSET\r\n$2\r\n\xc3\xbc\r\n$1\r\n\xff\r\n"


def test_whoever_finds_no_idle_connection_waits_no_longer_than_allowed() -> None:
    def refuse() -> Connection:
        raise ConnectionError

    pool = ConnectionPool(refuse, 1)
    started = perf_counter()
    assert pool.acquire(started + 0.05) is None
    assert perf_counter() - started < 50.0
    with pytest.raises(ConnectionError):
        pool.fill()


def test_connections_from_before_a_clear_are_not_lent_again() -> None:
    servers: list[socket.socket] = []

    def connect() -> Connection:
        ours, theirs = socket.socketpair()
        servers.append(theirs)
        return Connection(ours)

    pool = ConnectionPool(connect, 2)
    pool.fill()
    lent = pool.acquire(soon())
    assert lent is not None
    pool.clear()
    pool.release(lent)  # it led to a server that is no longer the right one
    assert pool.missing and pool.acquire(perf_counter()) is None
    pool.fill()
    other = pool.acquire(soon())
    assert other is not None and other is not lent
    pool.release(other)
    for server in servers:
        server.close()
    pool.prune()
    assert pool.missing
    pool.clear()
