"""What a function, and its tool type, took lately, as known at a given moment.

A `History` is a fold over finished executions in order of their end: training replays it point in
time (`kernel.estimation.replay`), the scheduler feeds it as tasks finish. One implementation, so
both see the same numbers. Nothing of it is stored but recent executions; whoever needs one
replays them.

The level of a function is estimated twice: by a tracker that follows the errors
(`level_tracker`), and from the levels that the function returns to (`regimes`). They are mixed by
how far each was off lately (`experts`). On top come the effects of the inputs (`input_effects`),
weighed by what such estimates have been worth lately.

A context is what a task ran with: words such as a model, a backend, a node. A function has a level
in each. A new context starts from the sum of what its function takes anywhere and what its words
did to other functions. A word that is not known stands for any: the level is then the mean over the
contexts that agree on the others, by how often the function ran in them lately.

Memory is bounded: the functions, contexts and words seen least recently go first.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from malearn.kernel.estimation import experts, input_effects
from malearn.kernel.estimation.explanation import LevelExplanation, SimilarInputs, Term
from malearn.kernel.estimation.input_effects import Encoded, EncodedRows, InputEffects
from malearn.kernel.estimation.intervals import FUNCTIONS, State
from malearn.kernel.estimation.level_state import (
    LEAST_SCALE,
    Context,
    ContextLevel,
    FunctionState,
    ToolTypeState,
)
from malearn.kernel.estimation.level_tracker import LevelTracker
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.estimation.pauses import Pauses
from malearn.kernel.estimation.regimes import Regimes
from malearn.kernel.estimation.robust import MOST_ERROR

__all__ = ["FEATURES", "FUNCTIONS", "BelievedLevel", "History"]

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

_NEWCOMER_RATE = 0.3  # of the level that functions seen for the first time start at
# `mean` takes in an execution by this share, once there were as many, and by no more than
# `_FAR` scales of it.
_MEAN_RATE, _FAR = 1.0 / 300.0, 2.0
_SETTLED = 5  # executions of a function before its level predicts better than their median
_LATELY = 0.95  # an earlier execution of the function counts so much less, one by one

_CONTEXTS = 64  # of one function
_OUTLOOKS = 1024  # kept until the next execution: callers may ask for any context

Table = NDArray[np.float64]
#: `(seconds, share)`: a level that a function returns to, and how likely it holds now.
BelievedLevel = tuple[float, float]
_log1p = math.log1p
_NAN = math.nan
_UNKNOWN = (_NAN,) * len(FEATURES)


class _Outlook:
    """What to expect of a function in a context, whatever its inputs, until the next observation.

    `line` is the one whose context fits best, None if none does. `level` and `scale` are
    log-seconds, `worth` is the share of a remembered effect that holds. `state` is what
    `History.state` gives, once it was asked.
    """

    __slots__ = ("inputs", "level", "line", "scale", "state", "worth")

    def __init__(
        self,
        line: ContextLevel | None,
        level: float,
        scale: float,
        inputs: InputEffects | None,
        worth: float,
    ) -> None:
        self.line, self.level, self.scale = line, level, scale
        self.inputs, self.worth = inputs, worth
        self.state: tuple[State, float] | None = None


class History:
    """The recent past of every function and tool type that was observed.

    Not thread-safe: its owner serialises the calls. `functions` are remembered at most, each of
    their contexts counted; `forgotten` is how many had to go.

    >>> history = History([Observation("task1_ocr", "vlm_process", 0.0, 8.0)])
    >>> round(history.function_seconds("task1_ocr"), 3)
    8.0
    """

    __slots__ = (
        "_functions",
        "_most",
        "_outlooks",
        "_pauses",
        "_regimes",
        "_tools",
        "_tracker",
        "_used",
        "forgotten",
    )

    def __init__(
        self, observations: Iterable[Observation] = (), functions: int = FUNCTIONS
    ) -> None:
        self._most, self.forgotten = functions, 0
        self._tracker = LevelTracker()
        self._regimes = Regimes()
        self._pauses = Pauses()
        self._functions: dict[str, FunctionState] = {}
        self._tools: dict[str, ToolTypeState] = {}
        self._used: dict[tuple[str, Context], None] = {}  # lines, the most recently used last
        # Between two observations nothing changes, while a scheduler asks for many tasks.
        self._outlooks: dict[tuple[str, str, Context], _Outlook] = {}
        # Their order is part of the result: each one is compared with what was known before it.
        for observation in sorted(observations, key=lambda o: o.end):
            self.observe(observation)

    def count(self, function: str) -> int:
        """How many executions of `function` were observed."""
        known = self._functions.get(function)
        return 0 if known is None else known.count

    def repeats(self, function: str, features: Sequence[float]) -> int:
        """How many executions of `function` with these very inputs are remembered."""
        known = self._functions.get(function)
        x, key = input_effects.encode(features)
        if known is None or x is None:
            return 0
        return sum(line.inputs.count(key) for line in known.lines.values() if line.inputs)

    def observe(self, observation: Observation) -> None:
        """Take in one execution that has ended; call in order of their ends."""
        # All of them: a change of regime moves levels of functions that did not run.
        self._outlooks.clear()
        value = observation.log_seconds
        tool = self._tools.get(observation.tool_type)
        if tool is None:
            tool = self._tools[observation.tool_type] = ToolTypeState()
        function = self._functions.get(observation.function)
        if function is None:
            function = self._functions[observation.function] = FunctionState(observation.tool_type)
        if self._pauses.ended_by(observation.start, observation.end):
            self._regimes.pause()
        # All words unknown and no context at all are the same, and share one line.
        context = observation.context if any(observation.context) else ()
        x, key = input_effects.encode(observation.features)
        # Taken out and put back below, so that the dictionary stays in order of last use.
        line = function.lines.pop(context, None)
        inputs = function.inputs(line)
        effect = 0.0
        if x is not None and inputs is not None:
            if line is None:
                _, level, _ = self._expected(function, tool, context)
            else:
                level = self._level(line, tool)
            effect = inputs.effect(x, key, level)[0]
        if line is None:
            line = self._tracker.new_state(function, tool, context, value, effect * tool.worth)
        else:
            # First, while both levels still are what they would have answered.
            self._compare(line, tool, value - effect * tool.worth)
            self._tracker.update_levels(line, tool, value, effect)
        # Where a log names what changes, contexts tell it apart; regimes are for what none names.
        known, at = value - effect * tool.worth, 0.0
        if not context:
            at = self._regimes.observe(line.regimes, known, observation.tool_type)
        line.varies = len(line.regimes.levels) > 1
        function.keep(context, line)
        self._keep(observation.function, context)
        if len(function.lines) > _CONTEXTS:
            self._forget(observation.function, next(iter(function.lines)))
        self._tracker.snapshot_level(line, tool)
        function.count += 1
        line.count += 1
        # The decay is made up for here, since executions in other contexts do not touch this line.
        line.weight = line.weight * _LATELY ** (function.count - line.at) + 1.0
        line.at = function.count
        line.recent.append(value)
        line.median = _median(line.recent)
        if line.count > 1:  # of the first one it is the time itself
            # The scale of a function hardly seen is its tool type's, and would hold the mean back.
            far = _FAR * max(line.scale, LEAST_SCALE) if line.count > _SETTLED else MOST_ERROR
            rate = max(_MEAN_RATE, 1.0 / line.count)
            line.mean += rate * min(far, max(-far, value - line.mean))
        own = value - line.seen
        self._tracker.update_components(function, tool, context, own - effect * tool.worth)
        tool.newcomer += (own - tool.newcomer) * (_NEWCOMER_RATE if tool.count else 1.0)
        tool.count += 1
        if x is not None:
            # The level that both experts now agree on: what it leaves over is owed to the inputs.
            here = self._tracker.level_seen(line, tool)
            if line.varies:
                here += experts.second_weight(line.errors, tool.errors) * (at - here)
            # The level was set by the first execution itself, which says nothing of its inputs.
            found = value - here if line.count > 1 else 0.0
            line.learn_inputs(x, key, found, here)

    def snapshot(
        self,
        function: str,
        tool_type: str,
        features: Sequence[float] = (),
        context: tuple[str, ...] = (),
    ) -> tuple[float, ...]:
        """`FEATURES` of a task of `function` with these `features` that starts now in `context`:
        see `snapshot_of`."""
        return self.snapshot_of(function, tool_type, input_effects.encode(features), context)

    def snapshot_of(
        self, function: str, tool_type: str, encoded: Encoded, context: tuple[str, ...]
    ) -> tuple[float, ...]:
        """As `snapshot`, of features that were encoded already.

        All NaN while the tool type is unknown; a function not seen yet starts from
        what new functions of its tool type took.
        """
        tool = self._tools.get(tool_type)
        if tool is None:
            return _UNKNOWN
        known = self._functions.get(function)
        if known is None:
            level = self._tracker.cluster + tool.level + self._tracker.start(None, tool, context)
            return (level, 0.0, _NAN, 0.0, 0.0, _NAN, _NAN)
        effect = same = mass = 0.0
        x, key = encoded
        outlook = self._outlook(function, tool_type, context, known, tool)
        line, inputs = outlook.line, outlook.inputs
        if x is not None and inputs is not None:
            effect, same, mass = inputs.effect(x, key, outlook.level)
            effect *= outlook.worth
        level = outlook.level + effect
        median, mean = (_NAN, _NAN) if line is None else (line.median, line.mean)
        return (
            level,
            effect,
            outlook.scale,
            _log1p(same),
            _log1p(mass),
            median - level,
            mean - level,
        )

    def snapshots_of(
        self, function: str, tool_type: str, encoded: EncodedRows, context: tuple[str, ...]
    ) -> Table:
        """As `snapshot_of`, one row for each of `encoded`: tasks of one function and context."""
        plain = np.array(self.snapshot(function, tool_type, (), context))
        found = np.repeat(plain[None, :], len(encoded[1]), axis=0)
        known = self._functions.get(function)
        tool = self._tools.get(tool_type)
        if known is None or tool is None:
            return found
        outlook = self._outlook(function, tool_type, context, known, tool)
        inputs = outlook.inputs
        if inputs is None:
            return found
        effects = inputs.effects(encoded, outlook.level)
        effect = effects[:, 0] * outlook.worth
        found[:, _EFFECT] = effect
        found[:, _COUNTS] = np.log1p(effects[:, 1:])
        found[:, _LEVEL] += effect
        # They are relative to the level, which the effect has just moved.
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

        The median of its first few, until others are seen to move; from then on its level and the
        effect of the inputs.
        """
        found = self.levels_seconds(function, context, (snapshot[_LEVEL],))
        return None if found is None else found[0]

    def levels_seconds(
        self, function: str, context: tuple[str, ...], levels: Sequence[float]
    ) -> list[float] | None:
        """As `level_seconds`, one for each of the `levels` in snapshots of tasks in one context."""
        known = self._functions.get(function)
        if known is None:
            return None
        if known.count < _SETTLED and known.only is not None:
            lines = [known.only] if not context else known.agreeing(context)
            for line in lines:
                if self._followed(line) is None:
                    return [math.exp(line.median)] * len(levels)
        return [math.exp(level) for level in levels]

    def explain(
        self,
        function: str,
        tool_type: str,
        features: Sequence[float] = (),
        context: tuple[str, ...] = (),
    ) -> LevelExplanation | None:
        """What `level_seconds` of such a task are made of; None where `function` is not known.

        Its terms sum to the logarithm of those seconds, or of the level of a snapshot where
        `median` holds instead of the level: see `level_seconds`.
        """
        known, tool = self._functions.get(function), self._tools.get(tool_type)
        if tool is None:
            return None
        if known is None:
            shared = self._tracker.cluster + tool.level
            start = self._tracker.start(None, tool, context)
            level = (
                Term("level", "shared level of the tool type", shared),
                Term("level", "what new functions take above it", start),
            )
            return LevelExplanation(level, (), ())
        outlook = self._outlook(function, tool_type, context, known, tool)
        terms = self._level_terms(known, tool, context)
        x, key = input_effects.encode(features)
        if x is None or outlook.inputs is None:
            return LevelExplanation(terms, (), ())
        effect, same, _ = outlook.inputs.effect(x, key, outlook.level)
        inputs = (Term("inputs", "similar inputs", effect * outlook.worth),)
        # As in `InputEffects.effect`: where identical inputs are known they alone answer.
        similar = (
            [SimilarInputs(tuple(x), effect, 1.0, True)]
            if same
            else [SimilarInputs(*found) for found in outlook.inputs.neighbours(x)]
        )
        ranked = sorted(similar, key=lambda one: -one.share)
        return LevelExplanation(terms, inputs, tuple(ranked))

    def tool_terms(self, tool_type: str) -> tuple[Term, ...]:
        """What `tool_seconds` are made of, in log-seconds."""
        tool = self._tools.get(tool_type)
        if tool is None:
            return ()
        return (
            Term("level", "shared level of the tool type", self._tracker.cluster + tool.level),
            Term("level", "what new functions take above it", tool.newcomer),
        )

    def state(self, function: str, tool_type: str, context: Context) -> tuple[State, float]:
        """What an answer for `function` stands on, and how far apart what it may take lies.

        The latter in log-seconds, beside what answers miss by anyway; 0 where nothing is in doubt.
        """
        known, tool = self._functions.get(function), self._tools.get(tool_type)
        if known is None or tool is None or known.count < _SETTLED:
            return "cold", 0.0
        outlook = self._outlook(function, tool_type, context, known, tool)
        if outlook.state is None:
            line = known.lines.get(context) or outlook.line
            outlook.state = self._state(line, tool)
        return outlook.state

    def believed_levels(self, function: str, context: Context = ()) -> tuple[BelievedLevel, ...]:
        """The levels that `function` is known at in `context`, as `(seconds, share)` each.

        The shares sum to 1: how likely each of them holds now. Empty where regimes are not told
        apart: of a function not seen yet, and where the log names the context.
        """
        known = self._functions.get(function)
        line = None if known is None else known.lines.get(context if any(context) else ())
        if line is None or not line.regimes.levels:
            return ()
        return tuple(
            (math.exp(level.value), share)
            for level, share in zip(
                line.regimes.levels, self._regimes.believed(line.regimes), strict=True
            )
        )

    def tool_seconds(self, tool_type: str) -> float | None:
        """What functions of `tool_type` take lately, in seconds."""
        tool = self._tools.get(tool_type)
        return (
            None if tool is None else math.exp(self._tracker.cluster + tool.level + tool.newcomer)
        )

    def __len__(self) -> int:
        return len(self._used)

    def _keep(self, function: str, context: Context) -> None:
        """Count this line as the one used last, and forget the one that was used longest ago."""
        self._used.pop((function, context), None)
        self._used[function, context] = None
        if len(self._used) > self._most:
            # One at most: each execution adds one line.
            self.forgotten += 1
            oldest, where = next(iter(self._used))
            self._forget(oldest, where)

    def _forget(self, function: str, context: Context) -> None:
        del self._used[function, context]
        self._functions[function].forget(context)
        if not self._functions[function].lines:
            del self._functions[function]

    def _outlook(
        self,
        function: str,
        tool_type: str,
        context: Context,
        known: FunctionState,
        tool: ToolTypeState,
    ) -> _Outlook:
        """The outlook of `function`, worked out once between two observations."""
        key = function, tool_type, context
        outlook = self._outlooks.get(key)
        if outlook is None:
            line, level, scale = self._expected(known, tool, context)
            outlook = _Outlook(line, level, scale, known.inputs(line), tool.worth)
            # A memo: nothing is lost by emptying it, and eviction one by one costs each look-up.
            if len(self._outlooks) >= _OUTLOOKS:
                self._outlooks.clear()
            self._outlooks[key] = outlook
        return outlook

    def _state(self, line: ContextLevel | None, tool: ToolTypeState) -> tuple[State, float]:
        """As `state`, by the line that says most of it."""
        if line is None:
            return "cold", 0.0
        if not self._regimes.in_doubt(line.regimes):
            return "steady", 0.0
        if not line.varies:
            return "in_doubt", 0.0
        return "in_doubt", self._regimes.apart(line.regimes, self._level(line, tool))

    def _expected(
        self, function: FunctionState, tool: ToolTypeState, context: Context
    ) -> tuple[ContextLevel | None, float, float]:
        """The line that tells most of `context`, None if none does; level and scale there."""
        if not context and function.only is not None:  # most functions know no context
            return function.only, self._level(function.only, tool), function.only.scale
        lines = self._lines(function, context)
        if not lines:
            start = self._tracker.start(function, tool, context)
            return None, self._tracker.cluster + tool.level + start, _NAN
        if len(lines) == 1:
            return lines[0], self._level(lines[0], tool), lines[0].scale
        weights = _weights(function, lines)
        levels = [self._level(line, tool) for line in lines]
        total = sum(weights)
        level = sum(w * one for w, one in zip(weights, levels, strict=True)) / total
        # Which context it will be is open, so the distance between their levels adds to the scale.
        apart = sum(
            w * (line.scale + abs(one - level))
            for w, line, one in zip(weights, lines, levels, strict=True)
        )
        return lines[-1], level, apart / total

    def _lines(self, function: FunctionState, context: Context) -> list[ContextLevel]:
        """The lines that tell of `context`: its own where all of it is known, else all agreeing."""
        if any(context) and all(context):
            exact = function.lines.get(context)
            # One that is wholly known and new is no mixture of others: it has its own start.
            return [] if exact is None else [exact]
        return function.agreeing(context)

    def _level_terms(
        self, function: FunctionState, tool: ToolTypeState, context: Context
    ) -> tuple[Term, ...]:
        """What the level of `_expected` is the sum of."""
        lines = self._lines(function, context)
        if not lines:
            start = self._tracker.start(function, tool, context)
            return (
                Term("level", "shared level of the tool type", self._tracker.cluster + tool.level),
                Term("level", "the function, and what its context is known to add", start),
            )
        if len(lines) == 1:
            terms = self._tracker.terms(lines[0], tool)
            mixed = self._level(lines[0], tool) - self._tracker.level(lines[0], tool)
            followed = self._followed(lines[0]) is not None
            name = "what others did since a change" if followed else "levels that it returns to"
            return (*terms, Term("mixing", name, mixed))
        # A line does not know its context: that is its key.
        names = {id(line): "/".join(filter(None, c)) for c, line in function.lines.items()}
        weights = _weights(function, lines)
        total = sum(weights)
        return tuple(
            Term(
                "level",
                f"{weight / total:.0%} of its level in {names[id(line)] or 'no context'}",
                weight / total * self._level(line, tool),
            )
            for weight, line in zip(weights, lines, strict=True)
        )

    def _followed(self, line: ContextLevel) -> float | None:
        """Log-seconds to expect by what others did since `line` ran; None where it says nothing."""
        return self._regimes.followed(line.regimes)

    def _level(self, line: ContextLevel, tool: ToolTypeState) -> float:
        """Log-seconds to expect where the inputs have no effect."""
        followed = self._followed(line)
        if followed is not None:
            return followed
        tracked = self._tracker.level(line, tool)
        if not line.varies:
            return tracked
        regime = self._regimes.expected(line.regimes)
        return tracked + experts.second_weight(line.errors, tool.errors) * (regime - tracked)

    def _compare(self, line: ContextLevel, tool: ToolTypeState, value: float) -> None:
        """Learn how far both levels are off."""
        if not line.varies:
            return
        tracked = abs(value - self._tracker.level(line, tool))
        regime = abs(value - self._regimes.expected(line.regimes))
        line.learn_errors(tracked, regime)
        tool.errors.learn(tracked, regime)


def _weights(function: FunctionState, lines: Sequence[ContextLevel]) -> list[float]:
    """How often `function` ran in the context of each of `lines` lately."""
    return [line.weight * _LATELY ** (function.count - line.at) for line in lines]


def _median(values: deque[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2.0
