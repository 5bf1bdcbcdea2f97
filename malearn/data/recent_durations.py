"""How long each function took lately, whatever order its executions came in."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable

__all__ = ["LIMIT", "RecentDurations"]

#: How many executions of a function are remembered.
#: More than the 200 that the fence asks for, some of which it leaves out.
LIMIT = 500


class RecentDurations:
    """The last `LIMIT` executions of every function, by their end, then task id."""

    __slots__ = ("_by_function",)

    def __init__(self) -> None:
        self._by_function: dict[str, list[tuple[float, str, float]]] = {}

    def add(self, rows: Iterable[tuple[str, str, float, float]]) -> None:
        """Take in `rows` of task id, function, end (seconds since the epoch) and seconds."""
        for task_id, function, end, seconds in rows:
            recent = self._by_function.setdefault(function, [])
            if len(recent) < LIMIT:
                # A heap with the oldest on top, since rows come in the order of files, not of time.
                heapq.heappush(recent, (end, task_id, seconds))
            elif end >= recent[0][0]:
                heapq.heappushpop(recent, (end, task_id, seconds))

    def log_seconds(
        self, functions: Iterable[str], limit: int, but: Collection[str] = ()
    ) -> dict[str, list[float]]:
        """The last `limit` log-seconds of those of `functions` that are known, oldest first.

        The task ids `but` are left out.
        """
        return {
            function: [
                # Below a millisecond a duration is noise, and 0 has no logarithm.
                math.log(max(seconds, 1e-3))
                for _, task_id, seconds in sorted(recent)[-limit:]
                if task_id not in but
            ]
            for function in functions
            if (recent := self._by_function.get(function)) is not None
        }
