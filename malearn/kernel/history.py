"""What a function, and its tool type, took lately, as known at a given moment.

A `History` is a fold over finished executions in order of their end: training
replays it point in time (`replay`), the scheduler feeds it as tasks finish.
One implementation, so both see the same numbers. Nothing of it is stored but
recent executions; whoever needs one replays them.

It explains log-seconds as a sum::

    cluster + tool type + function in its context + effect of the inputs + noise

Levels follow the errors slowly. What of an error exceeds several times the
usual is taken for a change of regime (another backend, a crowded node) and
moves the tool type and the cluster at once, so that functions which have not
run since move too. That is a wager, and three things temper it:

- How much of a jump lasts, per tool type and by how many errors in a row agreed
  with it: later jumps move the others, and its own function, that much less.
- What of a jump the next execution of the same function does not bear out is
  taken back, as far as it still stands.
- How much of what others moved a function turns out to have moved itself, per
  tool type and per function: so much of the next such move it follows. All of
  it to begin with, but nothing of what came from another context.

A context is what a task ran with: words such as a model, a backend, a node. A
function has a level in each. A new context starts from the sum of what its
function takes anywhere and what its words did to other functions. A word that
is not known stands for any: the level is then the mean over the contexts that
agree on the others, by how often the function ran in them lately.

Effects are remembered for identical inputs of a function in its context, else
estimated from similar ones, and weighed by what such estimates have been worth
lately.

Memory is bounded: the functions, contexts and words seen least recently go first.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["FEATURES", "History", "Observation", "Timed", "replay", "timeline"]

#: What `History.snapshot` gives, in matrix order. `level` is the log-seconds to expect;
#: `median`, of the last 20, and `mean`, of the last few hundred, are log-seconds less `level`;
#: the others are the effect of the inputs and the usual error, in log-seconds, and the logarithms
#: of how often these inputs were seen and of the weight of similar ones. What only tells how far
#: a log has come (counts, last times) is none of it: a model takes that for what happened then.
FEATURES: tuple[str, ...] = (
    "level",
    "effect",
    "spread",
    "same_count",
    "similar_mass",
    "median",
    "mean",
)

_LEVEL, _EFFECT = FEATURES.index("level"), FEATURES.index("effect")
_COUNTS = [FEATURES.index("same_count"), FEATURES.index("similar_mass")]
_BESIDE_LEVEL = [FEATURES.index(name) for name in ("median", "mean")]

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
_NEWCOMER_RATE = 0.3
_RECENT = 20  # of which `median` is taken
# `mean` takes in an execution by this share, once there were as many, and by no more than
# `_FAR` spreads of it.
_MEAN_RATE, _FAR = 1.0 / 300.0, 2.0
_SETTLED = 5  # executions of a function before its level says more than their median

# How much of a jump lasts: all of it until seen otherwise, as firmly as `_LASTING_PRIOR` jumps of
# a spread would say, by the last `_LASTING_MOST`. Outcomes are noisy, so two thirds count as all.
_LASTING_PRIOR, _LASTING_MOST, _LASTING_GAIN, _BIGGEST_JUMP = 4.0, 30.0, 1.5, 3.0
# How much of what others moved a function moves too: a move of n spreads weighs n², at most
# `_BIGGEST_MOVE`; the tool type speaks for a function until that has seen `_FOLLOWS_OWN`.
_FOLLOWS_PRIOR, _FOLLOWS_OWN, _FOLLOWS_MOST, _BIGGEST_MOVE = 25.0, 50.0, 400.0, 50.0
_FOLLOWS_OTHERS = 0.0  # how much of what came from other contexts, until seen otherwise

# Contexts: variances, in squared log-seconds, of what is not known of a word and of what
# function and words do not add up to.
_WORD_DOUBT, _LEAST_DOUBT, _MISFIT = 0.25, 0.005, 0.04
_LATELY = 0.95  # an earlier execution of the function counts so much less, one by one

# What is remembered at most: functions, each of their contexts counted; contexts of one function;
# contexts, and words of context, of a tool type.
_LINES, _CONTEXTS, _WORDS = 2048, 64, 512

# Effects of inputs.
_EFFECT_RATE = 0.3
_REMEMBERED = 128  # per function, for similar inputs
_IDENTICAL = 512  # per function, for identical ones
_EXACT, _NEAR, _WIDTH, _FARTHEST, _PRIOR = 4.0, 2.0, 0.1, 2.0, 1.0  # see `_Inputs.similar`
_WORTH_RIDGE, _WORTH_DECAY = 25.0, 0.98

_AT_ONCE = 256  # features whose differences from the ring stay in a processor's cache

Table = NDArray[np.float64]
Context = tuple[str, ...]
_log1p = math.log1p
_LOGARITHMS = [-math.inf, *map(math.log, range(1, _REMEMBERED + 3))]


class Timed(Protocol):
    """What ran from `start` to `end`, seconds since the epoch."""

    @property
    def start(self) -> float: ...

    @property
    def end(self) -> float: ...


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
        return math.log(max(self.end - self.start, _FLOOR))


class _Share:
    """What share of things foretold came true: a weighted mean that forgets the oldest."""

    __slots__ = ("_mass", "_most", "mean")

    def __init__(self, mean: float, mass: float, most: float) -> None:
        self.mean, self._mass, self._most = mean, mass, most

    def learn(self, share: float, weight: float) -> None:
        self._mass += weight
        self.mean += weight / self._mass * (share - self.mean)
        self._mass = min(self._mass, self._most)


class _Inputs:
    """The effects that inputs had on one function: identical ones, and the last ones in a ring."""

    __slots__ = (
        "_farthest",
        "_identical",
        "_logs",
        "_room",
        "_scale",
        "_scaled",
        "_seen",
        "_shares",
        "_taken",
        "_total",
    )

    def __init__(self) -> None:
        self._identical: dict[bytes, list[float]] = {}  # effect and count
        self._clear(0)

    def __getstate__(self) -> dict[str, object]:
        # A view that is pickled comes back as an array of its own, which nobody writes to.
        made = ("_farthest", "_room", "_taken")
        return {name: getattr(self, name) for name in self.__slots__ if name not in made}

    def __setstate__(self, state: dict[str, object]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._make_room()

    def effect(self, x: Sequence[float], key: bytes) -> tuple[float, float, float]:
        """Effect on log-seconds, times seen exactly so, and the weight of what was similar."""
        identical = self._identical.get(key)
        if identical is not None:
            return identical[0], identical[1], 0.0
        effect, mass = self.similar(x)
        return effect, 0.0, mass

    def effects(self, rows: Table) -> Table:
        """As `effect`, one row for each of `rows`."""
        found = np.zeros((len(rows), 3))
        raw, size = rows.tobytes(), rows.shape[1] * rows.itemsize
        unseen = []
        for row in range(len(rows)):
            identical = self._identical.get(raw[row * size : (row + 1) * size])
            if identical is None:
                unseen.append(row)
            else:
                found[row, :2] = identical
        if unseen and 0 < rows.shape[1] == len(self._scale):
            found[unseen, ::2] = self._similar_many(rows[unseen])
        return found

    def similar(self, x: Sequence[float]) -> tuple[float, float]:
        """The weighted mean effect of earlier inputs like `x`, and their weight.

        An earlier one weighs exp(4·surprise) − 1 + 2·exp(−distance ÷ 0.1). Its
        surprise: over the features that are exactly equal, minus the logarithm of
        how often that value occurs, averaged over all; sharing a rare value is
        strong evidence. Its distance: the mean difference over the features in
        standard deviations, each at most 2. Features count on a logarithmic scale.
        """
        width = len(self._scale)
        if len(x) != width:
            return 0.0, 0.0
        n = min(self._seen, _REMEMBERED)
        own, apart, unequal, both, weights, rarities = self._room
        # A scheduler waits for this: few calls of numpy, over room that is there already, and
        # products where it would sum.
        own[:, 0] = [
            _log1p(v) * s if v >= 0.0 else -_log1p(-v) * s
            for v, s in zip(x, self._scale, strict=True)
        ]
        np.absolute(np.subtract(self._scaled, own, apart), apart)
        np.ceil(np.minimum(apart, self._farthest, out=apart), unequal)
        rarest, worth = _LOGARITHMS[n + 2], _EXACT / width
        rarities[:] = rarity = [
            (_LOGARITHMS[n + 1 - int(others)] - rarest) * worth
            for others in unequal.dot(self._taken).tolist()
        ]
        exponents = weights.dot(both)
        exact, near = np.exp(exponents, exponents).dot(self._shares).tolist()
        equal = math.exp(-sum(rarity))
        mass = equal * exact[1] - n + _NEAR * near[1]
        return (equal * exact[0] - self._total + _NEAR * near[0]) / (mass + _PRIOR), mass

    def _similar_many(self, rows: Table) -> Table:
        """As `similar`, one row for each of `rows`."""
        width, shares = len(self._scale), self._shares
        size, n = len(shares), min(self._seen, _REMEMBERED)
        decay = np.float32(_decay(width))
        logs = np.copysign(np.log1p(np.abs(rows)), rows)
        own = (logs * self._scale).astype(np.float32).T[:, :, None]  # by feature, row, place
        found = np.empty((len(rows), 2))
        count = min(max(_AT_ONCE // width, 1), len(rows))
        room = np.empty((2, width, count, size), np.float32)
        for start in range(0, len(rows), count):
            some = own[:, start : start + count]
            apart, unequal = room[:, :, : some.shape[1]]
            np.abs(np.subtract(self._scaled[:, None], some, out=apart), out=apart)
            np.ceil(np.clip(apart, 0.0, 1.0, out=apart), out=unequal)
            others = unequal[:, :, :n].sum(axis=2)  # no product: BLAS would start threads for it
            rarity = np.log((n + 1.0 - others) / (n + 2.0)) * np.float32(_EXACT / width)
            unequal *= rarity[:, :, None]
            exact = np.exp(unequal.sum(axis=0)) @ shares
            near = np.exp(apart.sum(axis=0) * decay) @ shares
            equal = np.exp(-rarity.sum(axis=0))[:, None]
            found[start : start + count] = equal * exact - (self._total, n) + _NEAR * near
        found[:, 0] /= found[:, 1] + _PRIOR
        return found

    def learn(self, x: Sequence[float], key: bytes, effect: float) -> None:
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
        logs = [_log1p(value) if value >= 0.0 else -_log1p(-value) for value in x]
        self._place(logs, _held(effect))

    def _clear(self, width: int) -> None:
        """An empty ring of inputs of `width` features.

        Features by place, so that numpy runs along the ring. `_shares` are the
        effect of a place and one; a place that is not taken yet has neither.
        """
        self._seen, self._total = 0, 0.0
        self._logs = np.zeros((width, 0))
        self._scaled = np.zeros((width, 0), np.float32)
        self._scale = [1.0] * width
        self._shares = np.zeros((0, 2), np.float32)
        self._widen(0)

    def _widen(self, size: int) -> None:
        """Room for `size` places, and for comparing something with all of them."""
        more = ((0, 0), (0, size - len(self._shares)))
        self._logs, self._scaled = np.pad(self._logs, more), np.pad(self._scaled, more)
        self._shares = np.pad(self._shares, more[::-1])
        self._make_room()

    def _make_room(self) -> None:
        """Views of the shares, and arrays that are written over with each comparison."""
        width, size = self._scaled.shape
        self._taken = self._shares[:, 1]
        self._farthest = np.ones_like(self._scaled)
        own, both = np.zeros((width, 1), np.float32), np.zeros((2 * width, size), np.float32)
        weights = np.zeros((2, 2 * width), np.float32)
        weights[1, :width] = _decay(width)
        self._room = own, both[:width], both[width:], both, weights, weights[0, width:]

    def _place(self, logs: list[float], effect: float) -> None:
        if len(logs) != len(self._scale):
            self._clear(len(logs))
        i, size = self._seen % _REMEMBERED, len(self._shares)
        if i == size:
            self._widen(min(max(2 * size, 16), _REMEMBERED))
        shares = self._shares
        self._total += effect - float(shares[i, 0])
        shares[i] = effect, 1.0
        self._logs[:, i] = logs
        self._scaled[:, i] = [log * scale for log, scale in zip(logs, self._scale, strict=True)]
        self._seen += 1
        if self._seen < 10 or self._seen % 10 == 0:
            known = self._logs[:, : min(self._seen, _REMEMBERED)]
            # What is farthest from another is 1 from it.
            scale = 1.0 / ((known.std(axis=1) + 0.05) * _FARTHEST)
            self._scale = scale.tolist()
            self._scaled[:] = self._logs * scale[:, None]


class _Part:
    """What one function, or one word of context, adds to a level, and the variance of that."""

    __slots__ = ("doubt", "mean")

    def __init__(self, mean: float, doubt: float) -> None:
        self.mean, self.doubt = mean, doubt


class _Moves:
    """By how much the functions in one context moved their tool type's level, all in all."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0.0


