"""`ExecTimePredictor`: the same learning in one process, without Redis or a server.

It keeps what is collected in a dataset of its own, learns in a background thread
once enough is new, and answers from memory. Below its home stand::

    <tool_type>/executions/       a Delta table: what was collected
    <tool_type>/model.onnx        the model, describing itself
    <tool_type>/importance.json   how much that model uses each feature
    _rejected/                    a Delta table: rejected executions, and why
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - what writes at exit needs it, too late to import then
import importlib.util
import logging
import math
import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import ClassVar, Self

import numpy as np

from malearn.kernel import believable, estimator, features, joining, stream_entries
from malearn.kernel.errors import ArtifactRefused, InputError, MalearnError, TrainingError
from malearn.kernel.estimator import Basis, Estimator
from malearn.kernel.home import Home
from malearn.kernel.prediction import Prediction
from malearn.kernel.records import Execution, Record, Rejected, RejectReason
from malearn.kernel.tool_types import Feature, ToolType, ToolTypes, default_seconds
from malearn.learning import families, matrix, regressor
from malearn.learning.families import DEFAULT
from malearn.local.feature_names import FeatureNames
from malearn.local.local_model import LocalModel
from malearn.local.write_buffer import WriteBuffer

__all__ = ["ExecTimePredictor"]

_log = logging.getLogger(__name__)

#: Seconds that a row waits for company, at most, and how many are company enough.
_GATHER, _ENOUGH = 2.0, 1_000
#: Executions, newest first, that a model is fitted on, and that a restart reads back.
_MOST_FITTED, _MOST_RECALLED = 50_000, 10_000
_SHORTEST = 1e-3  # seconds; what is shorter is taken as this
_TICK = 1e-6  # seconds between two ends, so that they have an order


class ExecTimePredictor:
    """Seconds that tasks of one tool type will take.

    `model` is the family to fit: "xgboost", "mlp" or "linear". `home` is a
    directory (`$MALEARN_HOME`, else the working directory). Once `retrain_after`
    executions are new, and the family has enough of them, a model is fitted in
    the background; with 0 only `train_model` does that. `tool_types` is the
    declaration; without it, the shipped one, `malearn.toml` and what was set
    through `ExecTimePredictor.tool_types`.

    Building one reads what an earlier one left in its home. Safe to share
    between threads; a context manager. Raises `UnknownToolType`, `InputError`
    for other arguments, `DatasetError` where its dataset cannot be read.

    Example::

        with ExecTimePredictor("llm_process", home="times") as predictor:
            predictor.collect_data(12.5, {"text_length": 1200, "token_count": 300})
            predictor.predict({"text_length": 900, "token_count": 210})
    """

    #: `{tool type's name: [its features]}`: a view of the declaration; setting one declares it.
    tool_types: ClassVar[FeatureNames] = FeatureNames()

    def __init__(
        self,
        tool_type: str,
        model: str = DEFAULT,
        home: str | os.PathLike[str] | None = None,
        retrain_after: int = 50,
        tool_types: ToolTypes | None = None,
    ) -> None:
        declared = type(self).tool_types.declared() if tool_types is None else tool_types
        self._tool_type: ToolType = declared[tool_type]
        self._schema = features.FeatureSchema(self._tool_type)
        if model not in families.FAMILIES and model not in (known := families.known()):
            raise InputError("model", f"'{model}' is none of {', '.join(known)}")
        if not isinstance(retrain_after, int) or retrain_after < 0:
            raise InputError("retrain_after", "must be a whole number of executions, or 0")
        _need("deltalake", "pyarrow", "onnx")
        root = Home.find(home).root
        self._family, self._retrain_after = model, retrain_after
        self._directory = root / self._tool_type.name
        self._write_buffer = WriteBuffer(
            self._directory / "executions", root / "_rejected", self._tool_type, "ExecTimePredictor"
        )
        self._lock, self._training = threading.Lock(), threading.Lock()
        self._estimator = Estimator()
        self._latest = 0.0  # the end of the last execution, in seconds since the epoch
        self._rows = self._new = 0  # executions; those of them that no model has seen
        self._next = retrain_after  # how many of these call for another model
        self._model: LocalModel | None = None
        self._thread: threading.Thread | None = None
        self._wake, self._hurry = threading.Event(), threading.Event()
        self._closed = False
        self._trouble = ""
        self._restore()
        _alive.add(self)
        if self._due():
            self._rouse()

    def collect_data(
        self,
        actual_time: float,
        features: Mapping[str, object],
        task_id: str | None = None,
        function: str | None = None,
    ) -> bool:
        """Learn that a task with these `features` took `actual_time` seconds and ended now.

        The next prediction knows of it; a background thread writes it. Features
        are numbers by name; None or no value means missing, what nobody declared
        is ignored. One that is no finite number, or outside its declared bounds,
        or none at all: the execution is kept in the home's `_rejected` table,
        with the reason, does not teach, and the answer is False. A task id that
        was given before replaces that execution in the dataset. `function`
        tells apart tasks whose times differ for reasons that no feature shows, as do
        the texts of the tool type's context (`model`, `backend`, `node`) among the features.

        Raises `InputError` for a time that is none, and once it is closed.
        """
        seconds = _seconds(actual_time)
        name = _text(function) or self._tool_type.name
        identity = _text(task_id) or f"{uuid.uuid4()}-{name}"
        given = self._checked_features(features)
        prediction, basis = self._answer(name, given)
        with self._lock:
            if self._closed:
                raise InputError("ExecTimePredictor", "is closed and takes in nothing more")
            end = max(time.time(), self._latest + _TICK)
            record = Record(identity, name, end - seconds, end, given)
            outcome = self._validated(joining.to_execution(record, self._tool_type, given))
            if isinstance(outcome, Rejected):
                self._write_buffer.reject(outcome, end, seconds)
            else:
                self._take(outcome, prediction, basis)
        self._rouse()
        return not isinstance(outcome, Rejected)

    def train_model(self, incremental: bool = False) -> bool:
        """Fit a model on what was collected and let it answer from now on; True when it does.

        Always a fit from scratch, on the newest 50,000 executions: a booster that
        is only ever continued keeps the trees of conditions that are gone, and
        what is new moves the history, and so every answer, without any fit.
        `incremental` means: only where something is new since the last one, else
        nothing is done and the answer is False.

        Raises `TrainingError` where there are too few executions, `ExportError`
        where its ONNX file does not answer as the fitted model does, and
        `DatasetError`; then the model before, if any, goes on answering.
        """
        with self._training:
            with self._lock:
                new = self._new
            if incremental and self._model is not None and not new:
                return False
            self._write_buffer.flush()
            executions, version = self._write_buffer.read()
            until = executions[-1].end if executions else 0.0
            chosen = list(_one_after_another(executions[-_MOST_FITTED:]))
            rows = matrix.build(self._tool_type, chosen)
            fitted = regressor.fit(self._family, rows)
            self._model = LocalModel.save(self._directory, fitted, rows, version, until)
            with self._lock:
                self._new = max(0, self._new - new)
                self._next = self._retrain_after
        return True

    def predict(self, features: Mapping[str, object], function: str | None = None) -> float:
        """Seconds that a task with these `features` will take; finite and positive."""
        return self.estimate(features, function).seconds

    def estimate(self, features: Mapping[str, object], function: str | None = None) -> Prediction:
        """As `predict`, with an interval, and where the answer comes from.

        The first that can answers: the model; what this function took lately;
        what the tool type took lately; an assumption for what it runs on. What is
        no number within its bounds counts as missing. `model_version` is the
        version of the dataset that the model was fitted on.
        """
        return self._answer(
            _text(function) or self._tool_type.name, self._checked_features(features)
        )[0]

    def get_feature_importance(self) -> dict[str, float]:
        """Weight per column of the model, summing to 1, largest first.

        The columns are the features and the history (`malearn.kernel.history.FEATURES`)
        that it looks at. Raises `TrainingError` while there is no model.
        """
        model = self._model
        if model is None or not model.importance:
            raise TrainingError(
                self._tool_type.name, "there is no model to ask yet; call train_model() first"
            )
        return dict(model.importance)

    def close(self) -> None:
        """Write what was collected, and stop. Safe to repeat; a closed one still predicts.

        Waits for a training that runs. Raises `DatasetError` or `OSError` where
        something could not be written.
        """
        with self._lock:
            if self._closed and not len(self._write_buffer):
                return
            self._closed = True
            thread = self._thread
        self._hurry.set()
        self._wake.set()
        if thread is not None:
            thread.join()
        if len(self._write_buffer):
            self._write_buffer.flush()
        _alive.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # The features of a task.

    def _checked_features(self, features: Mapping[str, object]) -> dict[str, object]:
        """The declared ones of `features`, as plain Python values."""
        if not isinstance(features, Mapping):
            kind = type(features).__name__
            raise InputError("features", f"must be numbers by name, not a {kind}")
        names = (*self._tool_type.feature_names, *self._tool_type.context)
        return {n: _plain(features[n]) for n in names if n in features}

    def _validated(self, outcome: Execution | Rejected) -> Execution | Rejected:
        """`outcome`, or why one of its features is not believed."""
        if isinstance(outcome, Rejected):
            return outcome
        for feature, number in zip(self._tool_type.features, outcome.ran, strict=True):
            if not _within(feature, number):
                bounds = f"{feature.minimum:g} and {feature.maximum:g}"
                return Rejected(
                    outcome.task_id,
                    outcome.function,
                    RejectReason.INVALID_FEATURE,
                    f"{feature.name} is {number:g}, not between {bounds}",
                    stream_entries.encode(outcome, self._tool_type).decode(),
                )
        return outcome

    # What is known, in memory.

    def _answer(self, function: str, given: Mapping[str, object]) -> tuple[Prediction, Basis]:
        """The best answer that there is, and what it was given on."""
        vector = self._schema.vectorize(given)
        values, context = vector.values, vector.context
        model = self._model
        with self._lock:
            basis = self._estimator.look_up(function, self._tool_type.name, values, context)
        default = default_seconds(None, self._tool_type)
        if model is None:
            return estimator.answer(basis, default), basis
        seconds = model.seconds(model.row(values, basis.snapshot))
        bounds = model.metadata.seconds_range
        answered = estimator.answer(basis, default, seconds, model.version, model_range=bounds)
        return answered, basis

    def _take(self, execution: Execution, prediction: Prediction, basis: Basis) -> None:
        """What came of a task that had been predicted so. Called with the lock held."""
        if prediction.source != "heuristic":
            execution = execution.with_prediction(prediction.seconds, prediction.model_version)
        self._learn(execution, basis)
        self._write_buffer.add(execution)
        self._rows += 1
        self._new += 1

    def _learn(self, execution: Execution, basis: Basis) -> None:
        if execution.predicted is not None:
            self._estimator.learn(basis, execution.predicted, execution.seconds)
        self._estimator.observe(matrix.observation(execution))
        self._latest = max(self._latest, execution.end)

    def _restore(self) -> None:
        """Go on from what is in the home."""
        executions, _ = self._write_buffer.read()
        for execution in executions[-_MOST_RECALLED:]:
            basis = self._estimator.look_up(
                execution.function,
                execution.tool_type,
                matrix.known_before(execution),
                matrix.context_before(execution),
            )
            self._learn(execution, basis)
        try:
            self._model = LocalModel.load(self._directory, self._tool_type)
        except ArtifactRefused as refusal:
            _log.warning("%s Recent times answer until the next training.", refusal)
        self._rows = self._new = len(executions)
        if self._model is not None and self._model.metadata.family == self._family:
            until = self._model.metadata.trained_until
            self._new = sum(execution.end > until for execution in executions)

    # The background thread.

    def _due(self) -> bool:
        """Whether enough is new for another model."""
        enough = self._rows >= families.get(self._family).fewest_rows
        return enough and self._retrain_after > 0 and self._new >= self._next

    def _rouse(self) -> None:
        """Let the background thread know that there is something to do."""
        if self._due() or len(self._write_buffer) >= _ENOUGH:
            self._hurry.set()
        if not self._wake.is_set():
            self._wake.set()
        thread = self._thread
        if thread is not None and thread.is_alive():
            return
        with self._lock:
            if not self._closed and (self._thread is None or not self._thread.is_alive()):
                name = f"malearn-{self._tool_type.name}"
                self._thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._hurry.wait(_GATHER)  # what comes in meanwhile goes into the same commit
            self._wake.clear()
            self._hurry.clear()
            if not self._attempt(self._write_buffer.flush, "keep what was collected") and (
                not self._closed
            ):
                time.sleep(_GATHER)
                self._wake.set()
                continue
            if self._due() and not self._closed and not self._attempt(self.train_model, "train"):
                with self._lock:
                    self._next = self._new + self._retrain_after  # not again for each one more

    def _attempt(self, act: Callable[[], object], what: str) -> bool:
        """Do it; False, and a line in the log, when it failed."""
        name = self._tool_type.name
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


def _one_after_another(executions: Iterable[Execution]) -> Iterator[Execution]:
    """`executions`, in order of their ends, as if each had started when the one before ended.

    When they started is not known: the clock says when they were reported, and
    a loop over old measurements reports a day of work within a second. So what
    is replayed is the order in which they became known.
    """
    clock = 0.0
    for execution in executions:
        end = clock + execution.seconds
        yield replace(execution, start=clock, end=end)
        clock = end


def _seconds(value: object) -> float:
    """`value` as the seconds that a task took. Raises `InputError`."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError("actual_time", f"must be seconds, not {value!r}")
    if not 0.0 < value < believable.LONGEST:
        raise InputError(
            "actual_time", f"must be between 0 and {believable.LONGEST:g} s, both excluded"
        )
    return max(float(value), _SHORTEST)


def _within(feature: Feature, number: float) -> bool:
    """Whether `number` is missing, or within the declared bounds."""
    low, high = features.limits(feature)
    return math.isnan(number) or low <= number <= high


def _plain(value: object) -> object:
    """A number of numpy's as one of Python's; all else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _text(value: object) -> str:
    """`value` as text that UTF-8 can carry; empty for None."""
    return "" if value is None else str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _need(*modules: str) -> None:
    """Raise `ModuleNotFoundError`, saying what brings it, for one that is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(
                f"ExecTimePredictor needs {module}, which malearn[lifecycle] brings; "
                "pip install 'malearn[lifecycle]'.",
                name=module,
            )


_alive: weakref.WeakSet[ExecTimePredictor] = weakref.WeakSet()


def _at_exit() -> None:
    for predictor in list(_alive):
        try:
            predictor.close()
        except Exception:  # noqa: BLE001 - nobody is left to raise it to
            _log.exception("some of what was collected could not be kept")


atexit.register(_at_exit)
