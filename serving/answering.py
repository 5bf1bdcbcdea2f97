"""From requests to predictions: the model where there is one, else the fallback chain below it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice

import numpy as np

from malearn.kernel.estimation import estimator
from malearn.kernel.estimation.answer_explanation import AnswerExplanation, ModelAnswer
from malearn.kernel.estimation.estimator import Basis
from malearn.kernel.estimation.intervals import Width
from malearn.kernel.prediction import Prediction
from malearn.kernel.tool_types import default_seconds
from malearn.serving.generational_cache import GenerationalCache
from malearn.serving.model import Model
from malearn.serving.requests import Request
from malearn.serving.shared_history import SharedHistory
from malearn.serving.stream_format import Predicted

__all__ = ["Answer", "Answerer"]

#: A prediction, and why the model did not give it; "" where it did.
Answer = tuple[Prediction, str]
#: An answer and what it stands on.
_Based = tuple[Answer, Basis]

#: What tasks share that one look at the history and one choice of a model serve: function, tool
#: type, what they run on, context, and `missing_inputs`.
_Alike = tuple[str, str, str | None, tuple[str, ...], bool]

#: Why a model is not asked, in words; other reasons are those of a fetch that failed.
_WHY_NOT = {
    "unmapped_function": "no tool type claims the function",
    "no_model": "no model of its tool type is in Production",
}


class Answerer:
    """Answers requests from `models` and `history`; threads may share it.

    Each answer is kept in `predicted` by task id, until its outcome is reported. `on_error` is
    called where a model fails, within the handling of the error.
    """

    def __init__(
        self,
        models: Callable[[], Mapping[str, Model]],
        history: SharedHistory,
        predicted: GenerationalCache[str, Predicted],
        on_error: Callable[[str], object],
    ) -> None:
        self._models, self._history, self._predicted = models, history, predicted
        self._on_error = on_error

    def answer(self, request: Request, fetch_error: str) -> Answer:
        """The answer to one request; `fetch_error` is why some predecessor was not read, or ""."""
        model, reason = self._model_for(request, fetch_error)
        basis = self._look_up(request)
        if model is None:
            return self._conclude(request, basis), reason
        vector = request.features
        try:
            seconds = model.seconds(model.row(vector.values, basis.snapshot))
        except Exception:  # noqa: BLE001 - onnxruntime's errors have no common base
            self._on_error(f"the model of {model.tool_type}")
            return self._conclude(request, basis), "model_failed"
        prediction = self._conclude(request, basis, seconds, model)
        return prediction, "" if prediction.source == "model" else "model_nonsense"

    def answer_many(self, requests: Sequence[Request], fetch_error: str) -> list[Answer]:
        """As `answer`, one for each, after one call of each model."""
        alike: dict[_Alike, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            name = "" if request.tool_type is None else request.tool_type.name
            context, missing = request.features.context, request.missing_inputs
            alike[request.function, name, request.resource, context, missing].append(number)
        found: list[_Based] = [_NOTHING] * len(requests)
        groups: dict[str, tuple[Model, list[list[int]]]] = {}
        for numbers in alike.values():
            model, reason = self._model_for(requests[numbers[0]], fetch_error)
            if model is None:
                for number in numbers:
                    found[number] = self._without_model(requests[number], reason)
            else:
                # One model for the whole group: the registry's thread may swap it meanwhile.
                groups.setdefault(model.tool_type, (model, []))[1].append(numbers)
        for model, several in groups.values():
            asked = [[requests[number] for number in numbers] for numbers in several]
            for number, one in zip(chain(*several), self._by_model(model, asked), strict=True):
                found[number] = one
        self._keep(requests, found)
        return [answer for answer, _ in found]

    def explain(self, request: Request, fetch_error: str) -> AnswerExplanation:
        """Why `answer` gives what it gives; nothing is kept of it."""
        model, reason = self._model_for(request, fetch_error)
        basis, vector = self._look_up(request), request.features
        if model is None:
            answer = ModelAnswer(why_not=_WHY_NOT.get(reason, reason))
        else:
            row = model.row(vector.values, basis.snapshot)
            columns, bounds = model.metadata.columns, model.metadata.seconds_range
            answer = ModelAnswer(
                model.seconds(row), columns, row, model.version, model.interval, bounds
            )
        default = default_seconds(request.resource, request.tool_type)
        return self._history.explain(basis, vector.values, vector.context, default, answer)

    def _by_model(self, model: Model, alike: Sequence[Sequence[Request]]) -> list[_Based]:
        """The answers of one model, in order; each of `alike` holds requests that are."""
        given = [request.features.values for request in chain(*alike)]
        # Quicker than `np.array`, which looks at each number's type.
        flat = np.fromiter(chain.from_iterable(given), np.float64)
        values = flat.reshape(len(given), len(given[0]))
        looked_up, first = [], 0
        for some in alike:
            function, context = some[0].function, some[0].features.context
            rows = values[first : first + len(some)]
            looked_up.append(self._history.look_up_many(function, model.tool_type, rows, context))
            first += len(some)
        failure = "model_nonsense"
        try:
            seconds = model.many(values, np.vstack([snapshots for _, snapshots in looked_up]))
        except Exception:  # noqa: BLE001 - onnxruntime's errors have no common base
            self._on_error(f"the model of {model.tool_type}")
            # NaN sends each of them down the fallback chain.
            seconds, failure = [math.nan] * len(given), "model_failed"
        rest, answers, bounds = iter(seconds), list[_Based](), model.metadata.seconds_range
        for some, (bases, _) in zip(alike, looked_up, strict=True):
            default = default_seconds(some[0].resource, some[0].tool_type)
            predictions = estimator.answer_many(
                bases,
                default,
                list(islice(rest, len(some))),
                model.version,
                model.interval,
                bounds,
            )
            answers += [
                ((one, "" if one.source == "model" else failure), basis)
                for one, basis in zip(predictions, bases, strict=True)
            ]
        return answers

    def _model_for(self, request: Request, fetch_error: str) -> tuple[Model | None, str]:
        """The model that should answer, or why none should."""
        if request.tool_type is None:
            return None, "unmapped_function"
        model = self._models().get(request.tool_type.name)
        if model is None:
            return None, "no_model"
        if fetch_error and request.missing_inputs:
            # The model was never trained with all features missing: recent durations are better.
            return None, fetch_error
        return model, ""

    def _look_up(self, request: Request) -> Basis:
        name = request.tool_type.name if request.tool_type is not None else ""
        vector = request.features
        return self._history.look_up(request.function, name, vector.values, vector.context)

    def _conclude(
        self,
        request: Request,
        basis: Basis,
        seconds: float | None = None,
        model: Model | None = None,
    ) -> Prediction:
        """The prediction, which is kept until its outcome is reported."""
        default = default_seconds(request.resource, request.tool_type)
        if model is None:
            prediction = estimator.answer(basis, default)
        else:
            prediction = estimator.answer(
                basis,
                default,
                seconds,
                model.version,
                model.interval,
                model.metadata.seconds_range,
            )
        # Without an id its outcome could not be matched with the answer.
        if request.task_id:
            self._predicted.put(request.task_id, _predicted(request, prediction, basis))
        return prediction

    def _without_model(self, request: Request, reason: str) -> _Based:
        basis = self._look_up(request)
        default = default_seconds(request.resource, request.tool_type)
        return (estimator.answer(basis, default), reason), basis

    def _keep(self, requests: Sequence[Request], answers: Sequence[_Based]) -> None:
        """As in `_conclude`, of many; of two with the same id the later one counts."""
        kept: dict[str, Predicted] = {}
        for request, ((prediction, _), basis) in zip(requests, answers, strict=True):
            if request.task_id:
                kept[request.task_id] = one = _predicted(request, prediction, basis)
                if request.siblings:
                    kept.update(dict.fromkeys(request.siblings, one))
        self._predicted.put_all(kept)


def _predicted(request: Request, prediction: Prediction, basis: Basis) -> Predicted:
    """What is kept of an answer until its outcome is reported."""
    vector = request.features
    return Predicted(
        vector.values,
        prediction.seconds,
        prediction.model_version,
        basis,
        vector.context,
        request.predecessors,
        request.resource or "",
    )


#: Stands for an answer until there is one.
_NOTHING: _Based = (
    (Prediction(math.nan, math.nan, math.nan, "heuristic"), ""),
    Basis("", "", (), "heuristic", math.nan, Width(0.0, 0.0, 0.0)),
)
