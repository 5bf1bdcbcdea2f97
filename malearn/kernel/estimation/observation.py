"""One finished execution, as much of it as a history needs."""

from __future__ import annotations

import math

import msgspec

__all__ = ["SHORTEST", "Observation"]

#: Seconds; shorter ones are taken as this: they differ by what clocks and start-up cost, which on a
#: logarithmic scale would look large.
SHORTEST = 1e-3


class Observation(msgspec.Struct, frozen=True, gc=False):
    """One finished execution, as much of it as a history needs.

    `features` are the numbers the prediction was made from, in declared order,
    NaN where missing. `context` says what it ran with, one text per name of its
    tool type's context, "" where unknown; empty where nothing is known. `start`
    and `end` are seconds since the epoch.
    """

    function: str
    tool_type: str
    start: float
    end: float
    features: tuple[float, ...] = ()
    context: tuple[str, ...] = ()

    @property
    def log_seconds(self) -> float:
        return math.log(max(self.end - self.start, SHORTEST))
