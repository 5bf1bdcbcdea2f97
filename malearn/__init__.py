"""malearn: how many seconds a task will take, learnt from a scheduler's own logs.

Importing this package loads nothing heavy; each name below loads what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from malearn.errors import MalearnError as MalearnError
    from malearn.exec_time_predictor import ExecTimePredictor as ExecTimePredictor
    from malearn.prediction import Prediction as Prediction
    from serving.predictor import DAGTaskPredictor as DAGTaskPredictor

__version__ = "0.1.0"
__all__ = ["DAGTaskPredictor", "ExecTimePredictor", "MalearnError", "Prediction"]

_HOMES = {
    "DAGTaskPredictor": "serving.predictor",
    "ExecTimePredictor": "malearn.exec_time_predictor",
    "MalearnError": "malearn.errors",
    "Prediction": "malearn.prediction",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'malearn' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
