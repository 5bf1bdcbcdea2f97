"""Malearn's predictor with other predictions of tasks in place of some of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from malearn.kernel.prediction import Prediction
from malearn.learning.simulated_predictors import Malearn, SimulatedWorkflow

__all__ = ["Replace", "Replacing"]

#: What is added up instead of the prediction of a workflow's task, which comes last.
Replace = Callable[[SimulatedWorkflow, str, Prediction], Prediction]


class Replacing(Malearn):
    """Malearn's predictor; what `replace` gives is added up instead of its own predictions.

    What it learns of tasks, it learns from its own.
    """

    def __init__(self, *own: Any, replace: Replace) -> None:
        super().__init__(*own)
        self._replace = replace

    def combine(self, live: SimulatedWorkflow, now: float) -> None:
        own = live.expected
        live.expected = {i: self._replace(live, i, one) for i, one in own.items()}
        super().combine(live, now)
        live.expected = own