@dataclass(slots=True)
class _Jump:
    """What an error taken for a change of regime moved, until the next one bears it out."""

    before: float  # the level that was wrong
    error: float
    agreed: int  # errors in a row on this side
    weight: float
    tool_before: float
    moved: float  # of the tool type's level


class _Line:
    """The level of one function in one context above its tool type's."""

    __slots__ = (
        "at",
        "count",
        "elsewhere",
        "follows",
        "inputs",
        "jump",
        "mean",
        "median",
        "moves",
        "offset",
        "quick",
        "recent",
        "seen",
        "spread",
        "told",
        "weight",
    )

    def __init__(
        self, offset: float, spread: float, value: float, moves: _Moves, told: int
    ) -> None:
        self.offset = self.quick = offset
        self.spread = spread
        self.told = told  # how many executions what was known before is worth
        self.count = 0
        self.recent: deque[float] = deque(maxlen=_RECENT)
        self.median = self.mean = value
        self.inputs = _Inputs()
        self.moves = moves
        self.seen = 0.0  # the shared level that `offset` stands on …
        self.elsewhere = 0.0  # … and the part of it that came from other contexts
        self.follows = _Share(0.0, _FOLLOWS_OWN, _FOLLOWS_MOST)  # beyond what the tool type's do
        self.jump: _Jump | None = None
        self.weight = 0.0  # how often lately, as of execution number `at` of the function
        self.at = 0


