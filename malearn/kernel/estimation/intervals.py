"""How far the truth may lie from a prediction: intervals that keep their promise.

Online conformal prediction, each side on its own: an interval reaches as far, in
units of what this function lately missed by, as the wanted share of this tool
type's latest predictions in the same state did; feedback holds the share where it
is wanted. Nothing is assumed about the distribution of errors, nor that it stays
what it was. States are calibrated apart (Mondrian conformal prediction), so that
an interval is wider while it is in doubt which level holds, and only then. Inputs that were seen
before have a usual miss of their own, which their function's is mixed with: some take as long each
time, others vary.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Literal

import msgspec

from malearn.kernel.prediction import Source

__all__ = [
    "ASSUMED",
    "COVERAGE",
    "FUNCTIONS",
    "Factors",
    "Intervals",
    "State",
    "Width",
    "among_repeats",
    "calibrated",
    "confidence",
    "from_width",
]

#: `(low, high, confidence)`: two factors on the seconds answered, and 0…1. Intervals are
#: multiplicative: execution times err by factors, not by seconds.
Factors = tuple[float, float, float]

#: What an answer stands on: a function hardly seen; levels that moved, or may have; neither.
State = Literal["cold", "in_doubt", "steady"]

#: How many functions are remembered, each of their contexts counted, unless the owner says more.
FUNCTIONS = 2048

#: The share of outcomes that intervals enclose.
COVERAGE = 0.8

_BLIND = math.log(100.0)  # what is assumed while nothing is known may be off tenfold either way
_FUNCTION_RATE, _TOOL_RATE = 0.1, 0.05  # by which a usual miss takes in the latest one
_PRIOR = 5.0  # predictions of a function before its own errors outweigh its tool type's
_LEAST, _FIRST = 0.03, 0.5  # log-seconds
_FIRST_RATE = 0.1  # by which the usual miss of first predictions takes in the latest one
_WINDOW, _ENOUGH = 200, 10  # latest errors that count; so many stand for quantiles of their own
# … and until there are so many, its interval is no narrower than that of all states.
_SPEAKS_ALONE = 40
_ASSUMED_REACH = 2.0  # scales, until enough outcomes say otherwise
# Of the same inputs: own misses that what is usual of any is worth, and own ones that count; and
# how many inputs are remembered.
_USUAL_WORTH, _MOST_REPEATS, _INPUTS = 4.0, 20.0, 16_384
_WIDEST = _BLIND  # log-seconds: beyond it an end says nothing, and far beyond it overflows
_TAIL = (1.0 - COVERAGE) / 2.0  # share of outcomes that either side is to leave out
# Adaptive conformal inference: each outcome moves the share left out by this much of its miss,
# within limits, so that cover holds while errors drift and no spell of luck closes an interval.
_FEEDBACK, _LEAST_TAIL, _MOST = 0.01, 0.005, 0.25


def confidence(log_width: float) -> float:
    """1 for an interval of no width, in log-seconds from end to end; 0 from a factor of 100 on."""
    return max(0.0, 1.0 - log_width / _BLIND)


def from_width(width: Width) -> Factors:
    """Factors and confidence of an answer with this width."""
    return math.exp(-width.low), math.exp(width.high), confidence(width.low + width.high)


def among_repeats(usual: float, own: float, count: float) -> float:
    """What inputs seen before usually miss: between their `own`, the mean of `count` misses, and
    what is `usual` of any."""
    count = min(count, _MOST_REPEATS)
    return (count * own + _USUAL_WORTH * usual) / (count + _USUAL_WORTH)


def calibrated(calibration: Mapping[str, float] | None) -> Factors:
    """Factors and confidence of a model, from its metadata's `{"low": factor, "high": factor}`."""
    low, high, assumed = ASSUMED["model"]
    if not calibration:
        return low, high, assumed
    low = _factor(calibration.get("low"), low, below=True)
    high = _factor(calibration.get("high"), high, below=False)
    return low, high, confidence(math.log(high / low))


