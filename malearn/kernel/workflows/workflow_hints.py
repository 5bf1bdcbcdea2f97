"""What the beginning of a workflow tells of tasks whose own inputs are not known yet.

A function may take longer in one kind of workflow than in another, so which functions a workflow
has is a hint from its arrival on. The first task that announces anything of its successors (what
a file holds, how long a question is) tells more: the same question asked again takes later tasks
about as long as it took them before, and a like one about as long. So what was announced first is
the workflow's *hint* from then on. The effect of hints on every function that follows is remembered
like that of inputs, above the function's level. How much of it holds is learnt per function, and
over all. So is how far they usually missed it after the same hint, by which the answer is the surer
or the less sure.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Self

import msgspec

from malearn.kernel import features, text
from malearn.kernel.estimation import experts, input_effects, intervals
from malearn.kernel.estimation.experts import ExpertErrors
from malearn.kernel.estimation.input_effects import InputEffects
from malearn.kernel.estimation.intervals import Intervals, Width
from malearn.kernel.prediction import Prediction
from malearn.kernel.records import Record
from malearn.kernel.workflow import Workflow

__all__ = [
    "Followed",
    "Hint",
    "HintEffect",
    "HintsSoFar",
    "WorkflowHints",
    "applied",
    "decode",
    "encode",
    "hint_of",
    "hint_of_shape",
]

_REMEMBERED = 1024  # functions, each after one announcer; the one seen longest ago goes first
_MOST_VALUES = 64  # of a hint
_PRIOR = 0.5
_FARTHEST = 20.0  # log-seconds: what is beyond somebody else has written


class Hint(msgspec.Struct, frozen=True):
    """Who announced, what it named, and the numbers, in the order of the names.

    Nobody ("") announced what the shape of a workflow tells.
    """

    announcer: str
    names: tuple[tuple[str, str], ...]
    values: tuple[float, ...]


class Followed(msgspec.Struct, frozen=True):
    """What followed a hint: by how much each function took longer, in log-seconds, than was
    expected of it whatever its inputs."""

    hint: Hint
    above: tuple[tuple[str, float], ...]


class HintsSoFar(msgspec.Struct, frozen=True, gc=False):
    """What one workflow has told so far: which functions it has, and what was announced first."""

    shape: Hint | None
    announced: Hint | None = None

    @classmethod
    def of(cls, workflow: Workflow) -> Self:
        """The hints of a workflow of which nothing has ended yet."""
        return cls(hint_of_shape(workflow))

    @property
    def latest(self) -> Hint | None:
        """The one that answers are given by: what was announced first, until then the shape."""
        return self.announced or self.shape

    @property
    def all(self) -> tuple[Hint, ...]:
        """Those that are learnt from: what follows was hinted at by each of them."""
        return tuple(one for one in (self.shape, self.announced) if one is not None)

    def after(self, record: Record) -> Self:
        """The hints once one of the workflow's tasks has ended with `record`."""
        if self.announced is not None or not record.successors:
            return self
        return type(self)(self.shape, hint_of(record.function, record.successors))

    def rebuilt(self, workflow: Workflow) -> Self:
        """The hints where a scheduler has built the same workflow anew, as `workflow`."""
        return type(self)(hint_of_shape(workflow), self.announced)


class _Entry(msgspec.Struct):
    announcer: str
    announced: dict[str, dict[str, float]]
    above: dict[str, float]


def encode(followed: Followed) -> bytes:
    """As JSON, for schedulers that start later; `decode` reads it back."""
    hint, announced = followed.hint, dict[str, dict[str, float]]()
    for (function, name), value in zip(hint.names, hint.values, strict=True):
        announced.setdefault(text.encodable(function), {})[text.encodable(name)] = value
    above = {text.encodable(function): value for function, value in followed.above}
    return _encode(_Entry(text.encodable(hint.announcer), announced, above))


