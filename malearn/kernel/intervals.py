"""How far the truth may lie from a prediction: intervals that keep their promise.

Online conformal prediction: an interval reaches as far, in units of what this
function lately missed by, as the wanted share of this tool type's latest
predictions did; feedback holds the share where it is wanted. Nothing is
assumed about the distribution of errors, nor that it stays what it was.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping

import msgspec

from malearn.kernel.prediction import Source

__all__ = [
    "ASSUMED",
    "COVERAGE",
    "Factors",
    "Intervals",
    "Width",
    "calibrated",
    "confidence",
    "from_width",
]

#: `(low, high, confidence)`: two factors on the seconds answered, and 0…1. Intervals are
#: multiplicative: execution times err by factors, not by seconds.
Factors = tuple[float, float, float]

#: The share of outcomes that intervals enclose.
COVERAGE = 0.8

_BLIND = math.log(100.0)  # what is assumed while nothing is known may be off tenfold either way
_FUNCTION_RATE, _TOOL_RATE = 0.1, 0.05
_PRIOR = 5.0  # predictions of a function before its own errors outweigh its tool type's
_LEAST, _FIRST = 0.03, 0.5  # log-seconds
_WINDOW, _ENOUGH = 200, 10
_FEEDBACK, _LOWEST, _HIGHEST = 0.02, 0.5, 0.99
_MOST_FUNCTIONS = 2048  # whose misses are remembered; the one seen longest ago goes first


def confidence(log_width: float) -> float:
    """1 for an interval of no width, in log-seconds from end to end; 0 from a factor of 100 on."""
    return max(0.0, 1.0 - log_width / _BLIND)


def from_width(width: Width) -> Factors:
    """Factors and confidence of an answer with this width."""
    factor = math.exp(width.half)
    return 1.0 / factor, factor, confidence(2.0 * width.half)


def calibrated(calibration: Mapping[str, float] | None) -> Factors:
    """Factors and confidence of a model, from its metadata's `{"low": factor, "high": factor}`."""
    low, high, assumed = ASSUMED["model"]
    if not calibration:
        return low, high, assumed
    low = _factor(calibration.get("low"), low, below=True)
    high = _factor(calibration.get("high"), high, below=False)
    return low, high, confidence(math.log(high / low))


class Width(msgspec.Struct, frozen=True, gc=False):
    """Half an interval, in log-seconds, and the usual miss that it is a multiple of.

    `calibrated` says whether enough outcomes stand behind it.
    """

    half: float
    unit: float
    calibrated: bool = False

    def around(self, seconds: float) -> tuple[float, float]:
        """`low` and `high`, in seconds."""
        factor = math.exp(self.half)
        return seconds / factor, seconds * factor


class _Tool:
    __slots__ = ("latest", "level", "miss", "ordered", "reach")

    def __init__(self, miss: float) -> None:
        self.miss = miss
        self.level = COVERAGE
        self.latest: deque[float] = deque(maxlen=_WINDOW)
        self.ordered: list[float] = []
        self.reach = 2.0  # how many usual misses, to enclose as many as wanted

    def add(self, ratio: float, *, enclosed: bool) -> None:
        """A prediction that missed by so many usual misses, and whether its interval held."""
        if len(self.latest) == _WINDOW:
            del self.ordered[bisect_left(self.ordered, self.latest[0])]
        self.latest.append(ratio)
        insort(self.ordered, ratio)
        self.level = min(_HIGHEST, max(_LOWEST, self.level + _FEEDBACK * (COVERAGE - enclosed)))
        n = len(self.ordered)
        if n >= _ENOUGH:
            self.reach = self.ordered[min(n, max(1, math.ceil(self.level * (n + 1)))) - 1]


class Intervals:
    """The running calibration of all tool types. Not thread-safe: its owner serialises calls."""

    __slots__ = ("_functions", "_tools")

    def __init__(self) -> None:
        self._functions: dict[str, tuple[float, int]] = {}  # usual miss, how many
        self._tools: dict[str, _Tool] = {}

    def width(self, function: str, tool_type: str) -> Width:
        """Of the interval around the next prediction for `function`."""
        tool = self._tools.get(tool_type)
        unit = tool.miss if tool is not None else _FIRST
        own, count = self._functions.get(function, (unit, 0))
        unit = max((count * own + _PRIOR * unit) / (count + _PRIOR), _LEAST)
        if tool is None:
            return Width(2.0 * unit, unit)
        return Width(tool.reach * unit, unit, len(tool.ordered) >= _ENOUGH)

    def learn(
        self, function: str, tool_type: str, actual: float, predicted: float, given: Width
    ) -> None:
        """What came of a prediction, both in seconds, and the width that was given with it."""
        miss = abs(math.log(actual / predicted))
        tool = self._tools.get(tool_type)
        if tool is None:
            tool = self._tools[tool_type] = _Tool(min(miss, 1.0))
        tool.add(miss / given.unit, enclosed=miss <= given.half)
        held = min(miss, 3.0 * max(tool.miss, _LEAST))
        tool.miss += _TOOL_RATE * (held - tool.miss)
        own, count = self._functions.pop(function, (tool.miss, 0))
        count = min(count + 1, 50)
        self._functions[function] = (own + max(_FUNCTION_RATE, 1.0 / count) * (held - own), count)
        if len(self._functions) > _MOST_FUNCTIONS:
            del self._functions[next(iter(self._functions))]


def _factor(value: object, otherwise: float, *, below: bool) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0.0:
        return otherwise
    return min(float(value), 1.0) if below else max(float(value), 1.0)


def _assumed(low: float, high: float) -> Factors:
    return low, high, confidence(math.log(high / low))


#: What about 80 % of outcomes lie within, by what answered, where nothing better is known.
ASSUMED: Mapping[Source, Factors] = {
    "model": _assumed(0.6, 1.7),
    "function_history": _assumed(0.5, 2.0),
    "tool_history": _assumed(0.3, 3.5),
    "heuristic": _assumed(0.1, 10.0),
}
