"""Pauses: times in which nothing ran, after which what was known before says less of now."""

from __future__ import annotations

__all__ = ["Pauses"]

# Seconds; what ends sooner is the usual waiting between two tasks. A log whose tasks are always
# far apart has no pauses, hence the multiple of its own usual gap.
_LEAST, _USUAL = 600.0, 10.0
_RATE = 0.05  # by which the usual gap takes in the latest one


class Pauses:
    """When the last execution ended, and how long it usually is until the next one starts."""

    __slots__ = ("_end", "_gap")

    def __init__(self) -> None:
        self._end: float | None = None
        self._gap = 0.0

    def ended_by(self, start: float, end: float) -> bool:
        """Whether an execution from `start` to `end`, both in seconds, was the first after one.

        Call for each execution, in order of their ends.
        """
        if self._end is None:
            self._end = end
            return False
        # Others may still have been running: then there was no gap at all.
        gap = max(0.0, start - self._end)
        long = gap > max(_LEAST, _USUAL * self._gap)
        self._gap += _RATE * (gap - self._gap)
        self._end = max(self._end, end)
        return long
