"""Causality: what was known when a task started, and so may be used to predict it.

Joining a run's records, replaying history, training and evaluation all ask this one rule, so
that none of them learns from, or is tested with, more than a scheduler had at that moment.
"""

from __future__ import annotations

__all__ = ["was_known"]


def was_known(end: float, start: float) -> bool:
    """Whether what ended at `end` was known when a task started at `start`.

    It was if it ended at or before that moment. Both are seconds since the epoch.
    """
    # Equal counts as known: a successor may start at the tick at which its predecessor ended,
    # and would lose its inputs.
    return end <= start