class Width(msgspec.Struct, frozen=True, gc=False):
    """How far an interval reaches below and above its prediction, in log-seconds.

    `scale` is the usual miss that both are multiples of, of which `apart` is owed to the doubt
    about levels; `state` is the one they are calibrated for. `calibrated` says whether enough
    outcomes stand behind them, `of_inputs` whether the usual miss is that of the same inputs, too.
    """

    low: float
    high: float
    scale: float
    state: State = "steady"
    calibrated: bool = False
    apart: float = 0.0
    of_inputs: bool = False

    def around(self, seconds: float) -> tuple[float, float]:
        """`low` and `high`, in seconds."""
        return seconds * math.exp(-self.low), seconds * math.exp(self.high)

    def among_repeats(self, own: float, count: int) -> Width:
        """The same for inputs for which `count` predictions missed by `own` in the mean."""
        usual = among_repeats(self.scale - self.apart, own, count)
        scale = max(usual, _LEAST) + self.apart
        by = scale / self.scale
        low, high = min(self.low * by, _WIDEST), min(self.high * by, _WIDEST)
        return Width(low, high, scale, self.state, self.calibrated, self.apart, of_inputs=True)


class _Quantiles:
    """The latest errors of one tool type in one state, as multiples of the scale, with sign."""

    __slots__ = ("_above", "_below", "_latest", "_ordered", "high", "low")

    def __init__(self) -> None:
        self._below = self._above = _TAIL  # the share that either side is to leave out
        self._latest: deque[float] = deque(maxlen=_WINDOW)
        self._ordered: list[float] = []
        self.low = self.high = _ASSUMED_REACH  # scales, below and above

    @property
    def enough(self) -> bool:
        return len(self._ordered) >= _ENOUGH

    @property
    def speaks_alone(self) -> bool:
        return len(self._ordered) >= _SPEAKS_ALONE

    def add(self, ratio: float, *, below: bool, above: bool) -> None:
        """An error of so many scales, and on which side of its interval it lay, if on any."""
        if len(self._latest) == _WINDOW:
            # The oldest leaves the deque with the append that follows.
            del self._ordered[bisect_left(self._ordered, self._latest[0])]
        self._latest.append(ratio)
        insort(self._ordered, ratio)
        if not self.enough:
            return
        # An end at 0 was put there below, and what it leaves out says nothing of the shares.
        if self.low and self.high:
            self._below = min(_MOST, max(_LEAST_TAIL, self._below + _FEEDBACK * (_TAIL - below)))
            self._above = min(_MOST, max(_LEAST_TAIL, self._above + _FEEDBACK * (_TAIL - above)))
        self.low, self.high = -self._quantile(self._below), self._quantile(1.0 - self._above)
        # A prediction lies within its interval; what one side cannot leave out, the other does.
        if self.low < 0.0:
            self.low, self.high = 0.0, max(0.0, self._quantile(COVERAGE))
        elif self.high < 0.0:
            self.low, self.high = max(0.0, -self._quantile(1.0 - COVERAGE)), 0.0

    def _quantile(self, share: float) -> float:
        n = len(self._ordered)
        # Split conformal's finite-sample rank, rounded outwards, so that cover is not below its
        # share for want of errors.
        place = share * (n + 1)
        place = math.floor(place) if share < 0.5 else math.ceil(place)
        return self._ordered[min(n, max(1, place)) - 1]


class _Tool:
    """How far the predictions of one tool type miss, all in all and by state."""

    __slots__ = ("all", "first", "miss", "states")

    def __init__(self, miss: float) -> None:
        self.miss = miss
        self.first = _FIRST  # … of the first prediction for a function
        self.all = _Quantiles()
        self.states: dict[State, _Quantiles] = {}


