"""Hosted vision models: malearn with the model as context, on files it never saw.

Five folds, no image in two of them. Measured against XGBoost on the 13 contract features
alone and against the median of each model. The requests are
`vision_checkup/requests.csv` below `$MALEARN_TRACES` (default: `../shared/traces`).
They carry no times and are learnt in random order; `python -m benchmarks.context` also
shows what becomes of it when they come sorted, as no scheduler would report them.
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
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold
from xgboost import XGBRegressor

from benchmarks.figure import Figure, at_most
from malearn import ExecTimePredictor
from malearn.kernel.tool_types import declared
from malearn.learning.metrics import Scores, score

__all__ = ["figures"]

Vector = NDArray[np.float64]
Rows = NDArray[np.intp]

_TOOL = declared()["vlm_process"]
_FOLDS = 5
_SHARE = 0.9  # of the error of the better baseline


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
    mae, ape = _errors(_shuffled(requests), _baselines(requests))
    yield at_most("vision requests: MAE against the better baseline", mae, "ratio", _SHARE)
    yield at_most("vision requests: median APE against the better baseline", ape, "ratio", _SHARE)


def _shuffled(requests: Sequence[_Request]) -> list[_Request]:
    """In an order that means nothing: when they were sent is not recorded."""
    return random.Random(7).sample(requests, len(requests))


def _baselines(requests: Sequence[_Request]) -> list[Scores]:
    actual = np.array([request.seconds for request in requests])
    return [score(actual, predict(requests)) for predict in (_features_alone, _model_median)]


def _errors(requests: Sequence[_Request], baselines: Sequence[Scores]) -> tuple[float, float]:
    """Our MAE and median APE, learnt in the order given, against the better baseline's."""
    found = score(np.array([request.seconds for request in requests]), _ours(requests))
    return (
        found.mae / min(baseline.mae for baseline in baselines),
        found.median_ape / min(baseline.median_ape for baseline in baselines),
    )


def _ours(requests: Sequence[_Request]) -> Vector:
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


def _features_alone(requests: Sequence[_Request]) -> Vector:
    inputs = np.array([[r.features[n] for n in _TOOL.feature_names] for r in requests], np.float32)
    log_seconds = np.log([r.seconds for r in requests])
    predicted = np.empty(len(requests))
    for train, test in _folds(requests):
        model = XGBRegressor(n_estimators=200, max_depth=4, learning_rate=0.03, n_jobs=1)
        predicted[test] = np.exp(model.fit(inputs[train], log_seconds[train]).predict(inputs[test]))
    return predicted


def _model_median(requests: Sequence[_Request]) -> Vector:
    predicted = np.empty(len(requests))
    for train, test in _folds(requests):
        seconds = defaultdict(list)
        for i in train:
            seconds[requests[i].model].append(requests[i].seconds)
        for i in test:
            predicted[i] = np.median(seconds[requests[i].model])
    return predicted


def _folds(requests: Sequence[_Request]) -> Iterator[tuple[Rows, Rows]]:
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


if __name__ == "__main__":
    recorded = _requests()
    beside = _baselines(recorded)
    for order, ordered in (
        ("random", _shuffled(recorded)),
        ("by model, as recorded", recorded),
        ("by file", sorted(recorded, key=lambda request: request.file)),
    ):
        mae, ape = _errors(ordered, beside)
        print(f"order {order}: MAE {mae:.3f}, median APE {ape:.3f} of the better baseline's")
