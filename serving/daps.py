"""DAPS, as `malearn.kernel.daps` has it, where a scheduler finds it."""

from malearn.kernel.daps import (
    CRITICALITY_WEIGHT,
    URGENCY_WEIGHT,
    criticality,
    score,
    urgency,
)

__all__ = ["CRITICALITY_WEIGHT", "URGENCY_WEIGHT", "criticality", "score", "urgency"]
