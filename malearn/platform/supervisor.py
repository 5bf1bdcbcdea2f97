"""Keeps servers up: looks at each now and then, and starts again whichever ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from malearn.kernel.errors import PlatformError
from malearn.platform.server import Server

__all__ = ["Health", "Supervisor", "Watched"]

Health = Literal["up", "silent", "starting", "down"]

LONGEST = 60.0  # seconds between two attempts to start, at most
STEADY = 60.0  # seconds up after which the next end is answered at once again


@dataclass(eq=False, slots=True)
class Watched:
    """One server under supervision. `why` says what the last failure was, "" after none.

    "silent" is a server that runs and does not answer, "down" one whose next start is due
    at `due`; all times are of the monotonic clock, in seconds.
    """

    server: Server
    since: float  # it has been up
    health: Health = "up"
    restarts: int = 0
    why: str = ""
    due: float = 0.0
    asked: float = field(default=0.0, repr=False)
    heard: float = field(default=0.0, repr=False)
    failures: int = field(default=0, repr=False)
    steps: Iterator[None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.asked = self.heard = self.since


class Supervisor:
    """Watches servers that have started. A server that ended is started again where it was,
    with what it kept: at once the first time, then after 1, 2, 4 … `LONGEST` seconds. One that
    runs is asked every `interval` seconds, and ended first if it was silent for `patience`.

    Call `look` a few times a second, in the thread that handles signals: no start blocks it.
    """

    def __init__(
        self, servers: Sequence[Server], interval: float = 5.0, patience: float = 120.0
    ) -> None:
        now = time.monotonic()
        self._interval, self._patience = interval, patience
        self.watched = tuple(Watched(server, now) for server in servers)
        for server in servers:
            server.port = urlsplit(server.url).port  # its clients were told this one

    def look(self) -> list[Watched]:
        """Look at every server once and do what is due; those whose health changed."""
        before = [one.health for one in self.watched]
        for one in self.watched:
            self._look(one, time.monotonic())
        return [one for one, was in zip(self.watched, before, strict=True) if one.health != was]

    def _look(self, one: Watched, now: float) -> None:
        if one.steps is not None:
            self._continue(one, one.steps)
        elif one.health == "down":
            if now >= one.due:
                one.health, one.steps = "starting", one.server.starting()
        elif one.server.ended():
            one.failures = 0 if now - one.since >= STEADY else one.failures + 1
            self._down(one, "it ended", now)
        elif now - one.asked >= self._interval:
            self._ask(one)

    def _continue(self, one: Watched, steps: Iterator[None]) -> None:
        try:
            ready = next(steps, one) is one
        except PlatformError as error:
            one.steps, one.failures = None, one.failures + 1
            self._down(one, f"it {error.problem}", time.monotonic())
            return
        if ready:
            now = time.monotonic()
            one.health, one.steps, one.why = "up", None, ""
            one.restarts += 1
            one.heard = one.since = one.asked = now

    def _ask(self, one: Watched) -> None:
        answers = one.server.alive()
        now = one.asked = time.monotonic()
        if answers:
            one.health, one.heard = "up", now
            return
        one.health = "silent"
        if now - one.heard > self._patience:
            one.server.kill()  # that it ended is seen at one of the next looks

    def _down(self, one: Watched, why: str, now: float) -> None:
        wait = min(2.0 ** (one.failures - 1), LONGEST) if one.failures else 0.0
        one.health, one.why, one.due = "down", why, now + wait
