"""The one fallback chain: from what is known of a task to the answer that it gets.

The first that gives a time answers: the tool type's model; what the function took lately; what
its tool type took lately; the default seconds of the resource. A model that fails falls to the
function's history, not to the default. Where both a model and the function's history have an
answer they are mixed, by how far each was off lately (`model_weights`). The scheduler's
predictor, `ExecTimePredictor`, evaluation and monitoring all answer, and learn from outcomes,
through this module.

Looking up needs the estimator's state and is what an owner locks; `answer` is pure, so that a
model may run in between, outside the lock::

    basis = estimator.look_up(function, tool_type, features, context)
    prediction = answer(basis, default, model.seconds((*features, *basis.snapshot)))
    …
    estimator.learn(basis, prediction.seconds, actual)
    estimator.observe(observation)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from malearn.kernel.estimation import input_effects, intervals, model_weights
from malearn.kernel.estimation.explanation import LevelExplanation, Term
from malearn.kernel.estimation.history import FEATURES, FUNCTIONS, BelievedLevel, History
from malearn.kernel.estimation.intervals import Factors, Intervals, Width
from malearn.kernel.estimation.model_weights import ModelWeights
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.prediction import Prediction, Source
from malearn.kernel.workflows.unsuccessful_tasks import TaskOutcome, UnsuccessfulTasks
from malearn.kernel.workflows.workflow_hints import Hint, HintEffect, WorkflowHints

__all__ = ["Basis", "Estimator", "answer", "at_bound"]


class Basis(msgspec.Struct, frozen=True, gc=False):
    """What is known of one task before it runs: enough to answer, and to learn from the outcome.

    `snapshot` holds `history.FEATURES`, the columns a model reads after the task's own features;
    none of them where it was looked up together with others.
    `source` and `seconds` are what answers where no model does; NaN seconds, and the source
    "heuristic", where neither function nor tool type were ever seen. `model_weight`, above 0 and
    at most 1, is how much a model's answer counts beside `seconds`. `inputs` identify the task's
    features among others of the function; empty where none are known, or the function is not.
    """

    function: str
    tool_type: str
    snapshot: tuple[float, ...]
    source: Source
    seconds: float
    width: Width
    model_weight: float = 1.0
    inputs: bytes = b""


def answer(
    basis: Basis,
    default: float,
    model_seconds: float | None = None,
    model_version: int | None = None,
    calibration: Factors | None = None,
    model_range: tuple[float, float] | None = None,
) -> Prediction:
    """The best answer that there is for one task.

    `default` is the seconds to assume where nothing is known. `model_seconds` is the model's
    answer, None without a model; one that is not finite and positive is passed over.
    `calibration` is the model's own interval, until enough outcomes were seen here. `model_range`
    is what bounds its answers, in seconds: one at its bound says only that the model was never
    trained on such times, so what the function took lately answers, if anything is known of it.
    """
    if (
        model_seconds is not None
        and 0.0 < model_seconds < math.inf
        and not at_bound(basis, model_seconds, model_range)
    ):
        factors = calibration
        seconds, source, version = model_seconds, _MODEL, model_version
        # A weight below 1 implies a history of the function, so `basis.seconds` is a time here.
        if basis.model_weight != 1.0:
            seconds = model_weights.mixed(basis.seconds, model_seconds, basis.model_weight)
    else:
        factors = None
        seconds, source, version = basis.seconds, basis.source, None
        if not 0.0 < seconds < math.inf:
            seconds, source = default, _DEFAULT
    # The default's errors are never learnt from, so no calibration is about it.
    if basis.width.calibrated and source != _DEFAULT:
        factors = intervals.from_width(basis.width)
    elif factors is None:
        factors = intervals.ASSUMED[source]
    low, high, confidence = factors
    return Prediction(seconds, seconds * low, seconds * high, source, version, confidence)


def answer_many(
    bases: Sequence[Basis],
    default: float,
    model_seconds: Sequence[float],
    model_version: int | None,
    calibration: Factors | None,
    model_range: tuple[float, float],
) -> list[Prediction]:
    """As `answer`, one for each of `bases`, which `look_up_many` gave for one function and context.

    All whose inputs were not seen before share their width, so what follows from it is worked out
    once.
    """
    width: Width | None = None
    low = high = confidence = math.nan
    # What lies between needs no second look; NaN does not.
    least, most = model_range[0] * _WITHIN, model_range[1] / _WITHIN
    least, most = max(least, 0.0), min(most, math.inf)
    found = []
    for basis, seconds in zip(bases, model_seconds, strict=True):
        if least < seconds < most:
            if basis.model_weight != 1.0:
                seconds = model_weights.mixed(basis.seconds, seconds, basis.model_weight)
            if basis.width is not width:
                width = basis.width
                factors = intervals.from_width(width) if width.calibrated else calibration
                low, high, confidence = factors or intervals.ASSUMED[_MODEL]
            one = Prediction(
                seconds, seconds * low, seconds * high, _MODEL, model_version, confidence
            )
        else:
            one = answer(basis, default, seconds, model_version, calibration, model_range)
        found.append(one)
    return found


def at_bound(basis: Basis, seconds: float, model_range: tuple[float, float] | None) -> bool:
    """Whether a model's answer lies at the end of its range, so that history answers instead."""
    return (
        model_range is not None
        # Without a history of the function the bound is still the nearest guess.
        and basis.source == "function_history"
        and not model_range[0] * _WITHIN < seconds < model_range[1] / _WITHIN
    )


