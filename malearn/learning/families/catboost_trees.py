"""The family `catboost`: boosted trees of one split a level. Needs `malearn[catboost]`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from malearn.learning.families.family import SEED, Family, Inputs, Parameters, Range, Vector

if TYPE_CHECKING:
    import onnx

__all__ = ["CATBOOST"]

#: `allow_writing_files`: else it leaves a directory of its own wherever it is run.
_FIXED = {
    "thread_count": 1,
    "random_seed": SEED,
    "verbose": False,
    # Else it raises where all times are equal, as they may be in a small window.
    "allow_const_label": True,
    "allow_writing_files": False,
}


def _constrain(parameters: Parameters, monotone: Sequence[int]) -> Parameters:
    # The leaves of an absolute error are recomputed once a tree is grown, past any constraint.
    return {**parameters, "loss_function": "RMSE", "monotone_constraints": tuple(monotone)}


def _fit(inputs: Inputs, target: Vector, parameters: Parameters) -> Any:
    from catboost import CatBoostRegressor

    chosen = dict(parameters)
    # Parameters are kept as tuples, which compare and log as one value; the library wants a list.
    if "monotone_constraints" in chosen:
        chosen["monotone_constraints"] = list(chosen["monotone_constraints"])
    return CatBoostRegressor(**chosen, **_FIXED).fit(inputs, target)


def _importance(estimator: Any, columns: int) -> Vector:
    return np.asarray(estimator.get_feature_importance(), dtype=np.float64)


def _contributions(estimator: Any, inputs: Inputs) -> Vector:
    from catboost import Pool

    found = estimator.get_feature_importance(Pool(inputs), type="ShapValues")
    return np.asarray(found, dtype=np.float64)


def _to_onnx(estimator: Any, columns: int, name: str) -> onnx.ModelProto:
    import onnx

    # CatBoost exports to files only.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        estimator.save_model(str(file), format="onnx")
        return onnx.load(file)


def _read(file: bytes) -> Any:
    from catboost import CatBoostRegressor

    return CatBoostRegressor().load_model(blob=file)


CATBOOST = Family(
    name="catboost",
    fewest_rows=40,
    defaults={
        "iterations": 100,
        "depth": 4,
        "learning_rate": 0.06,
        "loss_function": "MAE",
        "bootstrap_type": "Bernoulli",  # the usual one fails where all times are equal
        "subsample": 0.8,
        "l2_leaf_reg": 3.0,
        "rsm": 0.5,
        "border_count": 64,
    },
    search={
        "iterations": Range(25, 200),
        "depth": Range(2, 6),
        "learning_rate": Range(0.01, 0.3, log=True),
        "l2_leaf_reg": Range(0.5, 30.0, log=True),
        "rsm": Range(0.2, 1.0),
        "subsample": Range(0.4, 1.0),
    },
    also=("min_data_in_leaf", "random_strength"),
    constrain=_constrain,
    fit=_fit,
    importance=_importance,
    to_onnx=_to_onnx,
    flavor="catboost",
    files=("model.cb", "model.cbm"),
    read=_read,
    package="catboost",
    contributions=_contributions,
    contributions_by="exact Shapley values of the trees (catboost, ShapValues)",
)
