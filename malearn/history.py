"""What a function, and its tool type, took lately, as known at a given moment.

A `History` is a fold over finished executions in order of their end: training
replays it point in time (`replay`), the scheduler feeds it as tasks finish.
One implementation, so both see the same numbers. Nothing of it is stored but
recent executions; whoever needs one replays them.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

__all__ = ["FEATURES", "History", "Observation", "replay"]

#: What `History.snapshot` gives, in matrix order. Times in log-seconds, ages in log-seconds too.
FEATURES: tuple[str, ...] = (
    "level",
    "function_ema_fast",
    "function_ema_slow",
    "function_median",
    "function_spread",
    "function_count",
    "function_age",
    "tool_ema_fast",
    "tool_ema_slow",
    "tool_count",
)

_RECENT = 20
_FAST, _SLOW = 0.3, 0.05


@dataclass(frozen=True, slots=True)
class Observation:
    """One finished execution, as much of it as a history needs.

    `features` are the numbers the prediction was made from, in declared order,
    NaN where missing. `start` and `end` are seconds since the epoch.
    """

    function: str
    tool_type: str
    start: float
    end: float
    features: tuple[float, ...] = ()

    @property
    def log_seconds(self) -> float:
        return math.log(max(self.end - self.start, 1e-3))


@dataclass(slots=True)
class _Level:
    """Recency-weighted levels of log-seconds of one function or one tool type."""

    fast: float = math.nan
    slow: float = math.nan
    spread: float = math.nan
    count: int = 0
    last_end: float = math.nan
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def add(self, value: float, end: float) -> None:
        if self.count == 0:
            self.fast = self.slow = value
            self.spread = 0.5
        else:
            self.spread += _FAST * (abs(value - self.fast) - self.spread)
            self.fast += _FAST * (value - self.fast)
            # A running mean at first, so that one odd first value does not linger.
            self.slow += max(_SLOW, 1.0 / (self.count + 1)) * (value - self.slow)
        self.count += 1
        self.last_end = end
        self.recent.append(value)

    @property
    def median(self) -> float:
        if not self.recent:
            return math.nan
        ordered = sorted(self.recent)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


class History:
    """The recent past of every function and tool type that was observed.

    Not thread-safe: its owner serialises `observe`.
    """

    __slots__ = ("_functions", "_tools")

    def __init__(self, observations: Iterable[Observation] = ()) -> None:
        self._functions: dict[str, _Level] = {}
        self._tools: dict[str, _Level] = {}
        for observation in sorted(observations, key=lambda o: o.end):
            self.observe(observation)

    def observe(self, observation: Observation) -> None:
        """Take in one execution that has ended; call in order of their ends."""
        value = observation.log_seconds
        for levels, key in (
            (self._functions, observation.function),
            (self._tools, observation.tool_type),
        ):
            level = levels.get(key)
            if level is None:
                level = levels[key] = _Level()
            level.add(value, observation.end)

    def snapshot(
        self, function: str, tool_type: str, at: float, features: Sequence[float] = ()
    ) -> tuple[float, ...]:
        """`FEATURES` of a task of `function` that starts `at`; NaN where nothing is known.

        The first, `level`, is the log-seconds a prediction starts from: the
        function's, else the tool type's.
        """
        f = self._functions.get(function) or _NOTHING
        t = self._tools.get(tool_type) or _NOTHING
        level = f.fast if f.count else t.fast
        age = math.log1p(max(at - f.last_end, 0.0)) if f.count else math.nan
        return (
            level,
            f.fast,
            f.slow,
            f.median,
            f.spread,
            math.log1p(f.count),
            age,
            t.fast,
            t.slow,
            math.log1p(t.count),
        )

    def function_seconds(self, function: str) -> float | None:
        """The recent median of `function`, in seconds."""
        return _seconds(self._functions.get(function))

    def tool_seconds(self, tool_type: str) -> float | None:
        """The recent median of `tool_type`, in seconds."""
        return _seconds(self._tools.get(tool_type))


_NOTHING = _Level()


def replay(observations: Sequence[Observation]) -> Iterator[tuple[float, ...]]:
    """A snapshot per observation, in the order given, each of what had ended when it started."""
    history = History()
    order = sorted(range(len(observations)), key=lambda i: observations[i].start)
    snapshots: list[tuple[float, ...]] = [()] * len(observations)
    running: list[tuple[float, int]] = []
    for i in order:
        task = observations[i]
        while running and running[0][0] <= task.start:
            history.observe(observations[heapq.heappop(running)[1]])
        snapshots[i] = history.snapshot(task.function, task.tool_type, task.start, task.features)
        heapq.heappush(running, (task.end, i))
    return iter(snapshots)


def _seconds(level: _Level | None) -> float | None:
    return math.exp(level.median) if level is not None and level.count else None