class Estimator:
    """What is known of all functions, and how far answers were off. Not thread-safe."""

    __slots__ = ("_hints", "_history", "_intervals", "_unsuccessful", "_weights")

    def __init__(
        self, observations: Iterable[Observation] = (), functions: int = FUNCTIONS
    ) -> None:
        self._history = History(observations, functions)
        self._intervals = Intervals(functions)
        self._weights = ModelWeights(functions)
        self._hints = WorkflowHints()
        self._unsuccessful = UnsuccessfulTasks()

    def look_up(
        self,
        function: str,
        tool_type: str,
        features: Sequence[float] = (),
        context: tuple[str, ...] = (),
    ) -> Basis:
        """The basis for a task of `function` that starts now.

        `features` are numbers in declared order, NaN where missing. `tool_type` is empty where
        nobody claims the function.
        """
        encoded = input_effects.encode(features)
        snapshot = self._history.snapshot_of(function, tool_type, encoded, context)
        levels, inputs = (snapshot[_LEVEL],), (encoded[1],)
        return self._bases(function, tool_type, context, levels, inputs, snapshot)[0]

    def look_up_many(
        self,
        function: str,
        tool_type: str,
        features: NDArray[np.float64],
        context: tuple[str, ...] = (),
    ) -> tuple[list[Basis], NDArray[np.float64]]:
        """As `look_up`, one for each row of `features`: tasks of one function and context.

        Their snapshots are not part of the bases, but stand in one table, one row each.
        """
        encoded = input_effects.encode_rows(features)
        snapshots = self._history.snapshots_of(function, tool_type, encoded, context)
        levels, inputs = snapshots[:, _LEVEL].tolist(), encoded[1]
        return self._bases(function, tool_type, context, levels, inputs), snapshots

    def explain(
        self, basis: Basis, features: Sequence[float] = (), context: tuple[str, ...] = ()
    ) -> LevelExplanation:
        """What the level of `basis` is made of; look-up and explanation with the same inputs."""
        found = self._history.explain(basis.function, basis.tool_type, features, context)
        return LevelExplanation((), (), ()) if found is None else found

    def explain_tool(self, tool_type: str) -> tuple[Term, ...]:
        """What functions of `tool_type` take lately, as terms in log-seconds."""
        return self._history.tool_terms(tool_type)

    def observe(self, observation: Observation, hints: Sequence[Hint] = ()) -> float | None:
        """Take in one execution that has ended; call in order of their ends.

        `hints` are those of its workflow. Returns what was learnt of each of them: as `above` of
        `WorkflowHints.learn`, None where that was nothing.
        """
        # Before the history takes it in, after which nothing of it would be unexpected.
        above = self._learn_hints(observation, hints) if hints else None
        self._history.observe(observation)
        return above

    def hint_effect(self, function: str, hint: Hint) -> HintEffect:
        """What `hint` does to the answer for a task whose own inputs are not known."""
        return self._hints.effect(function, hint)

    def observe_unsuccessful(self, observation: Observation, hints: Sequence[Hint]) -> float | None:
        """Take in an execution that failed or was skipped, of which hints alone learn.

        Returns what `observe` does.
        """
        return self._learn_hints(observation, hints) if hints else None

    @property
    def has_unsuccessful(self) -> bool:
        """Whether any task is known to have failed or to have been skipped."""
        return len(self._unsuccessful) > 0

    def outcome_effect(self, function: str, features: Sequence[float]) -> float:
        """What to add to the log-seconds answered for a task of these inputs, where a workflow
        waits for it whether it succeeds or not."""
        succeeded = self._history.count(function) > 0
        return self._unsuccessful.effect(function, features, succeeded=succeeded)

    def learn_outcome(self, outcome: TaskOutcome) -> TaskOutcome | None:
        """How a task ended that was answered; the same as it was learnt, None where nothing was."""
        succeeded = self._history.count(outcome.function) > 0
        if not outcome.successful:
            repeats = self._history.repeats(outcome.function, outcome.features)
            outcome = msgspec.structs.replace(outcome, repeats=repeats)
        return outcome if self._unsuccessful.learn(outcome, succeeded=succeeded) else None

    def believed_levels(
        self, function: str, context: tuple[str, ...] = ()
    ) -> tuple[BelievedLevel, ...]:
        """The levels that `function` returns to, and how likely each holds: see `History`."""
        return self._history.believed_levels(function, context)

    def count(self, function: str) -> int:
        """How many executions of `function` were observed."""
        return self._history.count(function)

    def learn(self, basis: Basis, predicted: float, actual: float) -> None:
        """What came of an answer, both in seconds; call before the execution is observed.

        The error of a default is no evidence of the errors of answers to come.
        """
        if basis.source != _DEFAULT:
            self._weights.learn(
                basis.function,
                basis.tool_type,
                basis.seconds,
                basis.model_weight,
                predicted,
                actual,
            )
            self._intervals.learn(
                basis.function,
                basis.tool_type,
                actual,
                predicted,
                basis.width,
                basis.inputs,
            )

    @property
    def functions(self) -> tuple[int, int]:
        """How many functions are remembered, each of their contexts counted, and were forgotten."""
        return len(self._history), self._history.forgotten

    def restart(self, history: History) -> None:
        """Go on from another history, replayed elsewhere; what was learnt of errors stays."""
        # Errors belong to answers that were given, which a replay does not change.
        self._history = history

    def restart_hints(self, hints: WorkflowHints) -> None:
        """Go on from other hints, replayed elsewhere."""
        self._hints = hints

    def restart_unsuccessful(self, unsuccessful: UnsuccessfulTasks) -> None:
        """Go on from what others learnt of failed and skipped tasks, replayed elsewhere."""
        self._unsuccessful = unsuccessful

    def _learn_hints(self, observation: Observation, hints: Sequence[Hint]) -> float | None:
        function, context = observation.function, observation.context
        # Without the task's own inputs: hints serve tasks whose inputs are not known yet.
        snapshot = self._history.snapshot(function, observation.tool_type, (), context)
        usual = self._history.level_seconds(function, context, snapshot)
        if usual is None or not 0.0 < usual < math.inf:
            return None
        above = observation.log_seconds - math.log(usual)
        for hint in hints:
            self._hints.learn(function, hint, above)
        return above

    def _bases(
        self,
        function: str,
        tool_type: str,
        context: tuple[str, ...],
        levels: Sequence[float],
        inputs: Sequence[bytes],
        snapshot: tuple[float, ...] = (),
    ) -> list[Basis]:
        """One for each of `levels`, which stand in the snapshots of tasks of one function and
        context, and of `inputs`: these share all else, but for a `snapshot` that only one of them
        has."""
        # The state is part of the basis: the outcome is to calibrate the state that was answered
        # in, not the one that holds when it is known.
        state, apart = self._history.state(function, tool_type, context)
        width = self._intervals.width(function, tool_type, state, apart)
        of_inputs = self._intervals.of_inputs
        weight = self._weights.weight(function, tool_type)
        found = self._history.levels_seconds(function, context, levels)
        # NaN where the function is known, but nothing was observed under this tool type, of which
        # all levels are NaN then: the declaration has changed since.
        if found and found[0] == found[0]:
            return [
                Basis(
                    function,
                    tool_type,
                    snapshot,
                    "function_history",
                    seconds,
                    of_inputs(width, function, one),
                    weight,
                    one,
                )
                for seconds, one in zip(found, inputs, strict=True)
            ]
        source: Source = "tool_history"
        seconds = self._history.tool_seconds(tool_type) if tool_type else None
        if seconds is None:
            source, seconds = _DEFAULT, math.nan
        # Only a history of the function itself is an answer worth mixing with the model's.
        return [Basis(function, tool_type, snapshot, source, seconds, width)] * len(levels)


_LEVEL = FEATURES.index("level")
_WITHIN = 1.001  # float32 rounds
_MODEL: Source = "model"
_DEFAULT: Source = "heuristic"
