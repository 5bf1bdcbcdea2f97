"""Learning in a scheduler's own process: a learner per tool type, fed with what it reported.

What arrives is what would go to the stream, read as ingestion reads it; so nothing is learnt here
that would not be learnt there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from malearn.kernel.estimation.observation import Observation
from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.kernel.reading import stream_entries
from malearn.kernel.records import Execution, Rejected
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.learning import matrix
from malearn.local.learner import Learner
from malearn.local.local_model import LocalModel

__all__ = ["Learners"]

_log = logging.getLogger("malearn.serving")


class Learners:
    """The learners of all tool types below `directory`; each is built when it is needed.

    `family` and `retrain_after` as for `Learner`; `on_model` is called with each model that is
    found or fitted, and the version of the dataset that it was fitted on. Threads may share it. A
    scheduler calls it: `add` and `close` never raise.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        tool_types: ToolTypes,
        family: str,
        retrain_after: int,
        on_model: Callable[[OnnxModel, int], None],
    ) -> None:
        self._root, self._tool_types = Path(directory).absolute(), tool_types
        self._family, self._retrain_after, self._on_model = family, retrain_after, on_model
        self._lock = threading.Lock()
        self._learners: dict[str, Learner] = {}
        self._forked = False

    def declare(self, tool_types: ToolTypes) -> None:
        """From now on tasks belong to `tool_types`; learners keep the features they began with."""
        self._tool_types = tool_types

    def restore(self) -> list[Observation]:
        """Go on from what is in the directory; returns what was observed lately.

        Raises `DatasetError` or `InputError` for a dataset that cannot be read.
        """
        observed: list[Observation] = []
        for tool_type in self._tool_types.values():
            if (self._root / tool_type.name).is_dir():
                _, found = self._restored(tool_type)
                observed += found
        return observed

    def add(self, entry: bytes) -> None:
        """Learn from a finished task, as it is written to the stream.

        What no tool type claims is left out.
        """
        if self._forked:
            return
        try:
            self._add(entry)
        except Exception:  # noqa: BLE001 - whatever a disk does, tasks go on to Redis
            _log.exception("A finished task could not be learnt from")

    def close(self, timeout: float) -> None:
        """Write what was collected, and stop; a training that takes longer is given up.

        `timeout` is in seconds.
        """
        if self._forked:
            return
        until = time.monotonic() + timeout
        # Each gets what is left of the time, so that all together do not exceed it.
        for learner in list(self._learners.values()):
            try:
                learner.close(max(0.0, until - time.monotonic()))
            except Exception as error:  # noqa: BLE001 - a scheduler's end must not fail for it
                _log.warning("Some of what was collected could not be kept: %s", error)

    def after_fork(self) -> None:
        """In a child nothing is learnt: its parent goes on doing so in the same directory."""
        self._forked = True

    def _add(self, entry: bytes) -> None:
        outcome = stream_entries.read(entry, self._tool_types, now=time.time())
        tool_type = (
            self._tool_types[outcome.tool_type]
            if isinstance(outcome, Execution)
            else self._tool_types.for_function(outcome.function)
        )
        if tool_type is None:
            return
        # Only around the look-up, so that no learner is built twice; each has a lock of its own.
        with self._lock:
            learner = self._learners.get(tool_type.name) or self._restored(tool_type)[0]
        outcome = learner.believed(outcome)
        if isinstance(outcome, Rejected):
            learner.reject(outcome, outcome.end, None)
        else:
            learner.add(outcome)

    def _restored(self, tool_type: ToolType) -> tuple[Learner, list[Observation]]:
        """The learner of `tool_type`, and what it had observed."""

        def use(model: LocalModel) -> None:
            self._on_model(model, model.version)

        learner = Learner(
            self._root,
            tool_type,
            self._family,
            self._retrain_after,
            "DAGTaskPredictor",
            on_model=use,
        )
        executions = learner.restore()
        if learner.model is not None:
            use(learner.model)
        self._learners[tool_type.name] = learner
        return learner, [matrix.observation(execution) for execution in executions]
