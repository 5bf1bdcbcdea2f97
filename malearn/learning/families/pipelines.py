"""The families `mlp` and `linear`: scikit-learn pipelines, and what all such families share."""

from __future__ import annotations

import copy
import io
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from malearn.learning.families.family import SEED, Family, Inputs, Vector

if TYPE_CHECKING:
    import onnx

__all__ = ["LINEAR", "MLP", "TRUSTED_TYPES"]

_MLP: Mapping[str, Any] = {
    "hidden_layer_sizes": (16,),
    "solver": "lbfgs",
    "alpha": 1.0,
    "max_iter": 200,
}
_LINEAR: Mapping[str, Any] = {"alpha": 10.0, "max_iter": 300}
#: Iterations that an update of the `mlp` goes on for.
_MORE_STEPS = 40
_OPSET = 15
#: What skops may make beside the types of numpy and scikit-learn that it knows to be harmless.
TRUSTED_TYPES = ["numpy.dtype"]
_LARGEST_FILE = 256 * 1024 * 1024  # bytes, unpacked


def _fit_mlp(inputs: Inputs, target: Vector, monotone: Sequence[int]) -> Any:
    from sklearn.neural_network import MLPRegressor

    return _fitted(_scaled(MLPRegressor(**_MLP, random_state=SEED)), inputs, target)


def _update_mlp(estimator: Any, inputs: Inputs, target: Vector, monotone: Sequence[int]) -> Any:
    updated = copy.deepcopy(estimator)
    updated[-1].set_params(warm_start=True, max_iter=_MORE_STEPS)
    _fitted(updated[-1], updated[:-1].transform(inputs), target)
    return updated


def _fit_linear(inputs: Inputs, target: Vector, monotone: Sequence[int]) -> Any:
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


def _fitted(estimator: Any, inputs: Inputs, target: Vector) -> Any:
    """Fit on one thread: small as these are, more only get in each other's way."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        # Stopping at max_iter is the regularisation that is wanted.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(inputs, target)


def _first_layer(estimator: Any, columns: int) -> Vector:
    return np.asarray(np.abs(estimator[-1].coefs_[0]).sum(axis=1), dtype=np.float64)


def _coefficients(estimator: Any, columns: int) -> Vector:
    return np.asarray(np.abs(estimator[-1].coef_), dtype=np.float64).reshape(-1)


def _to_onnx(estimator: Any, columns: int, name: str) -> onnx.ModelProto:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    types = [(name, FloatTensorType([None, columns]))]
    model: onnx.ModelProto = to_onnx(estimator, initial_types=types, target_opset=_OPSET)
    return model


def _read(file: bytes) -> Any:
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


MLP = Family(
    name="mlp",
    fewest_rows=100,
    parameters=lambda _: _MLP,
    fit=_fit_mlp,
    importance=_first_layer,
    to_onnx=_to_onnx,
    flavor="sklearn",
    files=("model.skops",),
    read=_read,
    update=_update_mlp,
)
LINEAR = Family(
    name="linear",
    fewest_rows=30,
    parameters=lambda _: _LINEAR,
    fit=_fit_linear,
    importance=_coefficients,
    to_onnx=_to_onnx,
    flavor="sklearn",
    files=("model.skops",),
    read=_read,
)
