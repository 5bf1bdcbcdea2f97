"""Learning in the scheduler's own process, for those who run neither MLflow nor Prefect.

`malearn.local` does it, with the libraries that fit models. It is the one door from serving to
them, and is opened only where a directory is given to learn in.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol

from malearn.kernel.estimation.observation import Observation
from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.kernel.tool_types import ToolTypes

__all__ = ["LocalLearning"]

_log = logging.getLogger("malearn.serving")


class _Learners(Protocol):
    """`malearn.local.learners.Learners`, as far as it is used here."""

    def declare(self, tool_types: ToolTypes) -> None: ...
    def restore(self) -> Sequence[Observation]: ...
    def add(self, entry: bytes) -> None: ...
    def close(self, timeout: float) -> None: ...


class LocalLearning:
    """What a predictor learns from its own reports, below `directory`.

    `family`, `retrain_after` and `on_model` as for `malearn.local.learners.Learners`.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        tool_types: ToolTypes,
        family: str,
        retrain_after: int,
        on_model: Callable[[OnnxModel, int], None],
    ) -> None:
        # Late and by name: it loads the libraries that fit models, which nothing else here does.
        home = import_module("malearn.local.learners")
        self._learners: _Learners | None = home.Learners(
            directory, tool_types, family, retrain_after, on_model
        )

    def declare(self, tool_types: ToolTypes) -> None:
        """From now on tasks belong to `tool_types`."""
        if self._learners is not None:
            self._learners.declare(tool_types)

    def restore(self) -> Sequence[Observation]:
        """Go on from what is in the directory; returns what was observed lately."""
        return () if self._learners is None else self._learners.restore()

    def add(self, entry: bytes) -> None:
        """Learn from a finished task, as it is written to the stream. Never raises."""
        if self._learners is None:
            return
        try:
            self._learners.add(entry)
        except Exception:  # noqa: BLE001 - whatever a disk does, tasks go on to Redis
            _log.exception("A finished task could not be learnt from")

    def close(self, timeout: float) -> None:
        """Write what was collected, within `timeout` seconds, and stop. Never raises."""
        if self._learners is None:
            return
        try:
            self._learners.close(timeout)
        except Exception as error:  # noqa: BLE001 - a scheduler's end must not fail for it
            _log.warning("Some of what was collected could not be kept: %s", error)

    def after_fork(self) -> None:
        """In a child nothing is learnt: its parent goes on doing so in the same directory."""
        self._learners = None