class _Function:
    """One function: its level in each context, latest last."""

    __slots__ = ("count", "lines", "part", "tool_type")

    def __init__(self, tool_type: str) -> None:
        self.tool_type = tool_type
        self.count = 0
        self.lines: dict[Context, _Line] = {}
        self.part: _Part | None = None

    def inputs(self, line: _Line | None) -> _Inputs | None:
        """What is known of inputs on `line`; where there is none, on the one seen last."""
        if line is None and self.lines:
            line = next(reversed(self.lines.values()))
        return None if line is None else line.inputs

    def agreeing(self, context: Context) -> list[_Line]:
        """The lines that say of every known word what `context` says, latest last."""
        if not any(context):
            return list(self.lines.values())
        known = [(i, word) for i, word in enumerate(context) if word]
        return [
            line
            for other, line in self.lines.items()
            if len(other) == len(context) and all(other[i] == word for i, word in known)
        ]


class _Tool:
    """The level of one tool type above the cluster's."""

    __slots__ = (
        "contexts",
        "count",
        "follows",
        "follows_others",
        "lasting",
        "level",
        "newcomer",
        "run",
        "spread",
        "words",
        "xx",
        "xy",
    )

    def __init__(self) -> None:
        self.level = self.newcomer = 0.0
        self.count = self.run = 0
        self.spread = _FIRST_SPREAD
        self.xy = self.xx = 0.0  # of effects foretold and found
        self.follows = _Share(1.0, _FOLLOWS_PRIOR, _FOLLOWS_MOST)
        self.follows_others = _Share(_FOLLOWS_OTHERS, _FOLLOWS_PRIOR, _FOLLOWS_MOST)
        self.contexts: dict[Context, _Moves] = {}
        self.lasting = [_Share(1.0, _LASTING_PRIOR, _LASTING_MOST) for _ in range(_LONGEST_RUN)]
        self.words: dict[tuple[int, str], _Part] = {}

    @property
    def worth(self) -> float:
        """How much of a remembered effect still holds, 0.1 to 1.5: it changes with the backend."""
        return 1.0 + min(0.5, max(-0.9, self.xy / (self.xx + _WORTH_RIDGE)))

    def lasts(self, agreed: int) -> float:
        """How much of a jump to believe that so many errors in a row agreed on, 0 to 1."""
        return _within_one(_LASTING_GAIN * self.lasting[agreed - 1].mean)

    def moves(self, context: Context) -> _Moves:
        """What the functions in `context` moved, for those that start there to watch."""
        found = self.contexts.pop(context, None) or _Moves()
        self.contexts[context] = found  # the most recently used last
        if len(self.contexts) > _WORDS:
            del self.contexts[next(iter(self.contexts))]
        return found

    def parts(self, context: Context) -> list[_Part]:
        """What the words of `context` that are known add, latest last from now on."""
        found = []
        for word in enumerate(context):
            if word[1]:
                part = self.words.pop(word, None) or _Part(0.0, _WORD_DOUBT)
                self.words[word] = part
                found.append(part)
        while len(self.words) > _WORDS:
            del self.words[next(iter(self.words))]
        return found


