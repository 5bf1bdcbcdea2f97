"""The incumbent: the model that serves while others are trained, as training meets it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.learning.matrix import Matrix
from malearn.learning.regressor import Regressor

__all__ = ["Incumbent"]


@dataclass(frozen=True, slots=True)
class Incumbent:
    """A competitor, and where a warm start starts.

    `trained_until` is when the last execution that it was fitted on ended, in seconds since the
    epoch. `model` is what schedulers load, None in a replay, where nothing is exported;
    `regressor` the trainer's own model, None where it is not to be had. One of them is there.
    """

    version: int
    model: OnnxModel | None
    trained_until: float
    regressor: Regressor | None = None

    @property
    def name(self) -> str:
        return f"incumbent v{self.version}"

    def seconds(self, rows: Matrix) -> NDArray[np.float64]:
        """What schedulers would be answered for `rows`, in seconds, shape (rows,)."""
        # The exported file first, as it is what schedulers run.
        if self.model is not None:
            return self.model.predict(rows.inputs_for(self.model.metadata.columns))
        assert self.regressor is not None
        return self.regressor.seconds(rows.inputs_for(self.regressor.columns))
