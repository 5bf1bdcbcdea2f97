"""The families `mlp` and `linear`, and how any pipeline of scikit-learn becomes a family."""

from __future__ import annotations

import copy
import io
import warnings
import zipfile
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from malearn.learning.families.family import (
    SEED,
    Choice,
    Family,
    Inputs,
    Parameters,
    Range,
    Vector,
)

if TYPE_CHECKING:
    import onnx

__all__ = ["LINEAR", "MLP", "TRUSTED_TYPES", "family", "scaled"]

#: Iterations that an update of the `mlp` goes on for.
_MORE_STEPS = 40
_OPSET = 15
#: What skops may make beside the types of numpy and scikit-learn that it knows to be harmless.
TRUSTED_TYPES = ("numpy.dtype",)
# A small archive can unpack to gigabytes; models of these families take kilobytes.
_LARGEST_FILE = 256 * 1024 * 1024  # bytes, unpacked


def family(
    name: str,
    build: Callable[..., Any],
    *,
    defaults: Parameters | None = None,
    search: Mapping[str, Range | Choice] | None = None,
    also: tuple[str, ...] = (),
    fewest_rows: int = 30,
    update: Callable[[Any, Inputs, Vector, Parameters], Any | None] | None = None,
    trusted: tuple[str, ...] = (),
    package: str = "scikit-learn",
    contributions: Callable[[Any, Inputs], Vector] | None = None,
    contributions_by: str = "",
) -> Family:
    """A family of the estimators that `build(**hyper-parameters)` makes: scikit-learn pipelines.

    `build` is called with `defaults` and what a declaration or a search sets instead. Its native
    form is skops', of which nothing is read but a pipeline of the same steps.
    """
    chosen = defaults or {}
    return Family(
        name=name,
        fewest_rows=fewest_rows,
        defaults=chosen,
        search=search or {},
        also=also,
        fit=lambda inputs, target, parameters: _fitted(build(**parameters), inputs, target),
        importance=_importance,
        to_onnx=_to_onnx,
        flavor="sklearn",
        files=("model.skops",),
        read=lambda file: _read(file, build(**chosen), trusted),
        update=update,
        trusted=trusted,
        package=package,
        contributions=contributions,
        contributions_by=contributions_by,
    )


def scaled(estimator: Any) -> Any:
    """Medians for what is missing, inputs held to the range of training, then `estimator`."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    return make_pipeline(
        # A column that is missing in all rows stays, so that columns keep their places.
        SimpleImputer(strategy="median", keep_empty_features=True),
        # Linear models and networks extrapolate without bound outside the range of training.
        MinMaxScaler(clip=True),
        StandardScaler(),
        estimator,
    )


def _mlp(**parameters: Any) -> Any:
    from sklearn.neural_network import MLPRegressor

    return scaled(MLPRegressor(**parameters, random_state=SEED))


def _update_mlp(estimator: Any, inputs: Inputs, target: Vector, parameters: Parameters) -> Any:
    # The incumbent serves on, and is compared with its own update.
    updated = copy.deepcopy(estimator)
    updated[-1].set_params(warm_start=True, max_iter=_MORE_STEPS)
    # The last step alone: rescaled inputs would not fit the weights that it starts from.
    _fitted(updated[-1], updated[:-1].transform(inputs), target)
    return updated


def _linear(**parameters: Any) -> Any:
    from sklearn.linear_model import HuberRegressor

    # Huber's loss: a few executions that took minutes must not tilt the whole line.
    return scaled(HuberRegressor(**parameters))


def _fitted(estimator: Any, inputs: Inputs, target: Vector) -> Any:
    """Fit on one thread: small as these are, more only get in each other's way."""
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        # Stopping at max_iter is the regularisation that is wanted.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(inputs, target)


def _importance(estimator: Any, columns: int) -> Vector:
    """The weights of the last step, where they belong to the columns; else all equal."""
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    if hasattr(last, "feature_importances_"):
        weights = last.feature_importances_
    elif hasattr(last, "coefs_"):  # of a network: its first layer
        weights = np.abs(last.coefs_[0]).sum(axis=1)
    else:
        weights = np.abs(getattr(last, "coef_", np.ones(columns)))
    found = np.asarray(weights, dtype=np.float64).reshape(-1)
    return found if len(found) == columns else np.ones(columns)


def _products(estimator: Any, inputs: Inputs) -> Vector:
    """Each coefficient times its scaled input; 0 is the mean of training."""
    scaled = np.asarray(estimator[:-1].transform(inputs), dtype=np.float64)
    products = scaled * np.asarray(estimator[-1].coef_, dtype=np.float64).reshape(1, -1)
    rest = np.full((len(products), 1), float(np.ravel(estimator[-1].intercept_)[0]))
    return np.hstack([products, rest])


def _to_onnx(estimator: Any, columns: int, name: str) -> onnx.ModelProto:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    types = [(name, FloatTensorType([None, columns]))]
    model: onnx.ModelProto = to_onnx(estimator, initial_types=types, target_opset=_OPSET)
    return model


def _read(file: bytes, alike: Any, trusted: tuple[str, ...]) -> Any:
    """What skops kept, if it has exactly the steps of `alike`."""
    from skops.io import loads

    # Before anything is unpacked: sizes stand in the archive's directory.
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        if sum(part.file_size for part in archive.infolist()) > _LARGEST_FILE:
            raise ValueError("it is too large")
    estimator = loads(file, trusted=[*TRUSTED_TYPES, *trusted])
    # Types that skops trusts may still be combined in ways that nobody here trained.
    if _steps(estimator) != _steps(alike):
        raise ValueError("it is not a pipeline of the steps that malearn trains")
    return estimator


def _steps(estimator: Any) -> list[type]:
    steps = estimator.steps if hasattr(estimator, "steps") else []
    return [type(estimator), *(type(step) for _, step in steps)]


MLP = family(
    "mlp",
    _mlp,
    fewest_rows=100,
    # lbfgs, scikit-learn's advice for small data: no learning rate, and the same result each time.
    defaults={"hidden_layer_sizes": (16,), "solver": "lbfgs", "alpha": 1.0, "max_iter": 200},
    search={
        "hidden_layer_sizes": Choice(((8,), (16,), (32,), (16, 8))),
        "alpha": Range(0.01, 100.0, log=True),
        "max_iter": Range(50, 400),
    },
    also=("activation", "tol"),
    update=_update_mlp,
)
LINEAR = family(
    "linear",
    _linear,
    fewest_rows=30,
    defaults={"alpha": 10.0, "max_iter": 300, "epsilon": 1.35},
    search={"alpha": Range(0.01, 1000.0, log=True), "epsilon": Range(1.05, 3.0)},
    also=("tol",),
    contributions=_products,
    contributions_by="products of coefficient and input",
)
