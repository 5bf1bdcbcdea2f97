"""The model families: what can be fitted, each in one row of a table.

A family fits a function from a row of inputs to a number in log-seconds. What
surrounds it (the level it starts from, the clips, the exponential) is the same
for all and lives in `regressor.py`.
"""

from __future__ import annotations

import copy
import io
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEFAULT", "FAMILIES", "TRUSTED_TYPES", "Family"]

Matrix = NDArray[np.float32]
Vector = NDArray[np.float64]

#: Everything random is drawn from this, so that a fit can be repeated exactly.
SEED = 7

DEFAULT = "xgboost"

#: What skops may make beside the types of numpy and scikit-learn that it knows to be harmless.
TRUSTED_TYPES = ["numpy.dtype"]
_LARGEST_FILE = 256 * 1024 * 1024  # bytes, unpacked

_MANY = 20_000  # rows, from which on a second thread pays


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of model.

    `fit(inputs, target, monotone)` takes float32 inputs of shape (rows, columns)
    with NaN for missing, targets in log-seconds and one constraint of -1, 0 or 1
    per column, and returns an estimator with scikit-learn's `predict`.
    `parameters(monotone)` is what it is fitted with then.
    `importance(estimator, columns)` gives one non-negative weight per column.
    Fewer rows than `fewest_rows` do not suffice for it.
    `update(estimator, inputs, target, monotone)` returns another that goes on from a fitted
    one, which stays as it is, or None where that one has grown as large as it may; it is
    absent where fitting anew costs no more.
    `files` are the names that its own form may have in MLflow, and `read(bytes)` makes an
    estimator of it. No form runs code: there is no pickle among them.
    """

    name: str
    fewest_rows: int
    parameters: Callable[[Sequence[int]], Mapping[str, Any]]
    fit: Callable[[Matrix, Vector, Sequence[int]], Any]
    importance: Callable[[Any, int], Vector]
    files: tuple[str, ...]
    read: Callable[[bytes], Any]
    update: Callable[[Any, Matrix, Vector, Sequence[int]], Any | None] | None = None


_XGBOOST: Mapping[str, Any] = {
    "n_estimators": 75,
    "max_depth": 4,
    "learning_rate": 0.06,
    "objective": "reg:absoluteerror",
    "subsample": 0.7,
    "colsample_bytree": 0.5,
    "min_child_weight": 8,
    "max_bin": 64,
}
_MLP: Mapping[str, Any] = {
    "hidden_layer_sizes": (16,),
    "solver": "lbfgs",
    "alpha": 1.0,
    "max_iter": 200,
}
_LINEAR: Mapping[str, Any] = {"alpha": 10.0, "max_iter": 300}

#: What an update adds, and how large a model may become by updates.
_MORE_TREES, _MOST_TREES = 15, 150
_MORE_STEPS = 40


def _xgboost(monotone: Sequence[int]) -> Mapping[str, Any]:
    if not any(monotone):
        return _XGBOOST
    # The leaves of an absolute error are set anew once a tree is grown, past any constraint.
    bound = {"objective": "reg:squarederror", "monotone_constraints": tuple(monotone)}
    return {**_XGBOOST, **bound}


def _fit_xgboost(inputs: Matrix, target: Vector, monotone: Sequence[int]) -> Any:
    from xgboost import XGBRegressor

    return XGBRegressor(
        **_xgboost(monotone),
        n_jobs=1 if len(inputs) < _MANY else os.cpu_count(),
        random_state=SEED,
    ).fit(inputs, target)


def _update_xgboost(
    estimator: Any, inputs: Matrix, target: Vector, monotone: Sequence[int]
) -> Any | None:
    from xgboost import XGBRegressor

    booster = estimator.get_booster()
    if booster.num_boosted_rounds() + _MORE_TREES > _MOST_TREES:
        return None
    parameters = {**_xgboost(monotone), "n_estimators": _MORE_TREES}
    return XGBRegressor(**parameters, n_jobs=1, random_state=SEED).fit(
        inputs, target, xgb_model=booster
    )


def _fit_mlp(inputs: Matrix, target: Vector, monotone: Sequence[int]) -> Any:
    from sklearn.neural_network import MLPRegressor

    return _fitted(_scaled(MLPRegressor(**_MLP, random_state=SEED)), inputs, target)


def _update_mlp(estimator: Any, inputs: Matrix, target: Vector, monotone: Sequence[int]) -> Any:
    updated = copy.deepcopy(estimator)
    updated[-1].set_params(warm_start=True, max_iter=_MORE_STEPS)
    _fitted(updated[-1], updated[:-1].transform(inputs), target)
    return updated


def _fit_linear(inputs: Matrix, target: Vector, monotone: Sequence[int]) -> Any:
    from sklearn.linear_model import HuberRegressor

    return _fitted(_scaled(HuberRegressor(**_LINEAR)), inputs, target)


def _scaled(estimator: Any) -> Any:
    """Medians for what is missing, inputs held to the range of training, then `estimator`."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    return make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        MinMaxScaler(clip=True),
        StandardScaler(),
        estimator,
    )


def _fitted(estimator: Any, inputs: Matrix, target: Vector) -> Any:
    """Fit on one thread: small as these are, more only get in each other's way."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        # Stopping at max_iter is the regularisation that is wanted.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(inputs, target)


def _gain(estimator: Any, columns: int) -> Vector:
    gains = estimator.get_booster().get_score(importance_type="total_gain")
    return np.array([float(gains.get(f"f{i}", 0.0)) for i in range(columns)])


def _first_layer(estimator: Any, columns: int) -> Vector:
    return np.asarray(np.abs(estimator[-1].coefs_[0]).sum(axis=1), dtype=np.float64)


def _coefficients(estimator: Any, columns: int) -> Vector:
    return np.asarray(np.abs(estimator[-1].coef_), dtype=np.float64).reshape(-1)


def _read_xgboost(file: bytes) -> Any:
    from xgboost import XGBRegressor

    estimator = XGBRegressor(n_jobs=1)
    estimator.load_model(bytearray(file))
    return estimator


def _read_pipeline(file: bytes) -> Any:
    """A pipeline of exactly the steps that `_scaled` makes, from skops' form."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import HuberRegressor
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler
    from skops.io import loads

    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        if sum(part.file_size for part in archive.infolist()) > _LARGEST_FILE:
            raise ValueError("it is too large")
    estimator = loads(file, trusted=TRUSTED_TYPES)
    expected = [{SimpleImputer}, {MinMaxScaler}, {StandardScaler}, {MLPRegressor, HuberRegressor}]
    kinds = [type(step) for _, step in estimator.steps] if type(estimator) is Pipeline else []
    if len(kinds) != len(expected) or any(
        kind not in accepted for kind, accepted in zip(kinds, expected, strict=True)
    ):
        raise ValueError("it is not a pipeline of the steps that malearn trains")
    return estimator


_UBJ, _SKOPS = ("model.ubj", "model.json"), ("model.skops",)

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("xgboost", 40, _xgboost, _fit_xgboost, _gain, _UBJ, _read_xgboost, _update_xgboost),
        Family(
            "mlp", 100, lambda _: _MLP, _fit_mlp, _first_layer, _SKOPS, _read_pipeline, _update_mlp
        ),
        Family("linear", 30, lambda _: _LINEAR, _fit_linear, _coefficients, _SKOPS, _read_pipeline),
    )
}
