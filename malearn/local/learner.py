"""Learning in one process: what was collected of one tool type, and the model fitted on it.

Rows wait briefly for company and are then written by a background thread, which also fits another
model once enough is new. Below the directory that a learner is given stand::

    <tool_type>/executions/                 a Delta table: what was collected
    <tool_type>/data/<tool_type>_data.csv   the same as CSV, one row after the other
    <tool_type>/model.onnx                  the model, describing itself
    <tool_type>/importance.json             how much that model uses each feature
    _rejected/                              a Delta table: rejected executions, and why
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - what writes at exit needs it, too late to import then
import importlib.util
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from malearn.kernel import features
from malearn.kernel.errors import ArtifactRefused, InputError, MalearnError
from malearn.kernel.reading import stream_entries
from malearn.kernel.records import Execution, Rejected, RejectReason
from malearn.kernel.tool_types import Feature, ToolType
from malearn.learning import families, matrix, regressor
from malearn.local.local_model import LocalModel
from malearn.local.write_buffer import WriteBuffer

__all__ = ["Learner"]

_log = logging.getLogger(__name__)

#: Seconds that a row waits for company, at most, and how many are company enough.
#: A commit costs milliseconds: one every two seconds is no load, and little is lost in a crash.
_GATHER, _ENOUGH = 2.0, 1_000
#: Executions, newest first, that a model is fitted on, and that a restart reads back.
_MOST_FITTED, _MOST_RECALLED = 50_000, 10_000


class Learner:
    """The dataset and the model of `tool_type` below `root`; threads may share it.

    `family` is what to fit, once `retrain_after` executions are new and the family has enough of
    them; 0: only `train` fits. `arrange` orders what a model is fitted on in time. `on_model` is
    called with each model that is fitted here, before the next row is written. Raises
    `InputError` for arguments that are none, `ModuleNotFoundError` where malearn[lifecycle] is
    not installed.
    """

    def __init__(
        self,
        root: Path,
        tool_type: ToolType,
        family: str,
        retrain_after: int,
        source: str,
        arrange: Callable[[Sequence[Execution]], Sequence[Execution]] = list,
        on_model: Callable[[LocalModel], None] = lambda model: None,
    ) -> None:
        if family not in families.FAMILIES and family not in (known := families.known()):
            raise InputError("model", f"'{family}' is none of {', '.join(known)}")
        if not isinstance(retrain_after, int) or retrain_after < 0:
            raise InputError("retrain_after", "must be a whole number of executions, or 0")
        _need("deltalake", "pyarrow", "onnx")
        self.tool_type, self.family = tool_type, family
        self.model: LocalModel | None = None
        self._retrain_after, self._arrange, self._on_model = retrain_after, arrange, on_model
        self._directory = root / tool_type.name
        self._write_buffer = WriteBuffer(self._directory, root / "_rejected", tool_type, source)
        self._lock, self._training = threading.Lock(), threading.Lock()
        self._rows = self._new = 0  # executions; those of them that no model has seen
        self._next = retrain_after  # how many of these call for another model
        self._thread: threading.Thread | None = None
        self._wake, self._hurry = threading.Event(), threading.Event()
        self._closed = False
        self._trouble = ""

    def restore(self) -> list[Execution]:
        """Go on from what is in the directory; returns its newest executions, in order of end.

        Raises `DatasetError` for a dataset that cannot be read.
        """
        executions, _ = self._write_buffer.read()
        try:
            self.model = LocalModel.load(self._directory, self.tool_type)
        except ArtifactRefused as refusal:
            _log.warning("%s Recent times answer until the next training.", refusal)
        self._rows = self._new = len(executions)
        if self.model is not None and self.model.metadata.family == self.family:
            until = self.model.metadata.trained_until
            # By end, because the model's file says until when it knows, not which rows.
            self._new = sum(execution.end > until for execution in executions)
        if self._due():
            self._rouse()
        return executions[-_MOST_RECALLED:]

    def believed(self, outcome: Execution | Rejected) -> Execution | Rejected:
        """`outcome`, or why one of the features that the task reported is not believed."""
        if isinstance(outcome, Rejected):
            return outcome
        for feature, number in zip(self.tool_type.features, outcome.ran, strict=True):
            if not _within(feature, number):
                bounds = f"{feature.minimum:g} and {feature.maximum:g}"
                return Rejected(
                    outcome.task_id,
                    outcome.function,
                    RejectReason.INVALID_FEATURE,
                    f"{feature.name} is {number:g}, not between {bounds}",
                    stream_entries.encode(outcome, self.tool_type).decode(),
                )
        return outcome

    def add(self, execution: Execution) -> None:
        """Keep one finished task, to be written and learnt from in the background."""
        with self._lock:
            self._write_buffer.add(execution)
            self._rows += 1
            self._new += 1
        self._rouse()

    def reject(self, rejected: Rejected, end: float | None, seconds: float | None) -> None:
        """Keep the rejection of a task that ended at `end` after `seconds`, where that is known."""
        self._write_buffer.reject(rejected, end, seconds)
        self._rouse()

    def train(self, incremental: bool = False) -> bool:
        """Fit a model on what was collected, outliers left out; True once it is the model.

        `incremental`: only where something is new since the last one. Raises `TrainingError`,
        `ExportError` and `DatasetError`; then the model before stays.
        """
        from malearn.data import outliers

        # One fit at a time, the thread's or a caller's; `_lock` is held only for moments within it.
        with self._training:
            with self._lock:
                new = self._new
            if incremental and self.model is not None and not new:
                return False
            # Written first, so that the version named in the model holds all its rows.
            self._write_buffer.flush()
            executions, version = self._write_buffer.read()
            until = executions[-1].end if executions else 0.0
            ordinary, _ = outliers.fence(executions[-_MOST_FITTED:], {})
            rows = matrix.build(self.tool_type, self._arrange(ordinary))
            fitted = regressor.fit(self.family, rows)
            self.model = LocalModel.save(self._directory, fitted, rows, version, until)
            with self._lock:
                # What came in during the fit stays new.
                self._new = max(0, self._new - new)
                self._next = self._retrain_after
            self._on_model(self.model)
        return True

    def flush(self) -> None:
        """Write what was collected, now. Raises `DatasetError` or `OSError`."""
        if len(self._write_buffer):
            self._write_buffer.flush()

    def close(self, timeout: float | None = None) -> None:
        """Write what was collected, and stop. Safe to repeat.

        Waits `timeout` seconds for a training that runs, None: until it ends. Raises
        `DatasetError` or `OSError` where something could not be written.
        """
        with self._lock:
            if self._closed and not len(self._write_buffer):
                return
            self._closed = True
            thread = self._thread
        self._hurry.set()
        self._wake.set()
        if thread is not None:
            thread.join(timeout)
        self.flush()

    # The background thread.

    def _due(self) -> bool:
        """Whether enough is new for another model."""
        enough = self._rows >= families.get(self.family).fewest_rows
        return enough and self._retrain_after > 0 and self._new >= self._next

    def _rouse(self) -> None:
        """Let the background thread know that there is something to do."""
        if self._due() or len(self._write_buffer) >= _ENOUGH:
            self._hurry.set()
        # Asked first: reading an event takes no lock, setting it does.
        if not self._wake.is_set():
            self._wake.set()
        thread = self._thread
        if thread is not None and thread.is_alive():
            return
        with self._lock:
            # Asked again under the lock: two callers must not start two threads. After a fork the
            # thread is not alive, and the child starts its own.
            if not self._closed and (self._thread is None or not self._thread.is_alive()):
                name = f"malearn-{self.tool_type.name}"
                self._thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._hurry.wait(_GATHER)  # what comes in meanwhile goes into the same commit
            # Cleared before the work, so that what comes in during it wakes the thread once more.
            self._wake.clear()
            self._hurry.clear()
            if not self._attempt(self._write_buffer.flush, "keep what was collected") and (
                not self._closed
            ):
                # Rows stay in memory and are tried again: a disk may have room by then.
                time.sleep(_GATHER)
                self._wake.set()
                continue
            if self._due() and not self._closed and not self._attempt(self.train, "train"):
                with self._lock:
                    self._next = self._new + self._retrain_after  # not again for each one more

    def _attempt(self, act: Callable[[], object], what: str) -> bool:
        """Do it; False, and a line in the log, when it failed."""
        name = self.tool_type.name
        try:
            act()
        except (MalearnError, OSError) as error:
            if str(error) != self._trouble:  # logged once, not every two seconds
                _log.warning("%s: could not %s, will try again: %s", name, what, error)
            self._trouble = str(error)
            return False
        except Exception:  # noqa: BLE001 - the thread must live on
            # At exit no library can be loaded any more: the next start makes up for it.
            if threading.main_thread().is_alive():
                _log.exception("%s: could not %s, will try again", name, what)
            return False
        self._trouble = ""
        return True


def _within(feature: Feature, number: float) -> bool:
    """Whether `number` is missing, or within the declared bounds."""
    low, high = features.limits(feature)
    return math.isnan(number) or low <= number <= high


def _need(*modules: str) -> None:
    """Raise `ModuleNotFoundError`, saying what brings it, for one that is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(
                f"Learning in one process needs {module}, which malearn[lifecycle] brings; "
                "pip install 'malearn[lifecycle]'.",
                name=module,
            )
