"""What is known of the level of a function, of each of its contexts, and of a tool type."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from malearn.kernel.estimation.experts import ExpertErrors
from malearn.kernel.estimation.input_effects import InputEffects
from malearn.kernel.estimation.regimes import FunctionRegimes
from malearn.kernel.estimation.robust import clip_share

__all__ = [
    "LEAST_SCALE",
    "LONGEST_RUN",
    "Component",
    "Context",
    "ContextLevel",
    "ContextMoves",
    "FunctionState",
    "LevelJump",
    "RunningShare",
    "ToolTypeState",
]

#: Words that a task ran with, one per name of its tool type's context; empty where none is known.
Context = tuple[str, ...]

LEAST_SCALE, _FIRST_SCALE = 0.1, 0.2  # log-seconds: noise that no machine is free of; assumed first
LONGEST_RUN = 3  # errors in a row on one side that are told apart
_RECENT = 20  # executions of which `median` is taken

# How much of a jump lasts: all of it until seen otherwise, as firmly as `_LASTING_PRIOR` jumps of
# a scale would say, by the last `_LASTING_MOST`. Outcomes are noisy, so two thirds count as all.
_LASTING_PRIOR, _LASTING_MOST, _LASTING_GAIN = 4.0, 30.0, 1.5
# How much of what others moved a function moves too; the tool type's share is used for it until
# that has seen `_FOLLOWS_OWN`.
_FOLLOWS_PRIOR, _FOLLOWS_OWN, _FOLLOWS_MOST = 25.0, 50.0, 400.0
_FOLLOWS_OTHERS = 0.0  # how much of what came from other contexts, until seen otherwise

_WORD_VARIANCE = 0.25  # squared log-seconds, of what is not known of a word
_WORDS = 512  # contexts, and words of context, that a tool type remembers at most
_WORTH_RIDGE = 25.0  # executions' worth of doubt that the inputs' effect explains anything

_NO_INPUTS = InputEffects()  # only ever read


class RunningShare:
    """What share of what was predicted came true: a weighted mean that forgets the oldest."""

    __slots__ = ("_mass", "_most", "mean")

    def __init__(self, mean: float, mass: float, most: float) -> None:
        self.mean, self._mass, self._most = mean, mass, most

    def learn(self, share: float, weight: float) -> None:
        self._mass += weight
        self.mean += weight / self._mass * (share - self.mean)
        self._mass = min(self._mass, self._most)


class Component:
    """What one function, or one word of context, adds to a level, and the variance of that."""

    __slots__ = ("mean", "variance")

    def __init__(self, mean: float, variance: float) -> None:
        self.mean, self.variance = mean, variance


class ContextMoves:
    """By how much the functions in one context moved their tool type's level, all in all."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0.0


@dataclass(slots=True)
class LevelJump:
    """What an error taken for a change of regime moved, until the next one bears it out."""

    before: float  # the level that was wrong
    error: float
    agreed: int  # errors in a row on this side
    weight: float
    tool_before: float
    moved: float  # of the tool type's level


class _Answering:
    """What each look-up reads of a level: Python keeps the slots of a class side by side."""

    __slots__ = (
        "elsewhere",
        "follows",
        "inputs",
        "mean",
        "median",
        "moves",
        "offset",
        "quick",
        "scale",
        "seen",
        "varies",
    )


class ContextLevel(_Answering):
    """The level of one function in one context above its tool type's.

    Among many functions a look-up costs what it must fetch from memory. So what most of them never
    learn anything of is made with the first thing learnt; see `FunctionState.only`, too.
    """

    __slots__ = ("at", "count", "errors", "jump", "prior_count", "recent", "regimes", "weight")

    def __init__(
        self, offset: float, scale: float, value: float, moves: ContextMoves, prior_count: int
    ) -> None:
        self.offset = self.quick = offset
        self.scale = scale
        self.prior_count = prior_count  # how many executions what was known before is worth
        self.count = 0
        self.recent: deque[float] = deque(maxlen=_RECENT)
        self.median = self.mean = value
        self.inputs: InputEffects | None = None
        # Shared by all lines of this context, so that each sees what the others moved.
        self.moves = moves
        self.seen = 0.0  # the shared level that `offset` stands on …
        self.elsewhere = 0.0  # … and the part of it that came from other contexts
        self.follows: RunningShare | None = None  # beyond what the tool type's do
        self.jump: LevelJump | None = None
        self.weight = 0.0  # how often lately, as of execution number `at` of the function
        self.at = 0
        self.regimes = FunctionRegimes()
        self.varies = False  # whether there is more than one level among the regimes
        self.errors: ExpertErrors | None = None  # of the tracked level and of the regimes'

    @property
    def followed(self) -> float:
        """The share of what others moved that this one follows beyond its tool type's."""
        return 0.0 if self.follows is None else self.follows.mean

    def learn_follows(self, share: float, weight: float) -> None:
        """What share of it this one turned out to follow."""
        if self.follows is None:
            self.follows = RunningShare(0.0, _FOLLOWS_OWN, _FOLLOWS_MOST)
        self.follows.learn(share, weight)

    def learn_inputs(self, x: Sequence[float], key: bytes, effect: float, level: float) -> None:
        """As `InputEffects.learn`."""
        if self.inputs is None:
            self.inputs = InputEffects()
        self.inputs.learn(x, key, effect, level)

    def learn_errors(self, first: float, second: float) -> None:
        """As `ExpertErrors.learn`."""
        if self.errors is None:
            self.errors = ExpertErrors()
        self.errors.learn(first, second)


