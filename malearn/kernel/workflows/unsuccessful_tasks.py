"""How long a workflow waits for tasks that may fail or be skipped.

An answer is the time of a success, which models and histories are made of. A workflow waits for its
tasks however they end: one that runs into a limit of tokens takes as long as that, one that is
skipped takes no time at all, and the same inputs tend to end the same way again. So of each
function of which any execution ever failed or was skipped, the effect that inputs had on the time
is remembered, above the answers and over all outcomes from then on, successes too. How much of it
holds is learnt per function, and over all, as that of `workflow_hints`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import msgspec

from malearn.kernel import text
from malearn.kernel.estimation import experts, input_effects, observation
from malearn.kernel.estimation.experts import ExpertErrors
from malearn.kernel.estimation.input_effects import InputEffects

__all__ = ["TaskOutcome", "UnsuccessfulTasks", "decode", "encode"]

_REMEMBERED = 1024  # functions; the one that ended longest ago goes first
_MOST_VALUES = 256  # features of one task
_PRIOR = 0.5
# By which identical inputs move towards their latest effect: quicker than what they take, since
# effects are above answers, which move themselves.
_RATE = 0.3
_BEFORE = 3  # successes of the same inputs before they failed first that count
_FARTHEST = 12.0  # log-seconds: a millisecond instead of minutes, or days instead of a second


class TaskOutcome(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How a task ended whose inputs were known before it started.

    `features` are its inputs in declared order, NaN where missing; `above` is by how much it took
    longer than the answer that it got, in log-seconds; `repeats` says of one that did not succeed
    how often the same inputs had.
    """

    function: str
    features: tuple[float, ...]
    above: float
    successful: bool
    repeats: int = 0

    @classmethod
    def of(
        cls,
        function: str,
        features: tuple[float, ...],
        answered: float,
        seconds: float,
        *,
        successful: bool,
    ) -> Self:
        """Of a task that got an answer of `answered` seconds, above 0, and took `seconds`."""
        above = math.log(max(seconds, observation.SHORTEST) / answered)
        above = min(_FARTHEST, max(-_FARTHEST, above))
        return cls(function, features, above, successful)


class _Entry(msgspec.Struct, array_like=True):
    function: str
    features: tuple[float | None, ...]
    above: float
    successful: bool
    repeats: int = 0


def encode(outcome: TaskOutcome) -> bytes:
    """As JSON, for schedulers that start later; `decode` reads it back."""
    features = tuple(v if math.isfinite(v) else None for v in outcome.features)
    function = text.encodable(outcome.function)
    entry = _Entry(function, features, outcome.above, outcome.successful, outcome.repeats)
    return _encode(entry)


def decode(raw: object) -> TaskOutcome | None:
    """From JSON; None for what is none."""
    try:
        entry = _decode(raw if isinstance(raw, bytes) else b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if abs(entry.above) > _FARTHEST or not 0 < len(entry.features) <= _MOST_VALUES:
        return None
    features = tuple(math.nan if v is None else v for v in entry.features)
    return TaskOutcome(entry.function, features, entry.above, entry.successful, entry.repeats)


_encode, _decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(_Entry).decode


class _Effects:
    """The effect of inputs on the time until one function ended, and how far answers with and
    without it were off; `usual` is the mean effect over all `count` outcomes."""

    __slots__ = ("count", "errors", "inputs", "succeeded", "usual")

    def __init__(self) -> None:
        self.inputs = InputEffects(_RATE)
        self.errors = ExpertErrors()
        self.usual, self.count = 0.0, 0
        self.succeeded = False


class UnsuccessfulTasks:
    """What functions took of which some execution failed or was skipped. Not thread-safe."""

    __slots__ = ("_effects", "_errors")

    def __init__(self) -> None:
        self._effects: dict[str, _Effects] = {}
        self._errors = ExpertErrors()

    def __len__(self) -> int:
        """How many functions are remembered."""
        return len(self._effects)

    def effect(self, function: str, features: Sequence[float], *, succeeded: bool = False) -> float:
        """What to add to the log-seconds answered for a task, where a workflow waits for it.

        `succeeded` says that the function is known to have succeeded, whatever was learnt here.
        """
        found = self._effects.get(function)
        if found is None:
            return 0.0
        effect = _raw(found, features, succeeded)
        return experts.second_weight(found.errors, self._errors) * effect if effect else 0.0

    def learn(self, outcome: TaskOutcome, *, succeeded: bool = False) -> bool:
        """Take in how a task ended; False where its function has never failed, or nothing was
        known of its inputs. `succeeded` is as in `effect`, before this task."""
        x, key = input_effects.encode(outcome.features)
        found = self._effects.pop(outcome.function, None)
        if found is None:
            if outcome.successful or x is None:
                return False
            found = _Effects()
        self._effects[outcome.function] = found  # the one seen last stands last
        if len(self._effects) > _REMEMBERED:
            del self._effects[next(iter(self._effects))]
        if x is None:
            return False
        if outcome.repeats and not found.inputs.count(key):
            # Each of them would have been answered worse by what is learnt here.
            for _ in range(min(outcome.repeats, _BEFORE)):
                found.inputs.learn(x, key, 0.0)
                found.errors.learn(0.0, abs(outcome.above))
        effect = _raw(found, outcome.features, succeeded)
        if effect:
            for errors in (found.errors, self._errors):
                errors.learn(abs(outcome.above), abs(outcome.above - effect))
        found.inputs.learn(x, key, outcome.above)
        found.succeeded |= outcome.successful
        found.count += 1
        found.usual += (outcome.above - found.usual) / found.count
        return True


def _raw(found: _Effects, features: Sequence[float], succeeded: bool) -> float:
    x, key = input_effects.encode(features)
    effect, same = 0.0, 0.0
    if x is not None:
        effect, same, _ = found.inputs.effect(x, key)
    # What has never succeeded, as what is always skipped, will not for other inputs either. Similar
    # inputs count up to a factor of 7, since they are made for noise.
    never = not (succeeded or found.succeeded)
    usual = found.usual * found.count / (found.count + _PRIOR) if never else 0.0
    if same:
        # Of identical inputs a few are needed; similar ones are shrunk by `InputEffects` itself.
        return (effect * same + usual * _PRIOR) / (same + _PRIOR)
    return usual if never else effect
