"""`ExecTimePredictor`: the same learning in one process, without Redis or a server.

It keeps what is collected in a dataset of its own, learns in a background thread
once enough is new, and answers from memory. `learner` describes what stands below its home.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np

from malearn.kernel import features
from malearn.kernel.errors import InputError, TrainingError
from malearn.kernel.estimation import estimator, observation
from malearn.kernel.estimation.estimator import Basis, Estimator
from malearn.kernel.home import Home
from malearn.kernel.prediction import Prediction
from malearn.kernel.reading import believable, joining
from malearn.kernel.records import Execution, Record, Rejected
from malearn.kernel.tool_types import ToolType, ToolTypes, default_seconds
from malearn.learning import matrix
from malearn.learning.families import DEFAULT
from malearn.local.feature_names import FeatureNames
from malearn.local.learner import Learner

__all__ = ["ExecTimePredictor"]

_log = logging.getLogger(__name__)

_TICK = 1e-6  # seconds between two ends, so that they have an order


class ExecTimePredictor:
    """Seconds that tasks of one tool type will take.

    `model` is the family to fit: "xgboost", "mlp" or "linear". `home`, or `model_dir`
    as the original's documentation calls it, is the directory below which
    `<tool_type>/` stands (`$MALEARN_HOME`, else the working directory). Once `retrain_after`
    executions are new, and the family has enough of them, a model is fitted in
    the background; with 0 only `train_model` does that. `tool_types` is the
    declaration; without it, the shipped one, `malearn.toml` and what was set
    through `ExecTimePredictor.tool_types`.

    Building one reads what an earlier one left in its home. Safe to share
    between threads; a context manager; pickled, it arrives as a new one on the
    same home, once what it had collected is written. Raises `UnknownToolType`, `InputError`
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
        *,
        model_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        if home is not None and model_dir is not None:
            raise InputError("model_dir", "is another name of home: give one of them")
        declared = type(self).tool_types.declared() if tool_types is None else tool_types
        self._tool_type: ToolType = declared[tool_type]
        self._schema = features.FeatureSchema(self._tool_type)
        root = Home.find(home if model_dir is None else model_dir).root
        self._settings = {"model": model, "home": root, "retrain_after": retrain_after}
        self._settings["tool_types"] = declared
        self._learner = Learner(
            root, self._tool_type, model, retrain_after, "ExecTimePredictor", _one_after_another
        )
        self._lock = threading.Lock()
        self._estimator = Estimator()
        self._latest = 0.0  # the end of the last execution, in seconds since the epoch
        self._closed = False
        # Replayed, not stored: 10,000 executions take about a second.
        for execution in self._learner.restore():
            basis = self._estimator.look_up(
                execution.function,
                execution.tool_type,
                matrix.known_before(execution),
                matrix.context_before(execution),
            )
            self._learn(execution, basis)
        _alive.add(self)

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
        # Asked before the outcome is taken in: it is this answer whose error calibrates intervals.
        prediction, basis = self._answer(name, given)
        with self._lock:
            if self._closed:
                raise InputError("ExecTimePredictor", "is closed and takes in nothing more")
            # Ends only grow, even if the clock is set back or two calls fall together.
            end = max(time.time(), self._latest + _TICK)
            record = Record(identity, name, end - seconds, end, given)
            outcome = joining.to_execution(record, self._tool_type, given)
            outcome = self._learner.believed(outcome)
            if isinstance(outcome, Rejected):
                self._learner.reject(outcome, end, seconds)
            else:
                self._take(outcome, prediction, basis)
        return not isinstance(outcome, Rejected)

    def train_model(self, incremental: bool = False) -> bool:
        """Fit a model on what was collected and let it answer from now on; True when it does.

        Always a fit from scratch, on the newest 50,000 executions without outliers: a booster that
        is only ever continued keeps the trees of conditions that are gone, and
        what is new moves the history, and so every answer, without any fit.
        `incremental` means: only where something is new since the last one, else
        nothing is done and the answer is False.

        Raises `TrainingError` where there are too few executions, `ExportError`
        where its ONNX file does not answer as the fitted model does, and
        `DatasetError`; then the model before, if any, goes on answering.
        """
        return self._learner.train(incremental)

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

        The columns are the features and the history (`malearn.kernel.estimation.history.FEATURES`)
        that it looks at. Raises `TrainingError` while there is no model.
        """
        model = self._learner.model
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
            self._closed = True
        self._learner.close()
        _alive.discard(self)

    def __reduce__(self) -> tuple[Callable[..., ExecTimePredictor], tuple[object, ...]]:
        # Only the home is pickled: what the copy is to find must be on the disk.
        self._learner.flush()
        return _built, (type(self), self._tool_type.name, self._settings)

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

    # What is known, in memory.

    def _answer(self, function: str, given: Mapping[str, object]) -> tuple[Prediction, Basis]:
        """The best answer that there is, and what it was given on."""
        vector = self._schema.vectorize(given)
        values, context = vector.values, vector.context
        model = self._learner.model
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
        # An assumption is no prediction: its error says nothing of later answers.
        if prediction.source != "heuristic":
            execution = execution.with_prediction(prediction.seconds, prediction.model_version)
        self._learn(execution, basis)
        self._learner.add(execution)

    def _learn(self, execution: Execution, basis: Basis) -> None:
        if execution.predicted is not None:
            self._estimator.learn(basis, execution.predicted, execution.seconds)
        self._estimator.observe(matrix.observation(execution))
        self._latest = max(self._latest, execution.end)


def _built(
    kind: type[ExecTimePredictor], tool_type: str, settings: Mapping[str, Any]
) -> ExecTimePredictor:
    """A predictor of such settings, as it arrives in another process."""
    return kind(tool_type, **settings)


def _one_after_another(executions: Sequence[Execution]) -> list[Execution]:
    """`executions`, in order of their ends, as if each had started when the one before ended.

    When they started is not known: the clock says when they were reported, and
    a loop over old measurements reports a day of work within a second. So what
    is replayed is the order in which they became known.
    """
    # From 0 on: only the order and the durations count, to the history as to a fit.
    clock, arranged = 0.0, []
    for execution in executions:
        end = clock + execution.seconds
        arranged.append(replace(execution, start=clock, end=end))
        clock = end
    return arranged


def _seconds(value: object) -> float:
    """`value` as the seconds that a task took. Raises `InputError`."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError("actual_time", f"must be seconds, not {value!r}")
    if not 0.0 < value < believable.LONGEST:
        raise InputError(
            "actual_time",
            f"must be greater than 0 and less than {believable.LONGEST / 86_400.0:g} days, "
            f"in seconds (got {str(value)[:20]})",
        )
    return max(float(value), observation.SHORTEST)


def _plain(value: object) -> object:
    """A number of numpy's as one of Python's; all else as it is."""
    # Not all of numpy's numbers are numbers to `isinstance`, or to JSON.
    return value.item() if isinstance(value, np.generic) else value


def _text(value: object) -> str:
    """`value` as text that UTF-8 can carry; empty for None."""
    return "" if value is None else str(value).encode("utf-8", "backslashreplace").decode("utf-8")


# Weak, so that the exit hook keeps no predictor alive that its owner has dropped.
_alive: weakref.WeakSet[ExecTimePredictor] = weakref.WeakSet()


def _at_exit() -> None:
    for predictor in list(_alive):
        try:
            predictor.close()
        except Exception:  # noqa: BLE001 - nobody is left to raise it to
            _log.exception("some of what was collected could not be kept")


atexit.register(_at_exit)
