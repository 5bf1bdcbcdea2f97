"""malearn: how many seconds a task will take, learnt from a scheduler's own logs.

Importing this package loads nothing heavy; each name below loads what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from malearn.data import extract as extract
    from malearn.data.dataset import Dataset as Dataset
    from malearn.kernel import tool_types as tool_types
    from malearn.kernel.errors import MalearnError as MalearnError
    from malearn.kernel.home import Home as Home
    from malearn.kernel.prediction import Prediction as Prediction
    from malearn.kernel.workflow import Workflow as Workflow
    from malearn.kernel.workflow import WorkflowPrediction as WorkflowPrediction
    from malearn.learning import matrix as matrix
    from malearn.learning import metrics as metrics
    from malearn.learning import regressor as regressor
    from malearn.local.exec_time_predictor import ExecTimePredictor as ExecTimePredictor
    from malearn.serving.predictor import DAGTaskPredictor as DAGTaskPredictor

__version__ = "0.1.0"
__all__ = [
    "DAGTaskPredictor",
    "Dataset",
    "ExecTimePredictor",
    "Home",
    "MalearnError",
    "Prediction",
    "Workflow",
    "WorkflowPrediction",
    "extract",
    "matrix",
    "metrics",
    "regressor",
    "tool_types",
]

#: Where each name comes from: a class by its module, a module by its package.
_HOMES = {
    "DAGTaskPredictor": "malearn.serving.predictor",
    "Dataset": "malearn.data.dataset",
    "ExecTimePredictor": "malearn.local.exec_time_predictor",
    "Home": "malearn.kernel.home",
    "MalearnError": "malearn.kernel.errors",
    "Prediction": "malearn.kernel.prediction",
    "Workflow": "malearn.kernel.workflow",
    "WorkflowPrediction": "malearn.kernel.workflow",
    "extract": "malearn.data",
    "matrix": "malearn.learning",
    "metrics": "malearn.learning",
    "regressor": "malearn.learning",
    "tool_types": "malearn.kernel",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'malearn' has no attribute '{name}'")
    home = import_module(_HOMES[name])
    return getattr(home, name) if hasattr(home, name) else import_module(f"{home.__name__}.{name}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
