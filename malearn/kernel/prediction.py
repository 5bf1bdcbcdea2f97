"""What a predictor answers."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

__all__ = ["Prediction", "Source"]

#: Which part of the fallback chain answered, best first.
Source = Literal["model", "function_history", "tool_history", "heuristic"]


# `gc=False`, here and in other small values: they hold no cycles, and a scheduler keeps thousands
# that the collector would walk in the middle of a call.
class Prediction(msgspec.Struct, frozen=True, gc=False):
    """How long a task will take.

    `seconds` is the expectation, finite and positive; `low` and `high` enclose
    the outcome in about 80 % of cases. `model_version` is the registry's, None
    where no model answered. `confidence` runs from 0 (a guess) to 1.
    """

    seconds: float
    low: float
    high: float
    source: Source
    model_version: int | None = None
    confidence: float = 0.0

    def shifted(self, effect: float) -> Prediction:
        """The same with `effect` added to the logarithms of all seconds."""
        if not effect:
            return self
        factor = math.exp(effect)
        return Prediction(
            self.seconds * factor,
            self.low * factor,
            self.high * factor,
            self.source,
            self.model_version,
            self.confidence,
        )
