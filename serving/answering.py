"""From requests to predictions: the model where there is one, else the fallback chain below it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from malearn.kernel.estimation import estimator
from malearn.kernel.estimation.answer_explanation import AnswerExplanation, ModelAnswer
from malearn.kernel.estimation.estimator import Basis
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

#: What tasks share that one look at the history serves: function and context.
_Alike = tuple[str, tuple[str, ...]]


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
        answers: list[Answer | None] = [None] * len(requests)
        groups: dict[str, tuple[Model, dict[_Alike, list[int]]]] = {}
        for number, request in enumerate(requests):
            model, reason = self._model_for(request, fetch_error)
            if model is None:
                answers[number] = self._conclude(request, self._look_up(request)), reason
                continue
            group = groups.get(model.tool_type)
            if group is None:
                # One model for the whole group: the registry's thread may swap it meanwhile.
                group = groups[model.tool_type] = (model, defaultdict(list))
            group[1][request.function, request.features.context].append(number)
        for model, alike in groups.values():
            for number, answer in self._by_model(model, alike, requests):
                answers[number] = answer
        # None is left: each request has no model, or is in one group. This tells the type checker.
        return [answer for answer in answers if answer is not None]

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

    def _by_model(
        self, model: Model, alike: Mapping[_Alike, list[int]], requests: Sequence[Request]
    ) -> list[tuple[int, Answer]]:
        """The answers of one model, with the numbers of their requests."""
        numbers = [number for some in alike.values() for number in some]
        values = np.array([requests[number].features.values for number in numbers], np.float64)
        bases: list[Basis] = []
        for (function, context), some in alike.items():
            # `numbers` are in the order of the groups, and so are the rows and the bases.
            rows = values[len(bases) : len(bases) + len(some)]
            bases += self._history.look_up_many(function, model.tool_type, rows, context)
        failure = "model_nonsense"
        try:
            seconds = model.many(values, np.array([basis.snapshot for basis in bases]))
        except Exception:  # noqa: BLE001 - onnxruntime's errors have no common base
            self._on_error(f"the model of {model.tool_type}")
            # NaN sends each of them down the fallback chain.
            seconds, failure = [math.nan] * len(numbers), "model_failed"
        answers = []
        for number, basis, one in zip(numbers, bases, seconds, strict=True):
            prediction = self._conclude(requests[number], basis, one, model)
            reason = "" if prediction.source == "model" else failure
            answers.append((number, (prediction, reason)))
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
            vector = request.features
            predicted = Predicted(
                vector.values,
                prediction.seconds,
                prediction.model_version,
                basis,
                vector.context,
                request.predecessors,
                request.resource or "",
            )
            self._predicted.put(request.task_id, predicted)
        return prediction
