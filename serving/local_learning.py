"""Learning in the scheduler's own process, for those who run neither MLflow nor Prefect.

`malearn.local` does it, with the libraries that fit models. This is the one door from serving to
them, and is opened only where a directory is given to learn in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol

from malearn.kernel.estimation.observation import Observation
from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.kernel.tool_types import ToolTypes
from malearn.serving.settings import Settings

__all__ = ["LocalLearning", "begin"]


class LocalLearning(Protocol):
    """What a predictor learns from its own reports: `malearn.local.learners.Learners`.

    Only `declare` and `restore` may raise.
    """

    def declare(self, tool_types: ToolTypes) -> None: ...
    def restore(self) -> Sequence[Observation]: ...
    def add(self, entry: bytes) -> None: ...
    def close(self, timeout: float) -> None: ...
    def after_fork(self) -> None: ...


def begin(settings: Settings, on_model: Callable[[OnnxModel, int], None]) -> LocalLearning | None:
    """Learning below the `model_dir` of `settings`, None without one."""
    if settings.model_dir is None:
        return None
    # Late and by name: it loads the libraries that fit models, which nothing else here does.
    learners = import_module("malearn.local.learners")
    begun: LocalLearning = learners.Learners(
        settings.model_dir, settings.tool_types, settings.model, settings.retrain_after, on_model
    )
    return begun
