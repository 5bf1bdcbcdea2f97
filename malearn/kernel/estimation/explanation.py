"""What an answer is made of: terms in log-seconds, similar executions, and the fallback chain.

An explanation is taken from the objects that answer, by their own methods: the sum of its terms
is the answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from malearn.kernel.estimation import input_effects
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.prediction import Source

__all__ = ["ChainStep", "LevelExplanation", "SimilarInputs", "Term", "TermGroup", "matched"]

#: What a term belongs to: the level of the function, the effect of its inputs, the model's
#: correction, the range that an answer is held to, or the mixing of two estimates.
TermGroup = Literal["level", "inputs", "model", "clip", "mixing"]


class Term(msgspec.Struct, frozen=True, gc=False):
    """One summand of a prediction, in log-seconds; `value` is the input it belongs to, if any."""

    group: TermGroup
    name: str
    log_seconds: float
    value: float | None = None

    @property
    def factor(self) -> float:
        """The same as a factor on seconds."""
        return math.exp(self.log_seconds)


class SimilarInputs(msgspec.Struct, frozen=True, gc=False):
    """Inputs that were seen before and weigh on a prediction.

    `effect` is what they did to the function's level, in log-seconds; `share` is their part of
    the weight of all. `identical` tells whether they are the very same. `ended`, in seconds since
    the epoch, and `seconds` are of the latest execution with them, None where it is forgotten.
    """

    features: tuple[float, ...]
    effect: float
    share: float
    identical: bool = False
    ended: float | None = None
    seconds: float | None = None


class LevelExplanation(msgspec.Struct, frozen=True, gc=False):
    """What the answer without a model is made of: `level` and `inputs` sum to its log-seconds."""

    level: tuple[Term, ...]
    inputs: tuple[Term, ...]
    similar: tuple[SimilarInputs, ...]


class ChainStep(msgspec.Struct, frozen=True, gc=False):
    """One source of the fallback chain: whether it answered, and why, or why not."""

    source: Source
    answered: bool
    why: str


def matched(
    similar: Iterable[SimilarInputs], function: str, observations: Iterable[Observation]
) -> tuple[SimilarInputs, ...]:
    """`similar` with the latest of `observations` that had these inputs, where one did."""
    latest: dict[tuple[float, ...], Observation] = {}
    for observation in observations:
        if observation.function == function:
            key = _key(observation.features)
            # Observations may come in any order; of equal ends the later one given counts.
            if key not in latest or latest[key].end <= observation.end:
                latest[key] = observation
    return tuple(
        one
        if (found := latest.get(_key(one.features))) is None
        else msgspec.structs.replace(one, ended=found.end, seconds=found.end - found.start)
        for one in similar
    )


def _key(features: Sequence[float]) -> tuple[float, ...]:
    """Inputs as they are remembered: on a logarithmic scale, whose inverse is not exact."""
    x, _ = input_effects.encode(features)
    return tuple(round(log, 9) for log in input_effects.logarithms(x or ()))
