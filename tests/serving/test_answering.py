"""A model that fails costs its own answer; what recent tasks took answers instead."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from malearn.kernel.estimation.history import Observation
from malearn.kernel.features import FeatureSchema
from malearn.kernel.tool_types import Feature, ToolType
from malearn.serving.answering import Answerer
from malearn.serving.generational_cache import GenerationalCache
from malearn.serving.requests import Request
from malearn.serving.shared_history import SharedHistory

TOOL = ToolType("toy", ("toy",), "gpu", (Feature("size"),))


class Broken:
    """Stands where a model does, and fails as onnxruntime does, or answers what is no time."""

    tool_type, version, interval = "toy", 3, None
    metadata = SimpleNamespace(seconds_range=(0.1, 3600.0))

    def __init__(self, answer: float | None) -> None:
        self.answer = answer

    def row(self, *_: object) -> tuple[float, ...]:
        return ()

    def seconds(self, _: object) -> float:
        if self.answer is None:
            raise RuntimeError("Non-zero status code returned while running MatMul node")
        return self.answer

    def many(self, values: Any, _: object) -> list[float]:
        return [self.seconds(row) for row in values]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(None, "model_failed"), (math.nan, "model_nonsense"), (-1.0, "model_nonsense")],
)
def test_a_failing_model_falls_to_the_functions_history(answer: float | None, reason: str) -> None:
    history, errors = SharedHistory(), list[str]()
    history.observe("1", Observation("toy", "toy", 1.0, 5.0, (1.0,)))
    model: Any = Broken(answer)
    answerer = Answerer(lambda: {"toy": model}, history, GenerationalCache(10), errors.append)
    vector = FeatureSchema(TOOL).vectorize({"size": 1})
    request = Request("toy", "gpu", TOOL, vector, "", False)
    for prediction, why in (answerer.answer(request, ""), *answerer.answer_many([request], "")):
        assert (prediction.source, why) == ("function_history", reason)
        assert prediction.seconds == pytest.approx(4.0)
    assert len(errors) == (2 if answer is None else 0)
