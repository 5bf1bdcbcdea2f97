"""What a function, and its tool type, took lately, as known at a given moment.

A `History` is a fold over finished executions in order of their end: training
replays it point in time (`replay`), the scheduler feeds it as tasks finish.
One implementation, so both see the same numbers. Nothing of it is stored but
recent executions; whoever needs one replays them.

It explains log-seconds as a sum::

    cluster + tool type + function + effect of the inputs + noise

Levels follow the errors slowly. What of an error exceeds several times the
usual is taken for a change of regime (another backend, a crowded node) and
moves the tool type and the cluster at once, so that functions which have not
run since move too. Effects are remembered for identical inputs, else estimated
from similar ones, and weighed by what such estimates have been worth lately.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEATURES", "History", "Observation", "Timed", "replay", "timeline"]

#: What `History.snapshot` gives, in matrix order. `level` is the log-seconds to expect;
#: `ema`, `last`, `median` and `tool_ema` are recent log-seconds less `level`; the others are
#: the effect of the inputs and the usual error, in log-seconds, and logarithms of counts.
FEATURES: tuple[str, ...] = (
    "level",
    "effect",
    "spread",
    "count",
    "same_count",
    "similar_mass",
    "ema",
    "last",
    "median",
    "tool_ema",
)

_FLOOR = 1e-3  # seconds; shorter ones are taken as this

# Shares of an ordinary error that function and tool type take over …
_FUNCTION_RATE, _TOOL_RATE = 0.05, 0.03
# … and of what exceeds `_JUMP` spreads (fewer after several on one side) tool type and cluster.
_TOOL_JUMP, _CLUSTER_JUMP = 0.40, 0.05
_JUMP, _LONGEST_RUN = 4.0, 3
# A function's quick level takes over where it departs from the slow one by more than a spread.
_QUICK_RATE = 0.4
_LEAST_SPREAD, _FIRST_SPREAD = 0.1, 0.2
_FUNCTION_SPREAD_RATE, _TOOL_SPREAD_RATE = 0.1, 0.05
_MOST_ERROR = 2.0  # nothing moves a level by more than this at once, in log-seconds
_EMA_RATE = 0.3
_RECENT = 20  # of which `median` is taken
_SETTLED = 5  # executions of a function before its level says more than their median

# Effects of inputs.
_EFFECT_RATE = 0.3
_REMEMBERED = 128  # per function, for similar inputs
_IDENTICAL = 512  # per function, for identical ones
_EXACT, _NEAR, _WIDTH, _PRIOR = 4.0, 2.0, 0.1, 1.0  # see `_Inputs.similar`
_WORTH_RIDGE, _WORTH_DECAY = 25.0, 0.98

Vector = NDArray[np.float32]
_ONES: Vector = np.ones(4096, np.float32)


class Timed(Protocol):
    """What ran from `start` to `end`, seconds since the epoch."""

    @property
    def start(self) -> float: ...

    @property
    def end(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Observation:
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
        return math.log(max(self.end - self.start, _FLOOR))


class _Inputs:
    """The effects that inputs had on one function: identical ones, and the last ones in a ring."""

    __slots__ = ("_effects", "_identical", "_rows", "_scale", "_seen")

    def __init__(self) -> None:
        self._identical: dict[bytes, list[float]] = {}  # effect and count
        self._seen = 0
        self._rows: Vector | None = None
        self._effects: Vector = np.zeros(_REMEMBERED, np.float32)
        self._scale: Vector = np.ones(1, np.float32)  # one over the deviation

    def effect(self, x: Vector, key: bytes) -> tuple[float, float, float]:
        """Effect on log-seconds, times seen exactly so, and the weight of what was similar."""
        identical = self._identical.get(key)
        if identical is not None:
            return identical[0], identical[1], 0.0
        effect, mass = self.similar(x)
        return effect, 0.0, mass

    def similar(self, x: Vector) -> tuple[float, float]:
        """The weighted mean effect of earlier inputs like `x`, and their weight.

        An earlier one weighs exp(4·surprise) − 1 + 2·exp(−distance ÷ 0.1). Its
        surprise: over the features that are exactly equal, minus the logarithm of
        how often that value occurs, averaged over all; sharing a rare value is
        strong evidence. Its distance: the mean difference over the features in
        standard deviations, each at most 2.
        """
        if self._rows is None or len(x) != self._rows.shape[1]:
            return 0.0, 0.0
        n, width = min(self._seen, _REMEMBERED), len(x)
        difference = np.abs(self._rows[:n] - x)
        # Products with vectors of ones are means and sums; numpy's own cost several times more.
        equal = (difference < 1e-5).astype(np.float32)
        rarity = np.log((_ONES[:n] @ equal + 1.0) / (n + 2.0)) * (-_EXACT / width)
        distance = np.minimum(difference * self._scale, 2.0) @ _ONES[:width]
        weights = np.expm1(equal @ rarity) + _NEAR * np.exp(distance * (-1.0 / (_WIDTH * width)))
        mass = float(weights @ _ONES[:n])
        return float(weights @ self._effects[:n]) / (mass + _PRIOR), mass

    def learn(self, x: Vector, key: bytes, effect: float) -> None:
        """These inputs had this effect."""
        identical = self._identical.pop(key, None)
        if identical is None:
            identical = [effect, 1.0]
            if len(self._identical) >= _IDENTICAL:
                del self._identical[next(iter(self._identical))]
        else:
            rate = max(_EFFECT_RATE, 1.0 / (identical[1] + 1.0))
            identical = [identical[0] + rate * (effect - identical[0]), identical[1] + 1.0]
        self._identical[key] = identical  # the most recently used last
        if self._rows is None or len(x) != self._rows.shape[1]:
            self._rows, self._seen = np.zeros((_REMEMBERED, len(x)), np.float32), 0
        i = self._seen % _REMEMBERED
        self._rows[i], self._effects[i] = x, _held(effect)
        self._seen += 1
        if self._seen < 10 or self._seen % 10 == 0:
            known = self._rows[: min(self._seen, _REMEMBERED)]
            self._scale = 1.0 / (known.std(axis=0) + np.float32(0.05))


class _Function:
    """The level of one function above its tool type's."""

    __slots__ = (
        "count",
        "ema",
        "inputs",
        "median",
        "offset",
        "quick",
        "recent",
        "spread",
        "tool_type",
    )

    def __init__(self, tool_type: str, offset: float, spread: float, value: float) -> None:
        self.tool_type = tool_type
        self.offset = self.quick = offset
        self.spread = spread
        self.count = 0
        self.recent: deque[float] = deque(maxlen=_RECENT)
        self.ema = self.median = value
        self.inputs = _Inputs()


