"""DAPS: which of the ready tasks runs first.

`score = w1 · urgency + w2 · criticality`: nearly finished queries first, and
among them what their remaining time hangs on. Pure functions of numbers.
"""

from __future__ import annotations

import math

__all__ = ["CRITICALITY_WEIGHT", "URGENCY_WEIGHT", "criticality", "score", "urgency"]

URGENCY_WEIGHT = 2.0
CRITICALITY_WEIGHT = 1.0


def urgency(remaining_inferences: int, max_known_inferences: int) -> float:
    """How near its end a query is, 0…1, by the inferences it still needs.

    `max_known_inferences` is the most that any known query needs; where none
    is known nothing can be nearer than another, and urgency is 0.

    >>> urgency(remaining_inferences=1, max_known_inferences=4)
    0.75
    """
    if max_known_inferences <= 0:
        return 0.0
    # More may remain than the caller's maximum, which is out of date then.
    return min(1.0, max(0.0, 1.0 - remaining_inferences / max_known_inferences))


def criticality(predicted_seconds: float, expected_dag_seconds: float) -> float:
    """The share of its DAG's expected time that a task takes, both in seconds; 0 or more.

    A DAG that is expected to take no time has no critical task.

    >>> criticality(predicted_seconds=30.0, expected_dag_seconds=120.0)
    0.25
    """
    # `not >` rather than `<=`, so that NaN ends here too.
    if not expected_dag_seconds > 0.0 or not math.isfinite(predicted_seconds):
        return 0.0
    return max(0.0, predicted_seconds / expected_dag_seconds)


def score(
    urgency: float,
    criticality: float,
    *,
    urgency_weight: float = URGENCY_WEIGHT,
    criticality_weight: float = CRITICALITY_WEIGHT,
) -> float:
    """The rank of a ready task; the highest runs first.

    >>> score(urgency=0.75, criticality=0.25)
    1.75
    """
    return urgency_weight * urgency + criticality_weight * criticality
