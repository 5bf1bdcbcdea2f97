"""The family `xgboost`: boosted trees, small ones, because most of what they see is noise."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from malearn.learning.families.family import SEED, Family, Inputs, Parameters, Range, Vector

if TYPE_CHECKING:
    import onnx

__all__ = ["XGBOOST"]

#: Trees that an update adds, and that there may be after any number of updates.
_MORE_TREES, _MOST_TREES = 15, 150
# Rows from which on more threads pay: on a busy machine they wait for each other, which takes
# ten times as long.
_MANY = 200_000
_OPSET = 15


def _constrain(parameters: Parameters, monotone: Sequence[int]) -> Parameters:
    # The leaves of an absolute error are recomputed once a tree is grown, past any constraint.
    bound = {"objective": "reg:squarederror", "monotone_constraints": tuple(monotone)}
    return {**parameters, **bound}


def _fit(inputs: Inputs, target: Vector, parameters: Parameters) -> Any:
    from xgboost import XGBRegressor

    return XGBRegressor(
        **parameters,
        n_jobs=1 if len(inputs) < _MANY else os.cpu_count(),
        random_state=SEED,
    ).fit(inputs, target)


def _update(estimator: Any, inputs: Inputs, target: Vector, parameters: Parameters) -> Any | None:
    from xgboost import XGBRegressor

    booster = estimator.get_booster()
    # A bound, since a scheduler waits for every tree, and the oldest hold conditions that are gone.
    most = max(_MOST_TREES, parameters["n_estimators"] + _MORE_TREES)
    if booster.num_boosted_rounds() + _MORE_TREES > most:
        return None
    more = {**parameters, "n_estimators": _MORE_TREES}
    return XGBRegressor(**more, n_jobs=1, random_state=SEED).fit(inputs, target, xgb_model=booster)


def _importance(estimator: Any, columns: int) -> Vector:
    # Columns that no tree splits on are absent.
    gains = estimator.get_booster().get_score(importance_type="total_gain")
    return np.array([float(gains.get(f"f{i}", 0.0)) for i in range(columns)])


def _contributions(estimator: Any, inputs: Inputs) -> Vector:
    from xgboost import DMatrix

    return np.asarray(
        estimator.get_booster().predict(DMatrix(inputs), pred_contribs=True), dtype=np.float64
    )


def _to_onnx(estimator: Any, columns: int, name: str) -> onnx.ModelProto:
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    types = [(name, FloatTensorType([None, columns]))]
    model: onnx.ModelProto = convert_xgboost(estimator, initial_types=types, target_opset=_OPSET)
    return model


def _read(file: bytes) -> Any:
    from xgboost import XGBRegressor

    estimator = XGBRegressor(n_jobs=1)
    estimator.load_model(bytearray(file))
    return estimator


XGBOOST = Family(
    name="xgboost",
    fewest_rows=40,
    defaults={
        # Chosen on real logs: 150 trees of depth 5 change no figure there by more than 0.003.
        "n_estimators": 75,
        "max_depth": 4,
        "learning_rate": 0.06,
        # The error that the gate compares by; a few extreme times do not dominate it.
        "objective": "reg:absoluteerror",
        "subsample": 0.7,
        "colsample_bytree": 0.5,
        "min_child_weight": 8.0,
        "max_bin": 64,
    },
    # No larger: a scheduler waits for every tree of it.
    search={
        "n_estimators": Range(25, 200),
        "max_depth": Range(2, 6),
        "learning_rate": Range(0.01, 0.3, log=True),
        "subsample": Range(0.4, 1.0),
        "colsample_bytree": Range(0.2, 1.0),
        "min_child_weight": Range(1.0, 40.0, log=True),
    },
    also=("colsample_bylevel", "gamma", "max_delta_step", "max_leaves", "reg_alpha", "reg_lambda"),
    constrain=_constrain,
    fit=_fit,
    importance=_importance,
    to_onnx=_to_onnx,
    flavor="xgboost",
    files=("model.ubj", "model.json"),
    read=_read,
    update=_update,
    package="xgboost",
    contributions=_contributions,
    contributions_by="exact Shapley values of the trees (xgboost, pred_contribs)",
)
