"""Regimes: levels that a function returns to, and which of them holds now.

A backend comes and goes, a node is crowded in the evenings: a function then takes what it took
before under the same conditions. Each function in its context remembers up to `_LEVELS` levels of
log-seconds. Which one holds is inferred, as in a hidden Markov model with one chain per function,
from where it was last and how rarely it moves (learnt per function), and from the levels that the
functions which ran lately are at: how often each of those went with each of this one's levels is
counted. Functions that have known one level only say nothing, and cost nothing; those that no tool
type claims are no evidence either, as reading a file takes what it takes. After a pause, as between
two runs, what was known before counts less: the first executions after it tell what holds now.

Memory is bounded: few levels a function, and a bounded number of companions a level.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

from malearn.kernel.estimation import shared_changes
from malearn.kernel.estimation.robust import weighted_median
from malearn.kernel.estimation.shared_changes import Moves

__all__ = ["LEAST_SCALE", "FunctionRegimes", "Regimes"]

LEAST_SCALE = 0.15  # log-seconds; what differs by less is one level

_LEVELS = 3  # remembered per function and context
_FAR = 4.5  # scales from every level on which a new one begins
_RATE, _SCALE_RATE = 0.1, 0.1  # by which a level and its scale take in one more execution
_MOST = 50.0  # executions that a level counts at most
_SCALE = 0.2  # of a level seen once
_WIDER = 0.5  # share of the scale of the nearest level that a new one starts with

# How likely a function stays where it is, by so many executions, until seen otherwise.
_STAY, _STAY_PRIOR, _STAY_MOST = 0.9, 4.0, 30.0

# What others are at: so many of those that ran last, each counting less than the one after it.
_COMPANIONS, _FADES, _EVIDENCE = 8, 0.8, 1.0
_UNSEEN, _FORGETS = 0.2, 0.8
_KEPT = 6  # executions of any function for which a belief is kept
# In doubt: so many own executions after a move; so many of any after others moved; less sure.
_SURE_AFTER, _LATELY, _SELDOM, _SURE = 3, 30, 0.6, 0.9
# What is known of a function counts so much less with each execution of any other; a pause counts
# as so many of them.
_AGES, _OLDEST, _PAUSE = 0.95, 200, 20
_AGE_POWERS = [_AGES**age for age in range(_OLDEST + 1)]
# The log-likelihood of another's level while nothing was counted, by how many it has: all are
# equally likely.
_UNKNOWN = [-math.log(max(count, 1)) for count in range(_LEVELS + 1)]
_REMEMBERED = 64  # functions that ran last; companions of a level


class _Companion:
    """At which of its levels another function was while this one was at a level of its own."""

    __slots__ = ("_counts", "_logs", "_total")

    def __init__(self) -> None:
        self._counts: dict[int, float] = {}  # by the number of the other's level
        self._total = 0.0
        self._logs: dict[int, float] = {}

    def add(self, number: int, weight: float) -> None:
        """It was at the level of that number; what was before counts less."""
        counts = {known: count * _FORGETS for known, count in self._counts.items()}
        counts[number] = counts.get(number, 0.0) + weight
        if len(counts) > _LEVELS:
            # The other one remembers no more levels than this; the rest are ones it has dropped.
            del counts[min(counts, key=counts.__getitem__)]
        self._counts, self._total = counts, sum(counts.values())
        self._logs = {}

    def has_met(self, number: int) -> bool:
        """Whether it was at the level of that number."""
        return number in self._counts

    def log_likelihood(self, number: int, levels: int) -> float:
        """The logarithm of how likely it is at the level of that number, of so many."""
        found = self._logs.get(number)
        if found is None:
            # Lidstone smoothing: a level never met there is unlikely, not impossible.
            seen = self._counts.get(number, 0.0) + _UNSEEN / levels
            found = self._logs[number] = math.log(seen / (self._total + _UNSEEN))
        return found


class _Level:
    """One level: log-seconds, scale, executions, and what others were at, by their number."""

    __slots__ = ("companions", "count", "number", "scale", "value")

    def __init__(self, number: int, value: float, scale: float) -> None:
        self.number, self.value, self.scale = number, value, scale
        self.count = 1.0
        self.companions: dict[int, _Companion] = {}


class FunctionRegimes:
    """The levels of one function in one context, and the one that it was at last."""

    __slots__ = (
        "aged",
        "at",
        "began",
        "believed",
        "believed_at",
        "current",
        "expected",
        "level",
        "levels",
        "moves",
        "number",
        "since",
        "stay",
        "tool_type",
        "total",
    )

    def __init__(self) -> None:
        self.number = 0  # by which the others know it, from its first execution on
        self.tool_type = ""  # … and what it is, empty where no tool type claims it
        self.at = 0  # the execution, of any function, that was its last
        self.aged = 0  # … and how old all that is known was then
        self.began = 0  # the execution, of any function, that was its first
        self.level = 0  # the number of the level that it was at last
        self.since = 0  # own executions since it moved to another level
        self.believed: list[float] = []  # kept for a while
        self.believed_at = 0
        self.expected: float | None = None  # … by what is believed, once it was asked for
        self.levels: list[_Level] = []
        self.current: _Level | None = None
        self.moves = Moves()
        self.stay, self.total = _STAY * _STAY_PRIOR, _STAY_PRIOR

    def has_met(self, number: int, level: int) -> bool:
        """Whether the function of that number was at that level of its own when this one ran."""
        met = (one.companions.get(number) for one in self.levels)
        return any(went is not None and went.has_met(level) for went in met)


class Regimes:
    """Which level each function is at, and what goes with it. Not thread-safe."""

    __slots__ = (
        "_aged",
        "_any_moved",
        "_moved",
        "_number",
        "_recent",
        "count",
    )

    def __init__(self) -> None:
        self.count = 0  # executions of any function
        self._aged = 0  # … and what pauses count as
        self._any_moved = 0  # … when any moved last
        self._moved = -_LATELY  # … when one that seldom moves moved last
        self._number = 0
        # Of those that a tool type claims, by number; the one that ran last is last.
        self._recent: dict[int, FunctionRegimes] = {}

    def pause(self) -> None:
        """Nothing ran for a while: what is known is older, and other levels may hold."""
        self._aged += _PAUSE
        self._any_moved = self.count + 1  # beliefs that are kept were formed before it

    def believed(self, function: FunctionRegimes) -> list[float]:
        """How likely each level of `function` holds now; sums to 1."""
        # Between moves of others a belief fades slowly, so it is good for a few executions.
        if (
            function.believed_at <= max(function.at, self._any_moved)
            or self.count - function.believed_at >= _KEPT
        ):
            # One later than the execution that was counted last, which it includes.
            function.believed, function.believed_at = self._believed(function), self.count + 1
            function.expected = None
        return function.believed

    def in_doubt(self, function: FunctionRegimes) -> bool:
        """Whether it is open which level holds: this one moved, others did, or they disagree."""
        if function.since < _SURE_AFTER and len(function.levels) > 1:
            return True
        if function.levels and self._moved > function.at and self.count - self._moved < _LATELY:
            return True
        return len(function.levels) > 1 and max(self.believed(function)) < _SURE

    def apart(self, function: FunctionRegimes, level: float) -> float:
        """How far from `level` what may hold lies, on average, in log-seconds."""
        if len(function.levels) < 2:
            return 0.0
        return sum(
            share * abs(found.value - level)
            for found, share in zip(function.levels, self.believed(function), strict=True)
        )

    def _believed(self, function: FunctionRegimes) -> list[float]:
        levels, current = function.levels, function.current
        if len(levels) == 1:
            return [1.0]
        stays = function.stay / function.total
        others = sum(math.sqrt(level.count) for level in levels if level is not current) or 1.0
        logs = [
            math.log(
                stays
                if level is current
                # The floor keeps a function that never moved from ruling out that it ever does.
                else max((1.0 - stays) * math.sqrt(level.count) / others, 1e-3)
            )
            for level in levels
        ]
        # The older it is, the less its own last level counts.
        age = _AGE_POWERS[min(self._aged - function.aged, _OLDEST)]
        logs = [age * log for log in logs]
        weight, now = _EVIDENCE, self._aged
        for other in self._telling(function):
            count = len(other.levels)
            says = weight * _AGE_POWERS[min(now - other.aged, _OLDEST)]
            number, at, unknown = other.number, other.level, _UNKNOWN[count]
            for i, level in enumerate(levels):
                went = level.companions.get(number)
                likely = unknown if went is None else went.log_likelihood(at, count)
                logs[i] += says * likely
            weight *= _FADES
        # Relative to the greatest, so that exp neither overflows nor loses all of them.
        most = max(logs)
        shares = [math.exp(log - most) for log in logs]
        total = sum(shares)
        return [share / total for share in shares]

    def _telling(self, function: FunctionRegimes) -> Iterator[FunctionRegimes]:
        """Those that ran lately and have known several levels, latest first."""
        several = (
            other
            for other in reversed(self._recent.values())
            if len(other.levels) > 1 and other is not function
        )
        return islice(several, _COMPANIONS)

    def expected(self, function: FunctionRegimes) -> float:
        """The log-seconds to expect: the median of what may hold."""
        believed = self.believed(function)
        # A function's levels move with its own executions only, and those end a belief.
        if function.expected is None:
            # A median, since a mean would lie between two levels, where the function never is.
            levels = [level.value for level in function.levels]
            function.expected = weighted_median(zip(levels, believed, strict=True))
        return function.expected

    def followed(self, function: FunctionRegimes) -> float | None:
        """The log-seconds to expect of one that has not run since others moved.

        None where it has, or nothing is known of that, and where it returns to levels of its own.
        """
        if self._any_moved <= function.at or not function.tool_type:
            return None
        return shared_changes.believed(
            function,
            reversed(self._recent.values()),
            lambda age: _AGE_POWERS[min(age, _OLDEST)],
            single=len(function.levels) == 1,
        )

    def observe(self, function: FunctionRegimes, value: float, tool_type: str = "") -> float:
        """Take in an execution of `function`; returns the level that it was at."""
        function.tool_type = tool_type
        if not function.levels:
            function.number = self._number = self._number + 1
            function.began = self.count + 1
            found = self._begin(function, value, _SCALE)
        else:
            found = self._found(function, value)
            scale = max(found.scale, LEAST_SCALE)
            error = value - found.value
            if abs(error) > _FAR * scale:
                # A new level borrows some of its neighbour's scale, or its second execution may
                # already begin another.
                found = self._begin(function, value, max(_SCALE, _WIDER * found.scale))
            else:
                found.count = min(found.count + 1.0, _MOST)
                rate = max(_SCALE_RATE, 1.0 / (found.count + 2.0))
                found.scale += rate * (min(abs(error), 3.0 * scale) - found.scale)
                rate = max(_RATE, 1.0 / found.count)
                found.value += rate * max(-2.0 * scale, min(2.0 * scale, error))
        self._move(function, found)
        self._accompany(function, found)
        return found.value

    def _found(self, function: FunctionRegimes, value: float) -> _Level:
        """The level that explains `value` best."""
        best, found = -math.inf, function.levels[0]
        for level, share in zip(function.levels, self.believed(function), strict=True):
            scale = max(level.scale, LEAST_SCALE)
            # Laplace's distribution, whose tails forgive outliers; a level that nobody expects
            # may still be the one, hence the floor under its share.
            likely = math.log(share + 1e-3) - abs(value - level.value) / scale - math.log(scale)
            if likely > best:
                best, found = likely, level
        return found

    def _begin(self, function: FunctionRegimes, value: float, scale: float) -> _Level:
        """A new level; the one seen least often makes room for it."""
        levels = function.levels
        if len(levels) >= _LEVELS:
            # The current level stays, however new: where the function was last is what is sure.
            others = [level for level in levels if level is not function.current] or levels
            levels.remove(min(others, key=lambda level: level.count))
        self._number += 1
        new = _Level(self._number, value, scale)
        levels.append(new)
        return new

    def _move(self, function: FunctionRegimes, found: _Level) -> None:
        if function.current is not None:
            function.stay += found is function.current
            function.total += 1.0
            if function.total > _STAY_MOST:
                function.stay *= _STAY_MOST / function.total
                function.total = _STAY_MOST
        if function.current is not None and found is not function.current:
            at = self.count + 1
            # Not across a pause: what then returns was no outlier, but another backend.
            brief = function.since == 1 and self._aged - function.aged < _PAUSE
            function.moves.add(at, function.current, found, function.at, brief=brief)
            function.since, self._any_moved = 0, at
            # One that moves all the time says nothing of a change that others share.
            if function.stay > _SELDOM * function.total:
                self._moved = at
        function.since += 1
        function.current, function.level = found, found.number

    def _accompany(self, function: FunctionRegimes, found: _Level) -> None:
        """Count what others are at while `function` is at `found`."""
        weight, companions = 1.0, found.companions
        for other in islice(reversed(self._recent.values()), _COMPANIONS):
            if other is function:
                continue
            went = companions.pop(other.number, None) or _Companion()
            went.add(other.level, weight)
            companions[other.number] = went  # the most recently met last
            weight *= _FADES
        while len(companions) > _REMEMBERED:
            del companions[next(iter(companions))]
        self.count += 1
        self._aged += 1
        function.at, function.aged = self.count, self._aged
        if not function.tool_type:
            return
        self._recent.pop(function.number, None)
        self._recent[function.number] = function
        if len(self._recent) > _REMEMBERED:
            del self._recent[next(iter(self._recent))]
