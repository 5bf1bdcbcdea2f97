"""Keeps servers up: checks each periodically and restarts whichever ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from malearn.kernel.errors import PlatformError
from malearn.platform.server import START_TIMEOUT, Server

__all__ = ["Health", "SupervisedServer", "Supervisor"]

Health = Literal["up", "unresponsive", "starting", "down"]

MAX_BACKOFF = 60.0  # seconds between two attempts to start, at most
MAX_START = 3600.0  # seconds that a start may take, at most
STABLE_AFTER = 60.0  # seconds up after which the next end is answered without a pause again


@dataclass(eq=False, slots=True)
class SupervisedServer:
    """One server and what its supervisor knows of it.

    "unresponsive" is a server that runs and does not answer, "down" one that is started again
    at `next_start`. `reason` is the last failure, "" after none. All times are of the monotonic
    clock, in seconds.
    """

    server: Server
    up_since: float
    health: Health = "up"
    restarts: int = 0  # -1 before the first start
    reason: str = ""
    next_start: float = 0.0
    last_ping: float = field(default=0.0, repr=False)
    last_answer: float = field(default=0.0, repr=False)
    failures: int = field(default=0, repr=False)  # in a row; they decide the backoff
    start_steps: Iterator[None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.last_ping = self.last_answer = self.up_since


class Supervisor:
    """Supervises servers that have started. A server that ended is started again at its old
    address, with its data: at once the first time, then after 1, 2, 4 … `MAX_BACKOFF` seconds.
    A running one is pinged every `interval` seconds, and killed first when it has not answered
    for `patience` seconds. Each start that fails gives the next twice the time, up to `MAX_START`:
    a machine too slow for one would be too slow for all. Those of `to_start` have never run.

    Call `poll` a few times a second, in the thread that handles signals: no start blocks it.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        interval: float = 5.0,
        patience: float = 120.0,
        *,
        to_start: Sequence[Server] = (),
    ) -> None:
        now = time.monotonic()
        self._interval, self._patience = interval, patience
        up = [SupervisedServer(server, now) for server in servers]
        new = [SupervisedServer(server, now, "down", restarts=-1) for server in to_start]
        self.supervised = (*up, *new)
        for one in self.supervised:
            # `Platform` may have made it infinite: here a start that hangs must fail.
            one.server.start_timeout = START_TIMEOUT
        for server in servers:
            # Its clients hold this address, so a restart must not choose another.
            server.port = urlsplit(server.address).port

    def poll(self) -> list[SupervisedServer]:
        """Check every server once and do what is due; returns those whose health changed."""
        before = [one.health for one in self.supervised]
        for one in self.supervised:
            self._poll(one, time.monotonic())
        return [one for one, was in zip(self.supervised, before, strict=True) if one.health != was]

    def _poll(self, one: SupervisedServer, now: float) -> None:
        if one.start_steps is not None:
            self._continue_start(one, one.start_steps)
        elif one.health == "down":
            if now >= one.next_start:
                one.health, one.start_steps = "starting", one.server.starting()
        elif one.server.ended():
            # A server that crashes seconds after each start must not be restarted without a pause.
            one.failures = 0 if now - one.up_since >= STABLE_AFTER else one.failures + 1
            self._schedule_start(one, "it ended", now)
        elif now - one.last_ping >= self._interval:
            self._ping(one)

    def _continue_start(self, one: SupervisedServer, steps: Iterator[None]) -> None:
        try:
            # `starting` yields None: the default means that it has ended and the server is up.
            ready = next(steps, one) is one
        except PlatformError as error:
            one.start_steps, one.failures = None, one.failures + 1
            one.server.start_timeout = min(2 * one.server.start_timeout, MAX_START)
            self._schedule_start(one, f"it {error.problem}", time.monotonic())
            return
        if ready:
            now = time.monotonic()
            one.health, one.start_steps, one.reason = "up", None, ""
            one.restarts += 1
            one.server.start_timeout = START_TIMEOUT
            one.last_answer = one.up_since = one.last_ping = now

    def _ping(self, one: SupervisedServer) -> None:
        answers = one.server.alive()
        # After the ping, which may itself have taken seconds.
        now = one.last_ping = time.monotonic()
        if answers:
            one.health, one.last_answer = "up", now
            return
        one.health = "unresponsive"
        # A server that a training starves of CPU is late, not lost: it is given minutes.
        if now - one.last_answer > self._patience:
            one.server.kill()  # one of the next polls finds it ended and starts it again

    def _schedule_start(self, one: SupervisedServer, reason: str, now: float) -> None:
        backoff = min(2.0 ** (one.failures - 1), MAX_BACKOFF) if one.failures else 0.0
        one.health, one.reason, one.next_start = "down", reason, now + backoff
