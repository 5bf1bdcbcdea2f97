"""Whatever Redis does, a call answers in time. The servers are real, and so are the faults.

Timings here are bounded loosely: `benchmarks/serving.py` measures them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from malearn import DAGTaskPredictor

RUN = "19725120-6620-445b-9f40-7ceccb20bae2"
LATE = 10.0  # a machine may be busy; a call that hangs is later still
Build = Callable[..., DAGTaskPredictor]


def ask(p: DAGTaskPredictor, calls: int = 20) -> list[str]:
    """Sources of so many answers, each in time."""
    sources = []
    for number in range(calls):
        started = time.perf_counter()
        answer = p.estimate("toy_process", "cpu", [f"{RUN}-{number}", f"{RUN}-x{number}"])
        assert time.perf_counter() - started < LATE
        assert answer.seconds > 0.0
        sources.append(answer.source)
    return sources


@contextlib.contextmanager
def server(behave: Callable[[socket.socket], object]) -> Iterator[str]:
    """A port where every connection is treated by `behave`."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        threads = []

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(0.05)
                while not stop.is_set():
                    behave(connection)

        def accept() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    threads.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
                    threads[-1].start()

        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        finally:
            stop.set()
            for thread in (acceptor, *threads):
                thread.join()


def swallow(connection: socket.socket) -> None:
    with contextlib.suppress(TimeoutError):
        connection.recv(65536)


def drip(connection: socket.socket) -> None:
    """Answers the handshake, then a byte at a time for ever."""
    with contextlib.suppress(TimeoutError):
        asked = connection.recv(65536)
        if b"GET" in asked:
            connection.sendall(b"$")
            for _ in range(100):
                connection.sendall(b"1")
                time.sleep(0.02)
        elif b"EXISTS" in asked:
            connection.sendall(b":0\r\n")
        else:
            connection.sendall(b"+OK\r\n" * max(asked.count(b"*"), 1))


def babble(connection: socket.socket) -> None:
    with contextlib.suppress(TimeoutError):
        asked = connection.recv(65536)
        if b"GET" not in asked:
            connection.sendall(b"+OK\r\n" * max(asked.count(b"*"), 1))
        else:
            connection.sendall(os.urandom(300))


def answer_after(delay: float, *values: str) -> Callable[[socket.socket], object]:
    """Treats a connection as a Redis does that gives `values` one after the other, each late."""

    def behave(connection: socket.socket) -> None:
        with contextlib.suppress(TimeoutError):
            asked = connection.recv(65536)
            if b"GET" not in asked:
                nothing = b"*2\r\n$1\r\n0\r\n*0\r\n" if b"SCAN" in asked else b"*0\r\n"
                connection.sendall(b":0\r\n" if b"EXISTS" in asked else nothing)
                return
            for value in values[: asked.count(b"GET")]:
                time.sleep(delay)
                connection.sendall(f"${len(value)}\r\n{value}\r\n".encode())
            time.sleep(delay)

    return behave


def test_an_answer_within_the_budget_is_waited_for_and_a_later_one_is_not(
    predictor: Build, record: Any
) -> None:
    """Ten times the second budget would be enough."""
    late = record(successors={"toy_process": {"size": 7}})
    for budget, delay, remembered in ((60.0, 0.3, 1), (0.3, 1.5, 0)):
        with server(answer_after(delay, late)) as url:
            p = predictor(url, budget=budget)
            assert p.wait_until_ready(120)
            p.estimate("toy_process", "cpu", [f"{RUN}-a"])
            assert p.stats().remembered == remembered
            p.close()


def test_what_a_slow_network_delivers_in_time_is_used(predictor: Build, record: Any) -> None:
    one = record(successors={"toy_process": {"size": 7}})
    with server(answer_after(1.2, one, one, one, one)) as url:
        p = predictor(url, budget=3.0)
        assert p.wait_until_ready(120)
        p.estimate("toy_process", "cpu", [f"{RUN}-{number}" for number in range(4)])
        assert 0 < p.stats().remembered < 4
        assert p.stats().redis_up
        p.close()


