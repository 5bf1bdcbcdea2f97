"""The family `lightgbm`: boosted trees that grow leaf by leaf. Needs `malearn[lightgbm]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from malearn.learning.families.family import SEED, Family, Inputs, Parameters, Range, Vector

if TYPE_CHECKING:
    import onnx

__all__ = ["LIGHTGBM"]

_OPSET = 15
#: Without `bagging_freq` LightGBM ignores `bagging_fraction`.
_FIXED = {"num_threads": 1, "seed": SEED, "deterministic": True, "bagging_freq": 1, "verbose": -1}


def _constrain(parameters: Parameters, monotone: Sequence[int]) -> Parameters:
    # The leaves of an absolute error are recomputed once a tree is grown, past any constraint.
    return {**parameters, "objective": "regression", "monotone_constraints": tuple(monotone)}


def _fit(inputs: Inputs, target: Vector, parameters: Parameters) -> Any:
    import lightgbm

    chosen = {**parameters, **_FIXED}
    trees = chosen.pop("n_estimators")
    if "monotone_constraints" in chosen:
        chosen["monotone_constraints"] = list(chosen["monotone_constraints"])
    # Bins depend on the parameters: the data set takes them from the training.
    return lightgbm.train(chosen, lightgbm.Dataset(inputs, label=target), trees)


def _importance(estimator: Any, columns: int) -> Vector:
    return np.asarray(estimator.feature_importance("gain"), dtype=np.float64)


def _contributions(estimator: Any, inputs: Inputs) -> Vector:
    return np.asarray(estimator.predict(inputs, pred_contrib=True), dtype=np.float64)


def _to_onnx(estimator: Any, columns: int, name: str) -> onnx.ModelProto:
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    types = [(name, FloatTensorType([None, columns]))]
    model: onnx.ModelProto = convert_lightgbm(
        estimator, initial_types=types, target_opset=_OPSET, zipmap=False
    )
    return model


def _read(file: bytes) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=file.decode("utf-8"))


LIGHTGBM = Family(
    name="lightgbm",
    fewest_rows=40,
    defaults={
        "n_estimators": 75,
        "num_leaves": 12,
        "learning_rate": 0.06,
        "objective": "regression_l1",
        "bagging_fraction": 0.7,
        "feature_fraction": 0.5,
        "min_data_in_leaf": 8,
        "max_bin": 64,
    },
    search={
        "n_estimators": Range(25, 200),
        "num_leaves": Range(4, 48, log=True),
        "learning_rate": Range(0.01, 0.3, log=True),
        "bagging_fraction": Range(0.4, 1.0),
        "feature_fraction": Range(0.2, 1.0),
        "min_data_in_leaf": Range(2, 40, log=True),
    },
    also=("lambda_l1", "lambda_l2", "max_depth", "min_gain_to_split", "path_smooth"),
    constrain=_constrain,
    fit=_fit,
    importance=_importance,
    to_onnx=_to_onnx,
    flavor="lightgbm",
    files=("model.lgb", "model.txt"),
    read=_read,
    package="lightgbm",
    contributions=_contributions,
    contributions_by="exact Shapley values of the trees (lightgbm, pred_contrib)",
)
