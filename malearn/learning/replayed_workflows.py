"""How far whole workflows were off, replayed from recent executions: what a model carries along.

Each workflow is executed alone, as it ran, and predicted as a scheduler without a model would have
predicted it then. The scores are what `WorkflowCalibration` learns from, so that a scheduler which
has nothing but a model gives calibrated intervals of whole workflows.
"""

from __future__ import annotations

from collections.abc import Sequence

from malearn.kernel.estimation.estimator import Estimator
from malearn.kernel.tool_types import ToolTypes
from malearn.kernel.workflows.workflow_calibration import Outcome, WorkflowCalibration
from malearn.learning import simulation
from malearn.learning.simulated_predictors import Malearn
from malearn.learning.traces import WorkflowTrace

__all__ = ["MOST", "scores"]

#: So many of the newest workflows are replayed.
MOST = 200
_WARMED = 3  # the first of so many parts only warm the history: they were met with default seconds


class _Recorded(WorkflowCalibration):
    """Keeps what it learns from."""

    __slots__ = ("outcomes",)

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: list[Outcome] = []

    def learn(self, stage: int, value: float) -> None:
        self.outcomes.append((int(stage), value))
        super().learn(stage, value)


def scores(workflows: Sequence[WorkflowTrace], tool_types: ToolTypes) -> tuple[Outcome, ...]:
    """The scores of the newest `workflows`, which are in order of arrival; oldest first."""
    newest = workflows[-MOST:]
    if not newest:
        return ()
    known, first = Estimator(), newest[0].arrived
    arrivals = [(workflow.arrived - first, workflow) for workflow in newest]
    warmed = len(arrivals) // _WARMED
    calibration = _Recorded()
    ours = Malearn(tool_types, known, calibration, {})
    # No slots are named, so nothing waits: what is learnt is execution time alone.
    for part in (arrivals[:warmed], arrivals[warmed:]):
        calibration.outcomes.clear()
        simulation.simulate(part, "fcfs", ours, {})
    return tuple((stage, round(value, 4)) for stage, value in calibration.outcomes)
