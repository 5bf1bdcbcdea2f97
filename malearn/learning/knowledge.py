"""What every predictor knows when a run begins, after all the runs before it.

The runs are replayed one after another, each workflow executed alone: no task waits for anything
but its predecessors. All runs have one clock, with the pauses between them that were recorded:
after one, what was known before counts for less. Between two runs models are refitted on the log
so far, by the code that trains. What was learnt up to the beginning of a run holds under any
policy, for all that it was learnt from has ended by then.
"""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from malearn.kernel.estimation.estimator import Estimator
from malearn.kernel.onnx import onnx_model
from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.kernel.reading import joining
from malearn.kernel.records import Record
from malearn.kernel.tool_types import ToolTypes
from malearn.kernel.workflows.workflow_calibration import WorkflowCalibration
from malearn.learning import export, families, matrix, regressor, simulation
from malearn.learning.families import DEFAULT
from malearn.learning.simulated_predictors import Malearn, MovingAverage, SimulatedWorkflow
from malearn.learning.traces import RunTrace, WorkflowTrace

__all__ = ["Knowledge", "Probed", "at_each_run", "poisson"]

_DEADLINES = 10  # of each workflow that is probed: with one, chance decides


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known when `run` begins, at `begins` seconds on the clock that all runs share;
    predictors are copies of their own. `models` are ONNX files, by tool type."""

    run: RunTrace
    begins: float
    models: Mapping[str, bytes]
    state: bytes
    average: bytes

    def load(self, tool_types: ToolTypes) -> dict[str, OnnxModel]:
        """The models, by tool type, ready to answer."""
        return _loaded(self.models, tool_types)

    def malearn(self, tool_types: ToolTypes, models: Mapping[str, OnnxModel]) -> Malearn:
        """The predictor with `models`, which `load` gave."""
        return Malearn(tool_types, *self.learnt(), models)

    def learnt(self) -> tuple[Estimator, WorkflowCalibration]:
        """What malearn has learnt of tasks and of whole workflows: copies, to go on with."""
        # A copy for each simulation; the bytes never leave this program.
        known: tuple[Estimator, WorkflowCalibration] = pickle.loads(self.state)
        return known

    def moving_average(self) -> MovingAverage:
        """The predictor by each function's moving average, a copy that goes on learning."""
        average: MovingAverage = pickle.loads(self.average)
        return average


@dataclass(frozen=True, slots=True)
class Probed:
    """What was predicted of one workflow executed alone, when `passed` (0 or ½) of its true
    critical path had passed, and what was left of that path, in seconds.

    `lateness` is, for deadlines drawn at random, how likely it was predicted to miss each, and
    whether it did.
    """

    run: str
    kind: str
    passed: float
    seconds: float
    low: float
    high: float
    actual: float
    lateness: tuple[tuple[float, bool], ...]


def at_each_run(
    runs: Sequence[RunTrace],
    tool_types: ToolTypes,
    slots: int,
    resource: str = "gpu",
    *,
    wanted: Collection[str] = (),
    probed: list[Probed] | None = None,
) -> Iterator[Knowledge]:
    """The knowledge at the beginning of each run, in the order given.

    Workflows arrive as if they were to use `slots` of `resource` in full. Models are fitted for
    the runs `wanted` by name, for all where none is named. Predictions of workflows at arrival
    and half way are added to `probed`.
    """
    known, calibration = Estimator(), WorkflowCalibration()
    average = MovingAverage(tool_types)
    log: list[Record] = []
    models: dict[str, bytes] = {}
    clock, recorded = 0.0, math.nan  # the end of the run before, as simulated and as recorded
    for run in runs:
        clock += max(run.began - recorded, 0.0) if recorded == recorded else 0.0
        recorded = run.ended
        # Fitting takes long, and runs that only teach need no models.
        if not wanted or run.name in wanted:
            models = _fitted(log, tool_types)
        state = pickle.dumps((known, calibration))
        yield Knowledge(run, clock, models, state, pickle.dumps(average))
        arrivals = poisson(run, 1.0, slots, resource, 0, clock)
        ours = Malearn(tool_types, known, calibration, _loaded(models, tool_types))
        probe = None if probed is None else _probe(run, ours, probed)
        # No slots are named, so nothing waits: what is learnt is execution time alone.
        done = simulation.simulate(arrivals, "fcfs", ours, {}, probe=probe)
        clock = max(one.ended for one in done)
        simulation.simulate(arrivals, "fcfs", average, {})
        log += [t.record for w in run.workflows for t in w.tasks.values() if t.record is not None]


def _probe(
    run: RunTrace, ours: Malearn, probed: list[Probed]
) -> Callable[[SimulatedWorkflow, float], None]:
    def probe(live: SimulatedWorkflow, passed: float) -> None:
        left, path, arrived = live.left, live.trace.critical_path, live.workflow.arrived
        if left is None or not left.seconds > 0.0:
            return
        assert arrived is not None
        # Seeded by the workflow, so that it has the same deadlines each time: multiples of the
        # critical path, which half of the time leave too little.
        draw = random.Random(live.trace.run_id)
        allowed = [draw.uniform(0.5, 1.5) for _ in range(_DEADLINES)]
        now = arrived + passed * path
        late = ours.late(live, [arrived + factor * path for factor in allowed], now)
        lateness = tuple(zip(late, [factor < 1.0 for factor in allowed], strict=True))
        interval = left.seconds, left.low, left.high
        actual = path * (1.0 - passed)
        probed.append(Probed(run.name, live.trace.kind, passed, *interval, actual, lateness))

    return probe


def poisson(
    run: RunTrace, load: float, slots: int, resource: str, seed: int, begins: float = 0.0
) -> list[tuple[float, WorkflowTrace]]:
    """The run's workflows in random order, arriving at random from `begins` on: `slots` are
    used to `load`."""
    draw = random.Random(f"{seed} {run.name}")
    workflows = list(run.workflows)
    draw.shuffle(workflows)
    work = sum(workflow.seconds_on(resource) for workflow in workflows) / len(workflows)
    # Load = arrivals · mean work ÷ slots, as in queueing theory; solved for the mean gap.
    gap = work / (load * slots)
    at, arrivals = begins, []
    for workflow in workflows:
        at += draw.expovariate(1.0) * gap
        arrivals.append((at, workflow))
    return arrivals


def _fitted(log: Sequence[Record], tool_types: ToolTypes) -> dict[str, bytes]:
    executions, _ = joining.join(log, tool_types)
    models = {}
    for name, tool_type in tool_types.items():
        if sum(e.tool_type == name for e in executions) >= families.get(DEFAULT).fewest_rows:
            rows = matrix.build(tool_type, executions)
            fitted = regressor.fit(DEFAULT, rows)
            # As schedulers run it, and 20 times as fast for a row as the trainer's own form.
            metadata = replace(export.metadata_for(fitted, rows, "", 0), recent=())
            models[name] = export.to_onnx(fitted, metadata)
    return models


def _loaded(models: Mapping[str, bytes], tool_types: ToolTypes) -> dict[str, OnnxModel]:
    return {name: onnx_model.load(m, tool_types[name], name) for name, m in models.items()}