class Intervals:
    """The running calibration of all tool types. Not thread-safe: its owner serialises calls.

    The misses of `functions` are remembered at most; the one seen longest ago goes first.
    """

    __slots__ = ("_functions", "_inputs", "_most", "_tools")

    def __init__(self, functions: int = FUNCTIONS) -> None:
        self._most = functions
        self._functions: dict[str, tuple[float, int]] = {}  # usual miss, how many
        self._inputs: dict[tuple[str, Hashable], tuple[float, int]] = {}  # the same
        self._tools: dict[str, _Tool] = {}

    def width(
        self, function: str, tool_type: str, state: State = "steady", apart: float = 0.0
    ) -> Width:
        """Of the interval around the next prediction for `function`.

        `apart` is how far what else it may take lies from the prediction, in log-seconds: the
        scale is wider by it.
        """
        tool = self._tools.get(tool_type)
        scale = tool.miss if tool is not None else _FIRST
        known = self._functions.get(function)
        if known is not None:
            own, count = known
            scale = (count * own + _PRIOR * scale) / (count + _PRIOR)
        elif tool is not None:
            # What others have been seen to take says little of one that never ran.
            scale = max(scale, tool.first)
        scale = max(scale, _LEAST) + apart
        if tool is None:
            reach = min(_ASSUMED_REACH * scale, _WIDEST)
            return Width(reach, reach, scale, state, apart=apart)
        found = tool.states.get(state, tool.all)
        if not found.enough:
            found = tool.all
        low, high = found.low, found.high
        if not found.speaks_alone:
            low, high = max(low, tool.all.low), max(high, tool.all.high)
        low, high = min(low * scale, _WIDEST), min(high * scale, _WIDEST)
        return Width(low, high, scale, state, found.enough, apart)

    def of_inputs(self, width: Width, function: str, inputs: Hashable) -> Width:
        """The `width` of a prediction for `function`, for these `inputs`: the same where nothing
        came of any prediction for them yet, and where they are not known (None, or empty)."""
        known = self._inputs.get((function, inputs)) if inputs else None
        return width if known is None else width.among_repeats(*known)

    def learn(
        self,
        function: str,
        tool_type: str,
        actual: float,
        predicted: float,
        given: Width,
        inputs: Hashable = None,
    ) -> None:
        """What came of a prediction, both in seconds, and the width that was given with it.

        `inputs` tells those of the task from others; None, or empty, where they were not known.
        """
        error = math.log(actual / predicted)
        miss = abs(error)
        tool = self._tools.get(tool_type)
        if tool is None:
            # One miss is all there is, and may be an outlier; 1 is a factor of 2.7 already.
            tool = self._tools[tool_type] = _Tool(min(miss, 1.0))
        # By the width given then: the present one may have learnt from outcomes in between.
        below, above = error < -given.low, error > given.high
        tool.all.add(error / given.scale, below=below, above=above)
        state = tool.states.get(given.state)
        if state is None:
            state = tool.states[given.state] = _Quantiles()
        state.add(error / given.scale, below=below, above=above)
        # Scales are means of absolute errors, which one outlier would otherwise dominate.
        held = min(miss, 3.0 * max(tool.miss, _LEAST))
        tool.miss += _TOOL_RATE * (held - tool.miss)
        if function not in self._functions:
            tool.first += _FIRST_RATE * (miss - tool.first)
        # Taken out and put back, so that the dictionary is in order of last use.
        own, count = self._functions.pop(function, (tool.miss, 0))
        # With at most 50 the tool type keeps a share, by `_PRIOR`, in every function's scale.
        count = min(count + 1, 50)
        self._functions[function] = (own + max(_FUNCTION_RATE, 1.0 / count) * (held - own), count)
        if len(self._functions) > self._most:
            del self._functions[next(iter(self._functions))]
        if inputs:
            self._learn_inputs((function, inputs), held)

    def _learn_inputs(self, key: tuple[str, Hashable], miss: float) -> None:
        own, count = self._inputs.pop(key, (0.0, 0))
        count += 1
        self._inputs[key] = own + max(_FUNCTION_RATE, 1.0 / count) * (miss - own), count
        if len(self._inputs) > _INPUTS:
            del self._inputs[next(iter(self._inputs))]


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
