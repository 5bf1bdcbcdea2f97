"""How MLflow loads the trainer's model of a family that it has no form of its own for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from malearn.learning import families

__all__ = ["FAMILY"]

#: The file beside the estimator's that names its family.
FAMILY = "family.txt"


class _Called:
    """An estimator as MLflow calls it."""

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator

    def predict(self, inputs: Any) -> Any:
        # The signature names its one tensor, so that MLflow hands it over by that name.
        if isinstance(inputs, Mapping):
            (inputs,) = inputs.values()
        return self._estimator.predict(inputs)


def _load_pyfunc(path: str) -> Any:
    """What MLflow calls, with the directory that training wrote: an estimator with `predict`."""
    family = families.get((Path(path) / FAMILY).read_text("utf-8"))
    return _Called(family.read((Path(path) / family.files[0]).read_bytes()))