class FunctionState:
    """One function: its level in each context, latest last."""

    __slots__ = ("count", "lines", "only", "part", "tool_type")

    def __init__(self, tool_type: str) -> None:
        self.tool_type = tool_type
        self.count = 0
        self.lines: dict[Context, ContextLevel] = {}
        self.only: ContextLevel | None = None  # of its lines, where there is one
        self.part: Component | None = None  # in any context; None before its first execution

    def keep(self, context: Context, line: ContextLevel) -> None:
        """Let `line` stand for `context`, as the latest."""
        self.lines[context] = line
        self.only = line if len(self.lines) == 1 else None

    def forget(self, context: Context) -> None:
        """Drop the line of `context`."""
        del self.lines[context]
        self.only = next(iter(self.lines.values())) if len(self.lines) == 1 else None

    def inputs(self, line: ContextLevel | None) -> InputEffects | None:
        """What is known of inputs on `line`; where there is none, on the one seen last."""
        if line is None and self.lines:
            line = next(reversed(self.lines.values()))
        return None if line is None else line.inputs or _NO_INPUTS

    def agreeing(self, context: Context) -> list[ContextLevel]:
        """The lines that say of every known word what `context` says, latest last."""
        if not any(context):
            return list(self.lines.values())
        known = [(i, word) for i, word in enumerate(context) if word]
        return [
            line
            for other, line in self.lines.items()
            # Another length is of another declaration, whose words mean other names.
            if len(other) == len(context) and all(other[i] == word for i, word in known)
        ]


class ToolTypeState:
    """The level of one tool type above the cluster's."""

    __slots__ = (
        "contexts",
        "count",
        "errors",
        "follows",
        "follows_others",
        "lasting",
        "level",
        "newcomer",
        "run",
        "scale",
        "words",
        "xx",
        "xy",
    )

    def __init__(self) -> None:
        self.level = self.newcomer = 0.0
        self.count = self.run = 0  # `run` is signed: see `level_tracker._run`
        self.scale = _FIRST_SCALE
        self.xy = self.xx = 0.0  # of effects predicted and found
        self.follows = RunningShare(1.0, _FOLLOWS_PRIOR, _FOLLOWS_MOST)
        self.follows_others = RunningShare(_FOLLOWS_OTHERS, _FOLLOWS_PRIOR, _FOLLOWS_MOST)
        self.contexts: dict[Context, ContextMoves] = {}
        self.lasting = [
            RunningShare(1.0, _LASTING_PRIOR, _LASTING_MOST) for _ in range(LONGEST_RUN)
        ]
        self.words: dict[tuple[int, str], Component] = {}
        self.errors = ExpertErrors()

    @property
    def worth(self) -> float:
        """How much of a remembered effect still holds, 0.1 to 1.5: it changes with the backend."""
        # A ridge regression of what was missed on what was predicted. Kept above 0: an effect of
        # the opposite sign would be noise.
        return 1.0 + min(0.5, max(-0.9, self.xy / (self.xx + _WORTH_RIDGE)))

    def lasts(self, agreed: int) -> float:
        """How much of a jump to apply that so many errors in a row agreed on, 0 to 1."""
        return clip_share(_LASTING_GAIN * self.lasting[agreed - 1].mean)

    def moves(self, context: Context) -> ContextMoves:
        """What the functions in `context` moved, for those that start there to watch."""
        found = self.contexts.pop(context, None) or ContextMoves()
        self.contexts[context] = found  # the most recently used last
        # Lines that hold one that is forgotten go on with it; only newcomers start another.
        if len(self.contexts) > _WORDS:
            del self.contexts[next(iter(self.contexts))]
        return found

    def parts(self, context: Context) -> list[Component]:
        """What the words of `context` that are known add, latest last from now on."""
        found = []
        for word in enumerate(context):
            if word[1]:
                part = self.words.pop(word, None) or Component(0.0, _WORD_VARIANCE)
                self.words[word] = part
                found.append(part)
        while len(self.words) > _WORDS:
            del self.words[next(iter(self.words))]
        return found
