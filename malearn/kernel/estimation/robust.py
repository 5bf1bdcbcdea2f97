"""Small functions that keep one outlier from moving an estimate far."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "MOST_ERROR",
    "clip_share",
    "clip_step",
    "share_of",
    "soft_threshold",
    "weighted_median",
]

MOST_ERROR = 2.0  # nothing moves a level by more than this at once, in log-seconds: a factor of 7


def clip_share(share: float) -> float:
    """`share`, held between 0 and 1."""
    return 0.0 if share < 0.0 else min(share, 1.0)


def soft_threshold(value: float, limit: float) -> float:
    """What of `value` lies beyond ± `limit`."""
    return value - limit if value > limit else value + limit if value < -limit else 0.0


def clip_step(value: float) -> float:
    """`value`, held within ± `MOST_ERROR`."""
    return -MOST_ERROR if value < -MOST_ERROR else min(value, MOST_ERROR)


def share_of(found: float, foretold: float) -> float:
    """What part of `foretold` was found; with noise it may be more than all, or less than none."""
    return min(1.5, max(-0.5, found / foretold))


def weighted_median(weighted: Iterable[tuple[float, float]]) -> float:
    """The value up to which half of the weight lies, of `(value, weight)`, at least one."""
    rows = sorted(weighted)
    half, so_far = sum([weight for _, weight in rows]) / 2.0, 0.0
    for value, weight in rows:
        so_far += weight
        if so_far >= half:
            return value
    return rows[-1][0]