class History:
    """The recent past of every function and tool type that was observed.

    Not thread-safe: its owner serialises the calls.

    >>> history = History([Observation("task1_ocr", "vlm_process", 0.0, 8.0)])
    >>> round(history.function_seconds("task1_ocr"), 3)
    8.0
    """

    __slots__ = ("_cluster", "_functions", "_tools", "_used")

    def __init__(self, observations: Iterable[Observation] = ()) -> None:
        self._cluster = 0.0
        self._functions: dict[str, _Function] = {}
        self._tools: dict[str, _Tool] = {}
        self._used: dict[tuple[str, Context], None] = {}  # lines, the most recently used last
        for observation in sorted(observations, key=lambda o: o.end):
            self.observe(observation)

    def observe(self, observation: Observation) -> None:
        """Take in one execution that has ended; call in order of their ends."""
        value = observation.log_seconds
        tool = self._tools.get(observation.tool_type)
        if tool is None:
            tool = self._tools[observation.tool_type] = _Tool()
        function = self._functions.get(observation.function)
        if function is None:
            function = self._functions[observation.function] = _Function(observation.tool_type)
        context = observation.context if any(observation.context) else ()
        x, key = _inputs(observation.features)
        line = function.lines.pop(context, None)
        inputs = function.inputs(line)
        effect = inputs.effect(x, key)[0] if x is not None and inputs is not None else 0.0
        if line is None:
            line = self._begun(function, tool, context, value, effect * tool.worth)
        else:
            self._follow(line, tool, value, effect)
        function.lines[context] = line
        self._keep(observation.function, context)
        if len(function.lines) > _CONTEXTS:
            self._forget(observation.function, next(iter(function.lines)))
        self._see(line, tool)
        function.count += 1
        line.count += 1
        line.weight = line.weight * _LATELY ** (function.count - line.at) + 1.0
        line.at = function.count
        line.recent.append(value)
        line.median = _median(line.recent)
        far = _FAR * max(line.spread, _LEAST_SPREAD) if line.count > _SETTLED else _MOST_ERROR
        rate = max(_MEAN_RATE, 1.0 / line.count)
        line.mean += rate * min(far, max(-far, value - line.mean))
        own = value - line.seen
        self._divide(function, tool, context, own - effect * tool.worth)
        tool.newcomer += (own - tool.newcomer) * (_NEWCOMER_RATE if tool.count else 1.0)
        tool.count += 1
        if x is not None:
            found = value - self._level_seen(line, tool) if line.count > 1 else 0.0
            line.inputs.learn(x, key, found)

    def snapshot(
        self,
        function: str,
        tool_type: str,
        features: Sequence[float] = (),
        context: tuple[str, ...] = (),
    ) -> tuple[float, ...]:
        """`FEATURES` of a task of `function` with these `features` that starts now in `context`.

        All NaN while the tool type is unknown; a function not seen yet starts from
        what new functions of its tool type took.
        """
        tool = self._tools.get(tool_type)
        if tool is None:
            return _UNKNOWN
        known = self._functions.get(function)
        if known is None:
            level = self._cluster + tool.level + self._start(None, tool, context)
            return (level, 0.0, _NAN, 0.0, 0.0, _NAN, _NAN)
        effect = same = mass = 0.0
        x, key = _inputs(features)
        line, level, spread = self._expected(known, tool, context)
        inputs = known.inputs(line)
        if x is not None and inputs is not None:
            effect, same, mass = inputs.effect(x, key)
            effect *= tool.worth
        level += effect
        median, mean = (_NAN, _NAN) if line is None else (line.median, line.mean)
        return (
            level,
            effect,
            spread,
            _log1p(same),
            _log1p(mass),
            median - level,
            mean - level,
        )

    def snapshots(
        self,
        function: str,
        tool_type: str,
        features: Table,
        context: tuple[str, ...] = (),
    ) -> Table:
        """As `snapshot`, one row for each of `features`: tasks of one function and context."""
        plain = np.array(self.snapshot(function, tool_type, (), context))
        found = np.repeat(plain[None, :], len(features), axis=0)
        known = self._functions.get(function)
        tool = self._tools.get(tool_type)
        if known is None or tool is None:
            return found
        inputs = known.inputs(self._expected(known, tool, context)[0])
        if inputs is None:
            return found
        missing = np.isnan(features)
        rows = np.where(missing, 0.0, features)
        effects = inputs.effects(rows)
        effects[missing.all(axis=1)] = 0.0
        effect = effects[:, 0] * tool.worth
        found[:, _EFFECT] = effect
        found[:, _COUNTS] = np.log1p(effects[:, 1:])
        found[:, _LEVEL] += effect
        found[:, _BESIDE_LEVEL] -= effect[:, None]
        return found

    def function_seconds(
        self, function: str, features: Sequence[float] = (), context: tuple[str, ...] = ()
    ) -> float | None:
        """What `function` takes lately in `context`, with inputs like `features`, in seconds."""
        known = self._functions.get(function)
        if known is None:
            return None
        snapshot = self.snapshot(function, known.tool_type, features, context)
        return self.level_seconds(function, context, snapshot)

    def level_seconds(
        self, function: str, context: tuple[str, ...], snapshot: Sequence[float]
    ) -> float | None:
        """What `function` takes lately, in seconds, by a `snapshot` of its task in `context`.

        The median of its first few; from then on its level and the effect of the inputs.
        """
        known = self._functions.get(function)
        if known is None:
            return None
        if known.count < _SETTLED and len(known.lines) == 1:
            for line in known.agreeing(context):
                return math.exp(line.median)
        return math.exp(snapshot[_LEVEL])

    def tool_seconds(self, tool_type: str) -> float | None:
        """What functions of `tool_type` take lately, in seconds."""
        tool = self._tools.get(tool_type)
        return None if tool is None else math.exp(self._cluster + tool.level + tool.newcomer)

    def _keep(self, function: str, context: Context) -> None:
        """Count this line as the one used last, and forget the one that was used longest ago."""
        self._used.pop((function, context), None)
        self._used[function, context] = None
        if len(self._used) > _LINES:
            oldest, where = next(iter(self._used))
            self._forget(oldest, where)

    def _forget(self, function: str, context: Context) -> None:
        del self._used[function, context]
        del self._functions[function].lines[context]
        if not self._functions[function].lines:
            del self._functions[function]

    def _expected(
        self, function: _Function, tool: _Tool, context: Context
    ) -> tuple[_Line | None, float, float]:
        """The line that tells most of `context`, None if none does; level and spread there."""
        if not context and len(function.lines) == 1:  # most functions know no context
            for line in function.lines.values():
                return line, self._level(line, tool), line.spread
        if any(context) and all(context):
            exact = function.lines.get(context)
            lines = [] if exact is None else [exact]
        else:
            lines = function.agreeing(context)
        if not lines:
            start = self._start(function, tool, context)
            return None, self._cluster + tool.level + start, _NAN
        if len(lines) == 1:
            return lines[0], self._level(lines[0], tool), lines[0].spread
        weights = [line.weight * _LATELY ** (function.count - line.at) for line in lines]
        levels = [self._level(line, tool) for line in lines]
        total = sum(weights)
        level = sum(w * one for w, one in zip(weights, levels, strict=True)) / total
        apart = sum(
            w * (line.spread + abs(one - level))
            for w, line, one in zip(weights, lines, levels, strict=True)
        )
        return lines[-1], level, apart / total

    def _start(self, function: _Function | None, tool: _Tool, context: Context) -> float:
        """Where `function` starts in a context that it has not run in, above the tool type."""
        part = None if function is None else function.part
        start = tool.newcomer if part is None else part.mean
        for word in enumerate(context):
            known = tool.words.get(word)
            if known is not None:
                start += known.mean
        return start

    def _begun(
        self, function: _Function, tool: _Tool, context: Context, value: float, effect: float
    ) -> _Line:
        """The line of a context that `function` had not run in, from one execution there."""
        own = value - effect - self._cluster - tool.level
        moves = tool.moves(context)
        if function.part is None:
            return _Line(own, tool.spread, value, moves, 0)
        doubt = function.part.doubt + _MISFIT + sum(part.doubt for part in tool.parts(context))
        start = self._start(function, tool, context)
        offset = start + doubt / (doubt + tool.spread**2) * (own - start)
        return _Line(offset, tool.spread, value, moves, 1)

    def _divide(self, function: _Function, tool: _Tool, context: Context, own: float) -> None:
        """Divide `own`, above the tool type, among function and words by what is not known yet."""
        parts = tool.parts(context) if context else []
        noise = _MISFIT + max(tool.spread, _LEAST_SPREAD) ** 2
        if function.part is None:
            function.part = _Part(own - sum([part.mean for part in parts]), noise)
            return
        parts.append(function.part)
        error = _held(own - sum([part.mean for part in parts]))
        total = noise + sum([part.doubt for part in parts])
        for part in parts:
            gain = part.doubt / total
            part.mean += gain * error
            part.doubt = max(_LEAST_DOUBT, part.doubt * (1.0 - gain))

    def _level(self, line: _Line, tool: _Tool) -> float:
        """Log-seconds to expect where the inputs have no effect."""
        return self._level_seen(line, tool) + self._followed(line, tool)

    def _level_seen(self, line: _Line, tool: _Tool) -> float:
        """The same just after `_see`: nothing has moved since."""
        quick = _beyond(line.quick - line.offset, max(line.spread, _LEAST_SPREAD))
        level = line.seen + line.offset
        return level + tool.lasts(1) * quick if quick else level

    def _moved(self, line: _Line, tool: _Tool) -> tuple[float, float]:
        """How the shared level moved since `line` was seen: by its own context, and by others."""
        others = tool.level - line.moves.total - line.elsewhere
        return self._cluster + tool.level - line.seen - others, others

    def _followed(self, line: _Line, tool: _Tool) -> float:
        """What `line` believes of how the shared level moved since it was seen."""
        own, others = self._moved(line, tool)
        if not own and not others:
            return 0.0
        followed = own * _within_one(_within_one(tool.follows.mean) + line.follows.mean)
        return followed + others * _within_one(tool.follows_others.mean) if others else followed

    def _see(self, line: _Line, tool: _Tool) -> None:
        """From here on `line` counts what moves the shared level."""
        line.seen = self._cluster + tool.level
        line.elsewhere = tool.level - line.moves.total

    def _follow(self, line: _Line, tool: _Tool, value: float, raw: float) -> None:
        """Move the levels towards `value`; `raw` is the effect that its inputs had before."""
        effect = raw * tool.worth
        self._check_move(line, tool, value - effect)
        back = self._check_jump(line, tool, value - effect)
        level = self._level_seen(line, tool)
        error = _held(value - level - effect)
        if raw:
            scale = 1.25 * max(line.spread, _LEAST_SPREAD / 2.0)
            missed = min(3.0, max(-3.0, (value - level - raw) / scale))
            tool.xy = _WORTH_DECAY * tool.xy + missed * raw / scale
            tool.xx = _WORTH_DECAY * tool.xx + (raw / scale) ** 2
        tool.run = _run(tool.run, error, max(line.spread, _LEAST_SPREAD))
        rate = max(_FUNCTION_RATE, 1.0 / (line.count + line.told + 1))
        # One that is still being learnt says nothing about the others.
        settled = rate == _FUNCTION_RATE and not back
        jump = self._jump(line, tool, error, level) if settled else 0.0
        own = value - effect - self._cluster - tool.level
        line.quick += max(_QUICK_RATE, rate) * _held(own - line.quick)
        line.offset += min(rate, 0.9) * _held(own - line.offset)
        move = _TOOL_RATE * (error - jump) + _TOOL_JUMP * jump
        tool.level += move
        line.moves.total += move
        self._cluster += _CLUSTER_JUMP * jump
        miss = min(abs(error), 3.0 * line.spread)
        rate = max(_FUNCTION_SPREAD_RATE, 1.0 / (line.count + 2))
        line.spread += rate * (miss - line.spread)
        tool.spread += _TOOL_SPREAD_RATE * (miss - tool.spread)

    def _jump(self, line: _Line, tool: _Tool, error: float, level: float) -> float:
        """What of `error`, at `level`, to take for a change of regime that others share."""
        agreed = max(1, min(abs(tool.run), _LONGEST_RUN))
        spread = max(line.spread, _LEAST_SPREAD)
        jump = _beyond(error, _JUMP / agreed * spread)
        if jump:
            weight = min(_BIGGEST_JUMP, abs(jump) / spread)
            jump *= tool.lasts(agreed)
            line.jump = _Jump(level, error, agreed, weight, tool.level, _TOOL_JUMP * jump)
        return jump

    def _check_move(self, line: _Line, tool: _Tool, value: float) -> None:
        """Learn from `value` whether what others moved since last time was this one's move too."""
        own, others = self._moved(line, tool)
        if not own and not others:
            return
        followed = self._followed(line, tool)
        step = 1.25 * max(line.spread, _LEAST_SPREAD)
        if abs(own) > step or abs(others) > step:
            found = value - self._level(line, tool) + followed
        if abs(own) > step:
            weight = min((own / step) ** 2, _BIGGEST_MOVE)
            share = _share_of(found - others * _within_one(tool.follows_others.mean), own)
            line.follows.learn(share - _within_one(tool.follows.mean), weight)
            tool.follows.learn(share, weight)
        if abs(others) > step:
            weight = min((others / step) ** 2, _BIGGEST_MOVE)
            share = _share_of(found - own * _within_one(tool.follows.mean), others)
            tool.follows_others.learn(share, weight)
        line.offset += followed - own - others
        line.quick += followed - own - others
        self._see(line, tool)

    def _check_jump(self, line: _Line, tool: _Tool, value: float) -> bool:
        """Whether `value` does not bear out the last jump of `line`, which is then taken back."""
        if line.jump is None:
            return False
        jump, line.jump = line.jump, None
        share = _share_of(value - jump.before, jump.error)
        tool.lasting[jump.agreed - 1].learn(share, jump.weight)
        if share >= 0.5:
            return False
        if not jump.moved:
            return True
        low, high = min(jump.moved, 0.0), max(jump.moved, 0.0)
        stands = min(high, max(low, tool.level - jump.tool_before))
        undone = (1.0 - max(0.0, share)) * stands
        tool.level -= undone
        line.moves.total -= undone
        self._cluster -= undone * _CLUSTER_JUMP / _TOOL_JUMP
        self._see(line, tool)
        return True


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


