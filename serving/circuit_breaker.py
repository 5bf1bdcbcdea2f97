"""A circuit breaker: while a server is away, nobody waits for it again.

Callers only read `closed` and report how their call went; probing is the
background thread's business, so no caller ever pays for finding out.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

__all__ = ["CircuitBreaker"]


class CircuitBreaker:
    """Opens on the first failure; `due` says when the next probe is.

    `first` and `longest` bound the pause before a probe, in seconds; it doubles
    until a *caller* has succeeded again, so that a server which answers probes
    but fails calls is asked ever more rarely.
    """

    __slots__ = ("_clock", "_first", "_longest", "_pause", "_probe_at", "closed", "opened")

    def __init__(
        self,
        first: float = 0.05,
        longest: float = 5.0,
        *,
        closed: bool = True,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        # One attribute, read and set in a single step: callers on any thread need no lock.
        self.closed = closed
        self.opened = 0
        self._first, self._longest, self._clock = first, longest, clock
        self._pause = first
        self._probe_at = clock()

    @property
    def due(self) -> bool:
        """Whether a probe is wanted now."""
        return not self.closed and self._clock() >= self._probe_at

    def fail(self) -> None:
        """A call or a probe failed: stop asking for a while."""
        # Several callers may fail on one outage, which counts once.
        if self.closed:
            self.opened += 1
        self.closed = False
        self._probe_at = self._clock() + self._pause
        self._pause = min(self._pause * 2.0, self._longest)

    def close(self) -> None:
        """A probe succeeded: callers may ask again."""
        self.closed = True

    def succeed(self) -> None:
        """A caller succeeded: the next outage starts with the shortest pause."""
        self._pause = self._first
