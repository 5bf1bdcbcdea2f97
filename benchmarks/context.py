"""Hosted vision models: malearn, told which model answers, on files it never saw.

Five folds, no image in two of them. Measured against XGBoost on the 13 contract features
alone and against the median of each model. The requests are
`vision_checkup/requests.csv` below `$MALEARN_TRACES` (default: `../shared/traces`).
"""

from __future__ import annotations

import csv
import os
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import GroupKFold
from xgboost import XGBRegressor

from benchmarks.figure import Figure, at_most
from malearn import ExecTimePredictor
from malearn.metrics import score
from malearn.tool_types import declared

__all__ = ["figures"]

_TOOL = declared()["vlm_process"]
_FOLDS = 5
_SHARE = 0.9  # of the error of the better rival


@dataclass(frozen=True, slots=True)
class _Request:
    model: str
    file: str
    features: dict[str, float]
    seconds: float


def figures() -> Iterator[Figure]:
    """The figures on the requests; none where there are none."""
    requests = _requests()
    if not requests:
        return
    actual = np.array([request.seconds for request in requests])
    rivals = [score(actual, p(requests)) for p in (_features_alone, _median_of_each_model)]
    mae = min(rival.mae for rival in rivals)
    ape = min(rival.median_ape for rival in rivals)
    orders = {
        "as recorded": list(requests),
        "shuffled": random.Random(7).sample(requests, len(requests)),
    }
    orders["file by file"] = sorted(requests, key=lambda request: request.file)
    for order, ordered in orders.items():
        found = score(np.array([r.seconds for r in ordered]), _ours(ordered))
        yield at_most(
            f"MAE against the better rival, learnt {order}", found.mae / mae, "ratio", _SHARE
        )
        yield at_most(
            f"median APE against the better rival, learnt {order}",
            found.median_ape / ape,
            "ratio",
            _SHARE,
        )


def _ours(requests: Sequence[_Request]) -> np.ndarray:
    predicted = np.empty(len(requests))
    for train, test in _folds(requests):
        with (
            tempfile.TemporaryDirectory() as home,
            ExecTimePredictor(_TOOL.name, home=home, retrain_after=0) as predictor,
        ):
            for i in train:
                request = requests[i]
                predictor.collect_data(
                    request.seconds, {**request.features, "model": request.model}
                )
            predictor.train_model()
            for i in test:
                request = requests[i]
                predicted[i] = predictor.predict({**request.features, "model": request.model})
    return predicted


def _features_alone(requests: Sequence[_Request]) -> np.ndarray:
    inputs = np.array([[r.features[n] for n in _TOOL.feature_names] for r in requests], np.float32)
    log_seconds = np.log([r.seconds for r in requests])
    predicted = np.empty(len(requests))
    for train, test in _folds(requests):
        model = XGBRegressor(n_estimators=200, max_depth=4, learning_rate=0.03, n_jobs=1)
        predicted[test] = np.exp(model.fit(inputs[train], log_seconds[train]).predict(inputs[test]))
    return predicted


def _median_of_each_model(requests: Sequence[_Request]) -> np.ndarray:
    predicted = np.empty(len(requests))
    for train, test in _folds(requests):
        seconds = defaultdict(list)
        for i in train:
            seconds[requests[i].model].append(requests[i].seconds)
        for i in test:
            predicted[i] = np.median(seconds[requests[i].model])
    return predicted


def _folds(requests: Sequence[_Request]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    files = [request.file for request in requests]
    yield from GroupKFold(_FOLDS).split(files, groups=files)


def _requests() -> list[_Request]:
    folder = Path(os.environ.get("MALEARN_TRACES", "../shared/traces"))
    file = folder / "vision_checkup" / "requests.csv"
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as rows:
        return [
            _Request(
                row["model"],
                row["file_name"],
                {
                    name: float(row[name]) if row[name] else float("nan")
                    for name in _TOOL.feature_names
                },
                float(row["latency_s"]),
            )
            for row in csv.DictReader(rows)
        ]
