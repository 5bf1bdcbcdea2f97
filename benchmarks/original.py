"""The original's algorithm, written afresh from its description, to measure against.

Per prediction: one GET and `json.loads` per predecessor, a one-row DataFrame,
`StandardScaler.transform`, a DMatrix, `Booster.predict`. Per collected sample:
read the CSV, append a row, write it back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import redis
import xgboost as xgb
from sklearn.preprocessing import StandardScaler

__all__ = ["Original", "append"]


@dataclass(frozen=True, slots=True)
class Original:
    """One tool type's model as the original keeps it."""

    names: Sequence[str]
    scaler: StandardScaler
    booster: xgb.Booster

    @classmethod
    def fit(cls, names: Sequence[str], rows: int = 2000) -> Original:
        """200 trees of depth 4 on made-up numbers: its speed is what is asked."""
        draw = np.random.default_rng(0)
        frame = pd.DataFrame(draw.lognormal(3, 1, (rows, len(names))), columns=list(names))
        scaler = StandardScaler().fit(frame)
        matrix = xgb.DMatrix(scaler.transform(frame), label=frame.sum(axis=1))
        # One thread: over one row several only wait for each other, on a busy machine for long.
        return cls(names, scaler, xgb.train({"max_depth": 4, "nthread": 1}, matrix, 200))

    def seconds(self, features: Mapping[str, float]) -> float:
        """The model part of one prediction."""
        frame = pd.DataFrame([features], columns=list(self.names))
        matrix = xgb.DMatrix(self.scaler.transform(frame), nthread=1)
        return float(self.booster.predict(matrix)[0])

    def predict(self, client: redis.Redis, function: str, predecessors: Sequence[str]) -> float:
        """One prediction, round trips and all."""
        features: dict[str, float] = {}
        for task_id in predecessors:
            raw: Any = client.get(f"result:{task_id}")
            features |= json.loads(raw).get("succ_task_feat", {}).get(function, {})
        return self.seconds(features)


def append(file: Path, row: Mapping[str, object]) -> None:
    """Collect one sample."""
    frame = pd.read_csv(file)
    pd.concat([frame, pd.DataFrame([row])], ignore_index=True).to_csv(file, index=False)
