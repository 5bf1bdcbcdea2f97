"""Live accuracy: recorded predictions joined with what happened, per model version.

Only executions whose prediction was recorded by a scheduler count. It is what users got, not a
fair comparison: versions served at different times, and so met different tasks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolTypes
from malearn.learning import baselines, evaluation
from malearn.learning.metrics import Scores, score

__all__ = ["WINDOW", "LiveAccuracy", "fallback_share", "score_live"]

#: Of each version the newest so many executions are scored.
WINDOW = 200


@dataclass(frozen=True, slots=True)
class LiveAccuracy:
    """How the recorded predictions of one version turned out; None: those made without a model.

    `coverage` is the share of outcomes within the intervals that go with such predictions;
    `baselines` are scored on the same executions.
    """

    version: int | None
    scores: Scores
    coverage: float
    baselines: Mapping[str, Scores]


def score_live(executions: Sequence[Execution], tool_types: ToolTypes) -> tuple[LiveAccuracy, ...]:
    """Scores of the recorded predictions of one tool type, the newest version first."""
    ordered = sorted(executions, key=lambda e: (e.start, e.task_id))
    # Other writers of the log may have recorded anything; 0 has no logarithm.
    recorded = [i for i, e in enumerate(ordered) if e.predicted is not None and e.predicted > 0.0]
    if not recorded:
        return ()
    # Baselines see all executions, also those without a recorded prediction.
    others = {name: predict(ordered, tool_types) for name, predict in baselines.BASELINES.items()}
    predictions = np.array([ordered[i].predicted for i in recorded], dtype=np.float64)
    low, high = evaluation.intervals_around([ordered[i] for i in recorded], predictions)
    by_version: dict[int | None, list[int]] = defaultdict(list)
    for position, i in enumerate(recorded):
        by_version[ordered[i].model_version].append(position)
    found = []
    for version, positions in by_version.items():
        newest = np.array(positions[-WINDOW:])
        rows = np.array(recorded)[newest]
        actual = np.array([ordered[i].seconds for i in rows])
        inside = (low[newest] <= actual) & (actual <= high[newest])
        found.append(
            LiveAccuracy(
                version,
                score(actual, predictions[newest]),
                float(inside.mean()),
                {name: score(actual, p[rows]) for name, p in others.items()},
            )
        )
    return tuple(sorted(found, key=lambda one: -(one.version or 0)))


def fallback_share(executions: Sequence[Execution]) -> float | None:
    """Share of the newest `WINDOW` recorded predictions that no model made; None without any."""
    ordered = sorted(executions, key=lambda e: e.start)
    versions = [e.model_version for e in ordered if e.predicted is not None][-WINDOW:]
    return sum(version is None for version in versions) / len(versions) if versions else None
