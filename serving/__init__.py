"""What a scheduler imports: seconds for a task before it runs, in microseconds.

Only onnxruntime, numpy, msgspec, hiredis and the kernel are ever loaded here, and even
those not before they are needed. `DAGTaskPredictor` is the door; every other
module holds one noun it is made of.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from malearn.serving.predictor import DAGTaskPredictor as DAGTaskPredictor
    from malearn.serving.stats import Stats as Stats

__all__ = ["DAGTaskPredictor", "Stats"]

_HOMES = {
    "DAGTaskPredictor": "malearn.serving.predictor",
    "Stats": "malearn.serving.stats",
}


# PEP 562: a submodule such as `daps` is imported without loading numpy and hiredis.
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'malearn.serving' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__]
