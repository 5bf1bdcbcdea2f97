"""The drift test: whether two samples of numbers come from the same distribution.

The two-sample Kolmogorov–Smirnov test: its distance is the largest difference
between the two cumulative distributions, 0 for the same, 1 for disjoint ones.
With many rows any difference is significant, so a drift must be large as well
as significant. A missing value counts as one below all others, so that a
feature that is no longer reported drifts too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALPHA", "LARGE", "Drift", "compare", "grown"]

#: The smallest distance that matters.
#: A shift of about 0.8 standard deviations of a normal distribution has this distance.
LARGE = 0.3
#: How probable such a distance may be without drift, for all comparisons made at once together.
ALPHA = 0.01

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Drift:
    """How far one thing is from where it was: `distance` from 0 to 1, and how probable by chance.

    `before` and `now` are medians of what is known, NaN where nothing is.
    """

    name: str
    distance: float
    p_value: float
    found: bool
    before: float
    now: float


def compare(before: Mapping[str, Vector], now: Mapping[str, Vector]) -> list[Drift]:
    """Everything in both, farthest first. `ALPHA` is shared among all (Bonferroni)."""
    # A feature of which one side has no rows, such as a new one, cannot be compared.
    names = [name for name in before if name in now and len(before[name]) and len(now[name])]
    found = [_compare(name, before[name], now[name], ALPHA / len(names)) for name in names]
    return sorted(found, key=lambda drift: -drift.distance)


def grown(name: str, before: Vector, now: Vector) -> Drift:
    """As `compare`, but one-sided: only larger numbers than before are a drift."""
    return _compare(name, before, now, ALPHA, alternative="less")


def _compare(
    name: str, before: Vector, now: Vector, alpha: float, alternative: str = "two-sided"
) -> Drift:
    from scipy.stats import ks_2samp

    # "less": the distribution function of the first lies below that of the second.
    # Asymptotic: the exact p-value assumes that no two values are equal, as all missing ones are.
    test = ks_2samp(_ranked(now), _ranked(before), alternative=alternative, method="asymp")
    distance, p_value = float(test.statistic) + 0.0, float(test.pvalue)  # no -0.0
    return Drift(
        name,
        distance,
        p_value,
        distance >= LARGE and p_value < alpha,
        _median(before),
        _median(now),
    )


def _ranked(values: Vector) -> Vector:
    return np.where(np.isnan(values), -np.inf, values)


def _median(values: Vector) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")