@pytest.mark.parametrize("behave", [swallow, drip, babble, socket.socket.close])
def test_a_server_that_is_no_redis(predictor: Build, behave: Any) -> None:
    with server(behave) as url:
        p = predictor(url)
        ask(p)
        p.close(timeout=5)
    assert p.stats().internal_errors == 0


def test_nobody_listens(predictor: Build, eventually: Any) -> None:
    p = predictor("redis://127.0.0.1:1/0")
    eventually(lambda: not p.stats().redis_up)
    assert set(ask(p)) == {"heuristic"}
    assert p.stats().reasons["no_model"] == 20


@pytest.mark.parametrize("url", ["nonsense", "redis://[/0", "redis://user:secret@127.0.0.1:1/x"])
def test_an_address_that_is_none(predictor: Build, url: str, caplog: Any) -> None:
    caplog.set_level(0)
    p = predictor(url)
    p.wait_until_ready(120)
    ask(p)
    assert "secret" not in caplog.text


def test_a_server_that_is_killed_and_comes_back(
    predictor: Build, own_redis: Any, record: Any, eventually: Any
) -> None:
    p = predictor(own_redis.url, budget=5.0)
    p.wait_until_ready(120)
    ask(p)
    assert p.stats().redis_up
    own_redis.kill()
    ask(p)
    own_redis.start()
    eventually(lambda: p.stats().redis_up)
    with own_redis.client() as client:
        client.set(f"result:{RUN}-new", record(successors={"toy_process": {"size": 1}}))
    ask(p)
    known = p.stats().remembered
    p.estimate("toy_process", "cpu", [f"{RUN}-new"])
    assert p.stats().remembered == known + 1
    assert p.stats().redis_outages >= 1
    assert p.stats().internal_errors == 0


def test_a_server_that_is_paused_and_resumed(
    predictor: Build, own_redis: Any, eventually: Any
) -> None:
    p = predictor(own_redis.url, budget=0.5)
    p.wait_until_ready(120)
    ask(p)
    own_redis.pause()
    started = time.perf_counter()
    ask(p, 200)
    assert time.perf_counter() - started < 50.0  # the breaker: not 200 budgets
    own_redis.resume()
    eventually(lambda: p.stats().redis_up)
    ask(p)
    assert p.stats().internal_errors == 0


@pytest.mark.parametrize(
    "value", [b"\xff\x00", b"{", b"[]", b"null", b'{"succ_task_feat": 7}', b""]
)
def test_garbage_where_records_should_be(
    predictor: Build, redis_url: str, redis_client: Any, value: bytes
) -> None:
    p = predictor(redis_url)
    p.wait_until_ready(120)
    for number in range(3):
        redis_client.set(f"result:{RUN}-{number}", value)
    ask(p, 3)
    assert p.stats().internal_errors == 0
    assert p.stats().redis_up


def test_while_redis_is_away_a_known_functions_median_is_better_than_a_blind_model(
    predictor: Build, record: Any, toy: Any, tool_type: Any, tmp_path: Any, eventually: Any
) -> None:
    from malearn.serving.cache import ModelCache

    uri = "http://127.0.0.1:1"
    ModelCache(tmp_path / "cache", uri, "Production").write(tool_type.registered_model, 1, toy())
    p = predictor(tracking_uri=uri)
    eventually(lambda: not p.stats().redis_up)
    p.collect_data_for_task(f"{RUN}-toy_process", "toy_process", record(4.0))
    answer = p.estimate("toy_process", "cpu", [f"{RUN}-unseen"])
    assert answer.source == "function_history"
    assert p.stats().reasons["redis_down"] == 1


def test_an_mlflow_that_never_answers_holds_nobody_up(predictor: Build) -> None:
    with server(swallow) as url:
        p = predictor(tracking_uri=url.replace("redis", "http").removesuffix("/0"))
        assert set(ask(p)) == {"heuristic"}
        started = time.perf_counter()
        p.close(timeout=1.0)
        assert time.perf_counter() - started < 20.0
    assert p.stats().internal_errors == 0