class _Tool:
    """The level of one tool type above the cluster's."""

    __slots__ = ("count", "ema", "level", "newcomer", "run", "spread", "xx", "xy")

    def __init__(self) -> None:
        self.level = self.newcomer = self.ema = 0.0
        self.count = self.run = 0
        self.spread = _FIRST_SPREAD
        self.xy = self.xx = 0.0  # of effects foretold and found

    @property
    def worth(self) -> float:
        """How much of a remembered effect still holds, 0.1 to 1.5: it changes with the backend."""
        return 1.0 + min(0.5, max(-0.9, self.xy / (self.xx + _WORTH_RIDGE)))


class History:
    """The recent past of every function and tool type that was observed.

    Not thread-safe: its owner serialises the calls.

    >>> history = History([Observation("task1_ocr", "vlm_process", 0.0, 8.0)])
    >>> round(history.function_seconds("task1_ocr"), 3)
    8.0
    """

    __slots__ = ("_cluster", "_functions", "_tools")

    def __init__(self, observations: Iterable[Observation] = ()) -> None:
        self._cluster = 0.0
        self._functions: dict[str, _Function] = {}
        self._tools: dict[str, _Tool] = {}
        for observation in sorted(observations, key=lambda o: o.end):
            self.observe(observation)

    def observe(self, observation: Observation) -> None:
        """Take in one execution that has ended; call in order of their ends."""
        value = observation.log_seconds
        tool = self._tools.get(observation.tool_type)
        if tool is None:
            tool = self._tools[observation.tool_type] = _Tool()
        x, key = _inputs(observation.features)
        function = self._functions.get(observation.function)
        if function is None:
            offset = value - self._cluster - tool.level
            function = _Function(observation.tool_type, offset, tool.spread, value)
            self._functions[observation.function] = function
        else:
            effect = function.inputs.effect(x, key)[0] if x is not None else 0.0
            self._follow(function, tool, value, effect)
        function.count += 1
        function.recent.append(value)
        function.median = _median(function.recent)
        own = value - self._cluster - tool.level
        tool.newcomer += (own - tool.newcomer) * (_EMA_RATE if tool.count else 1.0)
        tool.ema += (value - tool.ema) * (_EMA_RATE if tool.count else 1.0)
        tool.count += 1
        if x is not None:
            known = function.count > 1
            effect = value - self._level(function, tool) if known else 0.0
            function.inputs.learn(x, key, effect)

    def snapshot(
        self,
        function: str,
        tool_type: str,
        at: float,
        features: Sequence[float] = (),
        context: tuple[str, ...] = (),
    ) -> tuple[float, ...]:
        """`FEATURES` of a task of `function` with these `features` that starts `at`.

        All NaN while the tool type is unknown; a function not seen yet starts from
        what new functions of its tool type took.
        """
        tool = self._tools.get(tool_type)
        if tool is None:
            return _UNKNOWN
        known = self._functions.get(function)
        if known is None:
            level = self._cluster + tool.level + tool.newcomer
            return (level, 0.0, _NAN, 0.0, 0.0, 0.0, _NAN, _NAN, _NAN, tool.ema - level)
        effect = same = mass = 0.0
        x, key = _inputs(features)
        if x is not None:
            effect, same, mass = known.inputs.effect(x, key)
            effect *= tool.worth
        level = self._level(known, tool) + effect
        return (
            level,
            effect,
            known.spread,
            math.log1p(known.count),
            math.log1p(same),
            math.log1p(mass),
            known.ema - level,
            known.recent[-1] - level,
            known.median - level,
            tool.ema - level,
        )

    def function_seconds(
        self, function: str, features: Sequence[float] = (), context: tuple[str, ...] = ()
    ) -> float | None:
        """What `function` takes lately, with inputs like `features`, in seconds.

        The median of its first few; from then on its level and the effect of the inputs.
        """
        known = self._functions.get(function)
        if known is None:
            return None
        if known.count < _SETTLED:
            return math.exp(known.median)
        level = self.snapshot(function, known.tool_type, 0.0, features)[0]
        return math.exp(level)

    def tool_seconds(self, tool_type: str) -> float | None:
        """What functions of `tool_type` take lately, in seconds."""
        tool = self._tools.get(tool_type)
        return None if tool is None else math.exp(self._cluster + tool.level + tool.newcomer)

    def _level(self, function: _Function, tool: _Tool) -> float:
        quick = function.quick - function.offset
        limit = max(function.spread, _LEAST_SPREAD)
        return self._cluster + tool.level + function.offset + _beyond(quick, limit)

    def _follow(self, function: _Function, tool: _Tool, value: float, raw: float) -> None:
        """Move the levels towards `value`; `raw` is the effect that its inputs had before."""
        effect = raw * tool.worth
        level = self._level(function, tool)
        error = _held(value - level - effect)
        if raw:
            scale = 1.25 * max(function.spread, _LEAST_SPREAD / 2.0)
            missed = min(3.0, max(-3.0, (value - level - raw) / scale))
            tool.xy = _WORTH_DECAY * tool.xy + missed * raw / scale
            tool.xx = _WORTH_DECAY * tool.xx + (raw / scale) ** 2
        tool.run = _run(tool.run, error, function.spread)
        rate = max(_FUNCTION_RATE, 1.0 / (function.count + 1))
        jump = 0.0
        if rate == _FUNCTION_RATE:  # one that is still being learnt says nothing about the others
            patience = _JUMP / max(1, min(abs(tool.run), _LONGEST_RUN))
            jump = _beyond(error, patience * max(function.spread, _LEAST_SPREAD))
        own = value - effect - self._cluster - tool.level
        function.quick += max(_QUICK_RATE, rate) * _held(own - function.quick)
        function.offset += min(rate, 0.9) * _held(own - function.offset)
        tool.level += _TOOL_RATE * (error - jump) + _TOOL_JUMP * jump
        self._cluster += _CLUSTER_JUMP * jump
        miss = min(abs(error), 3.0 * function.spread)
        rate = max(_FUNCTION_SPREAD_RATE, 1.0 / (function.count + 2))
        function.spread += rate * (miss - function.spread)
        tool.spread += _TOOL_SPREAD_RATE * (miss - tool.spread)
        function.ema += _EMA_RATE * (value - function.ema)