def _inputs(features: Sequence[float]) -> tuple[list[float] | None, bytes]:
    """Features, 0 where missing, and what identifies them; None where all are missing."""
    x = [value if value == value else 0.0 for value in features]
    if not any(x) and not any(value == value for value in features):
        return None, b""
    return x, array("d", x).tobytes()


def _decay(width: int) -> float:
    """What a difference of 1 in one of `width` features, the greatest, does to an exponent."""
    return -_FARTHEST / (_WIDTH * max(width, 1))


def _run(run: int, error: float, spread: float) -> int:
    """How many errors in a row lay beyond a spread, on one side; its sign is the side."""
    if abs(error) <= spread:
        return 0
    if error > 0:
        return run + 1 if run > 0 else 1
    return run - 1 if run < 0 else -1


def _share_of(found: float, foretold: float) -> float:
    """What part of `foretold` was found; noise may say more than all, or less than none."""
    return min(1.5, max(-0.5, found / foretold))


def _within_one(share: float) -> float:
    return 0.0 if share < 0.0 else min(share, 1.0)


def _beyond(value: float, limit: float) -> float:
    """What of `value` lies beyond ± `limit`."""
    return value - limit if value > limit else value + limit if value < -limit else 0.0


def _held(value: float) -> float:
    return -_MOST_ERROR if value < -_MOST_ERROR else min(value, _MOST_ERROR)


def _median(values: deque[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2.0
