"""Small functions that keep one outlier from moving an estimate far."""

from __future__ import annotations

__all__ = ["MOST_ERROR", "clip_share", "clip_step", "share_of", "soft_threshold"]

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
