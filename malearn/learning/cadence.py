"""How often a replay retrains."""

from __future__ import annotations

__all__ = ["CADENCE", "is_due"]

#: A retraining after so many finished tasks.
#: The figures in docs/accuracy.md are those of this cadence.
CADENCE = 25
#: With no cadence given, a retraining after the log has grown by this share.
_GROWTH = 0.05


def is_due(finished: int, fitted: int, cadence: int | None) -> bool:
    """Whether a retraining is due after `finished` tasks, the last one after `fitted`.

    After every `cadence` tasks; with None after as many as are a share of the log so far, so
    that a long log costs little more than a short one.
    """
    every = max(CADENCE, round(_GROWTH * fitted)) if cadence is None else cadence
    return finished - fitted >= every
