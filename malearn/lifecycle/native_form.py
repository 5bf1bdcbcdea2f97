"""How MLflow loads the trainer's model of a family that it has no form of its own for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from malearn.learning import families

__all__ = ["FAMILY"]

#: The file beside the estimator's that names its family.
FAMILY = "family.txt"


def _load_pyfunc(path: str) -> Any:
    """What MLflow calls, with the directory that training wrote: an estimator with `predict`."""
    family = families.get((Path(path) / FAMILY).read_text("utf-8"))
    return family.read((Path(path) / family.files[0]).read_bytes())