def decode(raw: object) -> Followed | None:
    """From JSON; None for what is none."""
    try:
        entry = _decode(raw if isinstance(raw, bytes) else b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    hint = hint_of(entry.announcer, entry.announced)
    above = tuple((name, value) for name, value in entry.above.items() if abs(value) < _FARTHEST)
    return Followed(hint, above) if hint is not None and above else None


_encode, _decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(_Entry).decode


def hint_of(announcer: str, successors: Mapping[str, Mapping[str, object]]) -> Hint | None:
    """The hint in what a task reported of its successors; None where that holds no number."""
    found = {
        (function, name): number
        for function, given in successors.items()
        for name, value in given.items()
        # A report that was not written as JSON may have names that are no texts.
        if isinstance(function, str)
        and isinstance(name, str)
        and (number := features.finite(value)) is not None
    }
    names = tuple(sorted(found))[:_MOST_VALUES]
    return Hint(announcer, names, tuple(found[name] for name in names)) if names else None


def hint_of_shape(workflow: Workflow) -> Hint | None:
    """The hint in which functions `workflow` has; None while more may be appended."""
    if workflow.growing:
        return None
    functions = "\n".join(sorted(task.function for task in workflow.tasks.values()))
    # A digest, since the name is kept with every function and shared.
    digest = hashlib.blake2b(functions.encode("utf-8", "replace"), digest_size=8).hexdigest()
    return Hint("", ((digest, "shape"),), (1.0,))


class HintEffect(msgspec.Struct, frozen=True, gc=False):
    """What a hint does to an answer: what it adds to the log-seconds; and how far from it the
    truth may lie, None where too little came of such answers."""

    log_seconds: float = 0.0
    width: Width | None = None


def applied(prediction: Prediction, effect: HintEffect) -> Prediction:
    """`prediction`, of a task whose inputs are not known, with a hint's effect."""
    # Effects are learnt above the level of a function, so they hold for answers from it alone.
    if prediction.source != "function_history":
        return prediction
    answer = prediction.shifted(effect.log_seconds)
    if effect.width is None:
        return answer
    seconds = answer.seconds
    low, high, confidence = intervals.from_width(effect.width)
    return Prediction(
        seconds, seconds * low, seconds * high, answer.source, answer.model_version, confidence
    )


class _Effects:
    """The effect of hints on one function, and how far answers with and without it were off."""

    __slots__ = ("errors", "inputs")

    def __init__(self) -> None:
        self.inputs = InputEffects()
        self.errors = ExpertErrors()


#: A function, who announced, and what was named.
_Key = tuple[str, str, tuple[tuple[str, str], ...]]


class WorkflowHints:
    """What hints were followed by. Not thread-safe: its owner serialises calls."""

    __slots__ = ("_effects", "_errors", "_intervals")

    def __init__(self) -> None:
        self._effects: dict[_Key, _Effects] = {}
        self._errors = ExpertErrors()
        self._intervals = Intervals()

    def effect(self, function: str, hint: Hint) -> HintEffect:
        """What `hint` does to what `function` takes whatever its inputs."""
        found = self._effects.get(_key(function, hint))
        if found is None:
            return _NO_EFFECT
        width = self._width(function, hint)
        return HintEffect(self._log_seconds(found, hint), width if width.calibrated else None)

    def learn(self, function: str, hint: Hint, above: float) -> None:
        """`function` took so much more, in log-seconds, than was expected whatever its inputs."""
        key = _key(function, hint)
        found = self._effects.pop(key, None)
        if found is None:
            found = _Effects()
        else:
            said, width = self._log_seconds(found, hint), self._width(function, hint)
            self._intervals.learn(
                function, _stage(hint), math.exp(above), math.exp(said), width, hint
            )
        self._effects[key] = found  # the one seen last stands last
        if len(self._effects) > _REMEMBERED:
            del self._effects[next(iter(self._effects))]
        effect = _raw(found.inputs, hint)
        if effect:
            for errors in (found.errors, self._errors):
                errors.learn(abs(above), abs(above - effect))
        x, identity = input_effects.encode(hint.values)
        if x is not None:
            found.inputs.learn(x, identity, above)

    def _log_seconds(self, found: _Effects, hint: Hint) -> float:
        effect = _raw(found.inputs, hint)
        return experts.second_weight(found.errors, self._errors) * effect if effect else 0.0

    def _width(self, function: str, hint: Hint) -> Width:
        width = self._intervals.width(function, _stage(hint))
        return self._intervals.of_inputs(width, function, hint)


_NO_EFFECT = HintEffect()


def _stage(hint: Hint) -> str:
    """What the errors of answers by `hint` are calibrated with."""
    return "announced" if hint.announcer else "shape"


def _raw(inputs: InputEffects, hint: Hint) -> float:
    """The effect as if all of it held, in log-seconds."""
    x, identity = input_effects.encode(hint.values)
    if x is None:
        return 0.0
    effect, same, _ = inputs.effect(x, identity)
    # Of identical hints a few are needed; similar ones are shrunk by `InputEffects` itself.
    return effect * same / (same + _PRIOR) if same else effect


def _key(function: str, hint: Hint) -> _Key:
    # Not their hash: those of texts differ from process to process, and a simulation's workers are
    # given what was learnt in another one.
    return function, hint.announcer, hint.names
