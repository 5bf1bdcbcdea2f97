"""What a family of models is: everything that malearn needs of a library, in one value.

A family fits a function from a row of inputs to a number in log-seconds. What surrounds it (the
level that it starts from, the clips, the exponential) is the same for all: see `regressor`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

__all__ = ["SEED", "Family", "Inputs", "Vector"]

#: float32 of shape (rows, columns), NaN where missing.
Inputs = NDArray[np.float32]
Vector = NDArray[np.float64]

#: Everything random is drawn from this, so that a fit can be repeated exactly.
SEED = 7


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of model.

    `fewest_rows`: fewer do not suffice to fit one.
    `parameters(monotone)` is what it is fitted with, given one constraint of -1, 0 or 1 a column.
    `fit(inputs, target, monotone)` takes targets in log-seconds and returns an estimator with
    scikit-learn's `predict`.
    `importance(estimator, columns)` gives one non-negative weight per column.
    `to_onnx(estimator, columns, name)` converts it to a graph of one input, `name`, of shape
    (rows, columns), and one output: what `predict` returns.
    `flavor` names the module of MLflow that saves it in its library's own form, `files` are the
    names that this form may have there, and `read(bytes)` makes an estimator of it. No form runs
    code: there is no pickle among them.
    `update(estimator, inputs, target, monotone)` returns another that goes on from a fitted one,
    which stays as it is, or None where that one has grown as large as it may; it is absent where
    a full fit costs no more.
    """

    name: str
    fewest_rows: int
    parameters: Callable[[Sequence[int]], Mapping[str, Any]]
    fit: Callable[[Inputs, Vector, Sequence[int]], Any]
    importance: Callable[[Any, int], Vector]
    to_onnx: Callable[[Any, int, str], onnx.ModelProto]
    flavor: Literal["xgboost", "sklearn"]
    files: tuple[str, ...]
    read: Callable[[bytes], Any]
    update: Callable[[Any, Inputs, Vector, Sequence[int]], Any | None] | None = None
