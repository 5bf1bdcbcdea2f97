"""What ends is started again, where it was, with what it kept."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from malearn.kernel.errors import PlatformError
from malearn.kernel.home import Home
from malearn.platform import EmbeddedRedis, Platform
from malearn.platform.supervisor import Supervisor


@pytest.fixture
def server(home: Home) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(home) as server:
        yield server


def kill(server: EmbeddedRedis, number: int = signal.SIGKILL) -> None:
    state = json.loads((server.home.state / "run" / "redis.json").read_text())
    os.kill(state["pid"], number)


def poll_until(
    supervisor: Supervisor, met: Callable[[], bool], seconds: float = 300.0
) -> list[str]:
    """What was seen on the way, in order."""
    seen: list[str] = []
    deadline = time.monotonic() + 300.0
    while not met():
        assert time.monotonic() < deadline, seen
        seen += [one.health for one in supervisor.poll()]
        time.sleep(0.02)
    return seen


def test_what_is_killed_starts_again_at_its_address_with_what_it_kept(
    server: EmbeddedRedis,
) -> None:
    supervisor = Supervisor([server])
    (one,) = supervisor.supervised
    before = server.url
    for restarts in (1, 2):
        with redis.Redis.from_url(server.url) as client:
            ids = [client.xadd("stream", {"n": n}) for n in range(200)]
            kill(server)
        seen = poll_until(supervisor, lambda wanted=restarts: one.restarts == wanted)
        assert seen == ["down", "starting", "up"]
        assert server.url == before and one.reason == ""
        with redis.Redis.from_url(server.url) as client:
            assert client.xlen("stream") == 200 * restarts
            assert client.xrevrange("stream", count=1)[0][0] == ids[-1]


def test_nothing_happens_to_what_is_up(server: EmbeddedRedis) -> None:
    supervisor = Supervisor([server])
    assert [supervisor.poll() for _ in range(3)] == [[], [], []]


def test_a_start_that_fails_is_tried_again_later(server: EmbeddedRedis) -> None:
    supervisor = Supervisor([server])
    (one,) = supervisor.supervised
    address = ("127.0.0.1", int(server.url.rpartition(":")[2].partition("/")[0]))
    kill(server)
    while not server.ended():
        time.sleep(0.02)
    with socket.create_server(address):
        poll_until(supervisor, lambda: "port is in use" in one.reason)
        assert one.health == "down"
    poll_until(supervisor, lambda: one.health == "up")


def test_what_hangs_is_ended_and_started_again(server: EmbeddedRedis) -> None:
    supervisor = Supervisor([server], interval=0.1, patience=0.5)
    (one,) = supervisor.supervised
    kill(server, signal.SIGSTOP)
    seen = poll_until(supervisor, lambda: one.restarts == 1)
    assert seen == ["unresponsive", "down", "starting", "up"]
    assert server.alive()


class Slow(EmbeddedRedis):
    """A server that, after each start, does not answer before it was asked so many times."""

    asked = 0

    def starting(self) -> Iterator[None]:
        self.asked = 0
        return super().starting()

    def _answers(self, url: str) -> bool:
        self.asked += 1
        return self.asked > 45 and super()._answers(url)


def test_a_server_too_slow_for_one_start_gets_more_time_for_the_next(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("malearn.platform.supervisor.START_TIMEOUT", 0.4)
    slow = Slow(home)
    supervisor = Supervisor([], to_start=[slow])
    (one,) = supervisor.supervised
    try:
        seen = poll_until(supervisor, lambda: one.health == "up")
        assert seen[:4] == ["starting", "down"] * 2 and seen[-1] == "up"
        assert one.restarts == 0 and one.server.start_timeout == 0.4
    finally:
        slow.stop()


def test_a_platform_may_wait_for_what_is_slow_and_says_so(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("malearn.platform.platform.START_TIMEOUT", 0.3)
    monkeypatch.setattr("malearn.platform.platform.EmbeddedRedis", Slow)
    seen: list[str] = []
    with Platform(home, redis=True, give_up=False, on_event=lambda *event: seen.append(event[1])):
        assert seen == ["starting", "slow", "ready"]
    with pytest.raises(PlatformError, match=r"gave no answer in 0 s"), Platform(home, redis=True):
        pass