_NAN = math.nan
_UNKNOWN = (_NAN,) * len(FEATURES)


def replay(
    observations: Sequence[Observation], contexts: Sequence[tuple[str, ...]] | None = None
) -> Iterator[tuple[float, ...]]:
    """A snapshot per observation, in the order given, each of what had ended when it started.

    `contexts` are those known before the tasks ran, where they are not what they ran with.
    """
    history = History()
    snapshots: list[tuple[float, ...]] = [()] * len(observations)
    for i, ended in timeline(observations):
        for j in ended:
            history.observe(observations[j])
        task = observations[i]
        snapshots[i] = history.snapshot(
            task.function,
            task.tool_type,
            task.start,
            task.features,
            task.context if contexts is None else contexts[i],
        )
    return iter(snapshots)


def timeline(tasks: Sequence[Timed]) -> Iterator[tuple[int, list[int]]]:
    """Every task in order of start, with those that have ended since the one before it started.

    Both are positions in `tasks`; the ended ones come in order of their ends. Whoever learns
    from them before predicting the task knows what was known, and nothing more.
    """
    running: list[tuple[float, int]] = []
    for i in sorted(range(len(tasks)), key=lambda i: tasks[i].start):
        ended = []
        while running and running[0][0] <= tasks[i].start:
            ended.append(heapq.heappop(running)[1])
        yield i, ended
        heapq.heappush(running, (tasks[i].end, i))


def _inputs(features: Sequence[float]) -> tuple[Vector | None, bytes]:
    """Features on a logarithmic scale, 0 where missing, and what identifies them; None: all are."""
    values = [
        0.0 if value != value else math.copysign(math.log1p(abs(value)), value)
        for value in features
    ]
    if not any(value == value for value in features):
        return None, b""
    x = np.array(values, dtype=np.float32)
    return x, x.tobytes()


def _run(run: int, error: float, spread: float) -> int:
    """How many errors in a row lay beyond a spread, on one side; its sign is the side."""
    if abs(error) <= spread:
        return 0
    if error > 0:
        return run + 1 if run > 0 else 1
    return run - 1 if run < 0 else -1


def _beyond(value: float, limit: float) -> float:
    """What of `value` lies beyond ± `limit`."""
    return value - limit if value > limit else value + limit if value < -limit else 0.0


def _held(value: float) -> float:
    return -_MOST_ERROR if value < -_MOST_ERROR else min(value, _MOST_ERROR)


def _median(values: deque[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2.0
