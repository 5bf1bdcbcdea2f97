"""Which of two answers to believe, by how far each was off lately."""

from __future__ import annotations

__all__ = ["ExpertErrors", "regime_weight"]

# How much an earlier error counts, how many executions of a function its tool type's errors are
# worth, and how sharply the better answer is preferred.
_DECAY, _PRIOR, _SHARPNESS = 0.9, 4.0, 4.0
_MOST_ERROR, _LEAST_ERROR = 1.0, 0.01  # log-seconds


class ExpertErrors:
    """Decayed sums of absolute errors: of the level that is tracked, and of the regimes' level."""

    __slots__ = ("count", "regime", "tracked")

    def __init__(self) -> None:
        self.tracked = self.regime = self.count = 0.0

    def learn(self, tracked: float, regime: float) -> None:
        """Take in how far each was off, in log-seconds."""
        self.tracked = _DECAY * self.tracked + min(tracked, _MOST_ERROR)
        self.regime = _DECAY * self.regime + min(regime, _MOST_ERROR)
        self.count = _DECAY * self.count + 1.0


def regime_weight(own: ExpertErrors, shared: ExpertErrors) -> float:
    """How much the regimes' level counts, 0 to 1, by a function's errors and its tool type's."""
    prior = _PRIOR / max(shared.count, 1.0)
    tracked = own.tracked + prior * shared.tracked + _LEAST_ERROR
    regime = own.regime + prior * shared.regime + _LEAST_ERROR
    ratio: float = (regime / tracked) ** _SHARPNESS
    return 1.0 / (1.0 + ratio)
