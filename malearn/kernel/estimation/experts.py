"""How to weight two answers, by how far each was off lately."""

from __future__ import annotations

__all__ = ["ExpertErrors", "second_weight"]

# How much an earlier error counts, how many executions of a function its tool type's errors are
# worth, and how sharply the better answer is preferred. By 0.9 an error has lost half its weight
# after seven more; the fourth power of the ratio prefers the better one more sharply than weighting
# by inverse variance, its second power, would.
_DECAY, _PRIOR, _SHARPNESS = 0.9, 4.0, 4.0
# Log-seconds: one outlier must not decide for long, and two errors of nothing have no ratio.
_MOST_ERROR, _LEAST_ERROR = 1.0, 0.01


class ExpertErrors:
    """Decayed sums of the absolute errors of two experts, and of how many there were."""

    __slots__ = ("count", "first", "second")

    def __init__(self) -> None:
        self.first = self.second = self.count = 0.0

    def learn(self, first: float, second: float) -> None:
        """Take in how far each was off, in log-seconds."""
        self.first = _DECAY * self.first + min(first, _MOST_ERROR)
        self.second = _DECAY * self.second + min(second, _MOST_ERROR)
        self.count = _DECAY * self.count + 1.0


_NOTHING = ExpertErrors()  # only ever read


def second_weight(own: ExpertErrors | None, shared: ExpertErrors) -> float:
    """How much the second expert counts, 0 to 1, by a function's errors and its tool type's.

    `own` is None where nothing was learnt of the function yet.
    """
    own = own or _NOTHING
    # The tool type's sums are scaled to `_PRIOR` executions; a function with many overrules them.
    prior = _PRIOR / max(shared.count, 1.0)
    first = own.first + prior * shared.first + _LEAST_ERROR
    second = own.second + prior * shared.second + _LEAST_ERROR
    ratio: float = (second / first) ** _SHARPNESS
    return 1.0 / (1.0 + ratio)
