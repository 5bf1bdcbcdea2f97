"""Predictors of a simulated scheduler: malearn, baselines without a model, and oracles.

All but malearn count a running task as its expectation less what has passed, at least nothing,
and take the tasks' errors for independent: P(in time) = Φ((deadline − now − path) ÷ σ), where σ²
sums over the critical path. So no predictor borrows another's residuals or scale.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from malearn.kernel.estimation import estimator
from malearn.kernel.estimation.estimator import Basis, Estimator
from malearn.kernel.estimation.intervals import Intervals, Width
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.features import FeatureSchema, FeatureVector
from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.kernel.prediction import Prediction
from malearn.kernel.records import Record
from malearn.kernel.tool_types import ToolTypes, default_seconds
from malearn.kernel.workflow import Workflow, WorkflowPrediction
from malearn.kernel.workflows import workflow_estimate, workflow_hints
from malearn.kernel.workflows.remaining import Z80
from malearn.kernel.workflows.unsuccessful_tasks import TaskOutcome
from malearn.kernel.workflows.workflow_calibration import WorkflowCalibration
from malearn.kernel.workflows.workflow_checkpoints import Checkpoints
from malearn.kernel.workflows.workflow_hints import HintsSoFar
from malearn.learning.traces import TaskTrace, WorkflowTrace

__all__ = [
    "Constants",
    "Malearn",
    "MovingAverage",
    "Noisy",
    "Predictor",
    "SimulatedWorkflow",
    "late_if_independent",
]

_ALPHA = 0.3  # of the moving average: as `function_ema` of `evaluate`, its best on the traces


@dataclass(slots=True, eq=False)
class SimulatedWorkflow:
    """One workflow in a simulation: what has become of its tasks so far.

    `running` says when tasks started, `done` holds the records of finished ones, with simulated
    times; `hints` is what it has told so far, `expected` the latest prediction of each open task,
    `left` that of the whole.
    """

    trace: WorkflowTrace
    workflow: Workflow
    running: dict[str, float] = field(default_factory=dict)
    done: dict[str, Record | None] = field(default_factory=dict)
    expected: dict[str, Prediction] = field(default_factory=dict)
    left: WorkflowPrediction | None = None
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    hints: HintsSoFar = field(init=False)

    def __post_init__(self) -> None:
        self.hints = HintsSoFar.of(self.workflow)

    def waiting(self) -> list[str]:
        """The tasks that have not started."""
        done, running = self.done, self.running
        return [i for i in self.workflow.tasks if i not in done and i not in running]


class Predictor(Protocol):
    """What a simulated scheduler estimates with, and reports to; `learns` says whether outcomes
    change its answers to come."""

    learns: bool

    def expect(self, workflows: Sequence[SimulatedWorkflow], now: float) -> None:
        """Bring `expected` and `left` of `workflows` up to date."""

    def ended(self, live: SimulatedWorkflow, task: TaskTrace, start: float, end: float) -> None:
        """Learn from a task that has just ended."""

    def finished(self, live: SimulatedWorkflow) -> None:
        """Learn from a workflow whose last task has ended."""


class _Plain:
    """Adds up what is expected of tasks as if they were independent and shrank as they run."""

    learns = False

    def expect(self, workflows: Sequence[SimulatedWorkflow], now: float) -> None:
        for live in workflows:
            for task_id in live.waiting():
                live.expected[task_id] = self.prediction(live, task_id)
            live.left = _plain(live, now)

    def prediction(self, live: SimulatedWorkflow, task_id: str) -> Prediction:
        """Of a task that has not started."""
        raise NotImplementedError

    def ended(self, live: SimulatedWorkflow, task: TaskTrace, start: float, end: float) -> None:
        """Nothing is learnt."""

    def finished(self, live: SimulatedWorkflow) -> None:
        """Nothing is learnt."""


class Constants(_Plain):
    """15 s for a GPU task, 3 s for CPU, 1 s for I/O, for certain."""

    def prediction(self, live: SimulatedWorkflow, task_id: str) -> Prediction:
        seconds = default_seconds(live.workflow.tasks[task_id].resource)
        return Prediction(seconds, seconds, seconds, "heuristic")


class Noisy(_Plain):
    """True seconds times lognormal noise of `sigma`, with that spread; the oracle at `sigma` 0.

    The noise of a task is the same under every policy.
    """

    def __init__(self, sigma: float, seed: object = 0) -> None:
        self._sigma, self._seed = sigma, seed

    def prediction(self, live: SimulatedWorkflow, task_id: str) -> Prediction:
        # Drawn once, which is quicker: each time it would be the same.
        known = live.expected.get(task_id)
        return self.drawn(live.trace, task_id) if known is None else known

    def drawn(self, trace: WorkflowTrace, task_id: str) -> Prediction:
        """The prediction of a task of `trace`."""
        seconds = trace.tasks[task_id].seconds
        if not self._sigma:
            return Prediction(seconds, seconds, seconds, "model")
        # Seeded by the task, so that every policy meets the same noise.
        draw = random.Random(f"{self._seed} {task_id}")
        seconds *= math.exp(draw.gauss(0.0, self._sigma))
        reach = math.exp(Z80 * self._sigma)
        return Prediction(seconds, seconds / reach, seconds * reach, "model")


class MovingAverage(_Plain):
    """Each function's moving average of log-seconds, α 0.3, with intervals learnt around it."""

    learns = True

    def __init__(self, tool_types: ToolTypes) -> None:
        self._tool_types = tool_types
        self._levels: dict[str, float] = {}
        self._intervals = Intervals()
        self._widths: dict[str, Width] = {}

    def prediction(self, live: SimulatedWorkflow, task_id: str) -> Prediction:
        task = live.workflow.tasks[task_id]
        tool = self._tool(task.function)
        # A tool type's level has a blank before its name, which no function's name begins with.
        level = self._levels.get(task.function, self._levels.get(f" {tool}"))
        if level is None:
            seconds = default_seconds(task.resource)
            return Prediction(seconds, seconds, seconds, "heuristic")
        width = self._intervals.width(task.function, tool)
        self._widths[task_id] = width
        seconds = math.exp(level)
        return Prediction(seconds, *width.around(seconds), "function_history")

    def ended(self, live: SimulatedWorkflow, task: TaskTrace, start: float, end: float) -> None:
        if task.record is None:
            return
        function, tool = task.function, self._tool(task.function)
        width = self._widths.pop(task.task_id, None)
        if width is not None:
            said = live.expected[task.task_id].seconds
            self._intervals.learn(function, tool, task.seconds, said, width)
        for name in (function, f" {tool}") if tool else (function,):
            level = self._levels.get(name)
            value = math.log(task.seconds)
            self._levels[name] = value if level is None else level + _ALPHA * (value - level)

    def _tool(self, function: str) -> str:
        tool_type = self._tool_types.for_known(function)
        return "" if tool_type is None else tool_type.name


class Malearn:
    """As the predictor in a scheduler: the same estimator, calibration and combination.

    `models` answer by tool type; they are not changed while a simulation runs.
    """

    learns = True

    def __init__(
        self,
        tool_types: ToolTypes,
        known: Estimator,
        calibration: WorkflowCalibration,
        models: Mapping[str, OnnxModel],
    ) -> None:
        self._tool_types, self._models = tool_types, models
        self._known, self._calibration = known, calibration
        self._schemas = {name: FeatureSchema(t) for name, t in tool_types.items()}
        self._bases: dict[str, Basis] = {}
        self._vectors: dict[str, FeatureVector] = {}
        #: Seconds answered for tasks of known inputs, as for a single one.
        self._answers: dict[str, float] = {}
        #: How often anything was learnt: while it stays the same, so do the answers.
        self._learnt = 0
        #: By run, what its answers were given on, and what the prediction of the whole was.
        self._answered: dict[str, tuple[int, int]] = {}
        self._combined: dict[str, tuple[int, int, int, float]] = {}
        #: What is the same for all tasks of unknown inputs of a function.
        self._alike: dict[tuple[str, str, tuple[str, ...]], Prediction] = {}

    def expect(self, workflows: Sequence[SimulatedWorkflow], now: float) -> None:
        rows: dict[str, list[tuple[SimulatedWorkflow, str, Basis, tuple[float, ...]]]] = {}
        for live in workflows:
            run, known = live.workflow.run_id, (self._learnt, len(live.done))
            # Within one moment a scheduler asks several times of the same workflow.
            if self._answered.get(run) != known:
                self._answered[run] = known
                for task_id in live.waiting():
                    self._look_up(live, task_id, rows)
        for tool, asked in rows.items():
            # One call of the model for all tasks of a tool type, as in a scheduler.
            inputs = np.array([(*values, *b.snapshot) for _, _, b, values in asked], np.float32)
            answers = self._models[tool].predict(inputs)
            for (live, task_id, basis, _), seconds in zip(asked, answers, strict=True):
                self._answer(live, task_id, basis, float(seconds))
        for live in workflows:
            run, moment = (
                live.workflow.run_id,
                (self._learnt, len(live.done), len(live.running), now),
            )
            if self._combined.get(run) == moment:
                continue
            self._combined[run] = moment
            self.combine(live, now)

    def combine(self, live: SimulatedWorkflow, now: float) -> None:
        """Bring `left` up to date with `expected`."""
        live.left, state = workflow_estimate.combine(
            live.workflow, live.expected, live.running, now, self._calibration
        )
        if state is not None:
            live.checkpoints.add(state, live.expected, live.running, now)

    def late(self, live: SimulatedWorkflow, deadlines: Iterable[float], now: float) -> list[float]:
        """How likely it is that `live`, which has open tasks, would miss each of `deadlines`."""
        _, state = workflow_estimate.combine(
            live.workflow, live.expected, live.running, now, self._calibration
        )
        assert state is not None
        return [self._calibration.beyond(state, deadline - now) for deadline in deadlines]

    def ended(self, live: SimulatedWorkflow, task: TaskTrace, start: float, end: float) -> None:
        self._learnt += 1
        self._alike.clear()
        basis = self._bases.pop(task.task_id, None)
        vector = self._vectors.pop(task.task_id, None)
        said = self._answers.pop(task.task_id, math.nan)
        record = live.done[task.task_id]
        if basis is not None and vector is not None and (record or task.unsuccessful):
            self._known.learn_outcome(
                TaskOutcome.of(
                    task.function, vector.values, said, end - start, successful=record is not None
                )
            )
        tool_type = self._tool_types.for_known(task.function)
        if record is None:
            if task.unsuccessful:
                name = "" if tool_type is None else tool_type.name
                known = vector.context if vector is not None else ()
                failed = Observation(task.function, name, start, end, (), known)
                self._known.observe_unsuccessful(failed, live.hints.all)
            return
        if basis is not None:
            self._known.learn(basis, said, record.seconds)
        values: tuple[float, ...] = ()
        context: tuple[str, ...] = ()
        if tool_type is not None:
            own = self._schemas[tool_type.name].vectorize(record.features)
            said_before = vector is not None and any(v == v for v in vector.values)
            # What was known before the task is what a scheduler will know of the next one.
            values = vector.values if vector is not None and said_before else own.values
            context = own.context or (vector.context if vector is not None else ())
        name = "" if tool_type is None else tool_type.name
        seen = Observation(task.function, name, start, end, values, context)
        self._known.observe(seen, live.hints.all)
        live.hints = live.hints.after(record)

    def finished(self, live: SimulatedWorkflow) -> None:
        self._learnt += 1  # of whole workflows, which tasks do not depend on
        run = live.workflow.run_id
        self._answered.pop(run, None)
        self._combined.pop(run, None)
        seconds = {i: task.seconds for i, task in live.trace.tasks.items()}
        self._calibration.learn_many(live.checkpoints.scores(live.workflow, seconds))

    def _look_up(
        self,
        live: SimulatedWorkflow,
        task_id: str,
        rows: dict[str, list[tuple[SimulatedWorkflow, str, Basis, tuple[float, ...]]]],
    ) -> None:
        task = live.workflow.tasks[task_id]
        tool_type = self._tool_types.for_known(task.function)
        if tool_type is None:
            self._answer_unknown(live, task_id, "", ())
            return
        vector = self._vector(live, task_id, tool_type.name)
        schema = self._schemas[tool_type.name]
        if vector.values is schema.nothing.values:
            self._answer_unknown(live, task_id, tool_type.name, vector.context)
            return
        basis = self._known.look_up(task.function, tool_type.name, vector.values, vector.context)
        if tool_type.name not in self._models:
            self._answer(live, task_id, basis, None)
        else:
            rows.setdefault(tool_type.name, []).append((live, task_id, basis, vector.values))

    def _answer_unknown(
        self, live: SimulatedWorkflow, task_id: str, tool: str, context: tuple[str, ...]
    ) -> None:
        """Answer as for a task whose inputs are not known; nothing is learnt of such answers."""
        task = live.workflow.tasks[task_id]
        key = task.function, task.resource, context
        answer = self._alike.get(key)
        if answer is None:
            basis = self._known.look_up(task.function, tool, (), context)
            answer = self._alike[key] = self._answered_from(basis, task.resource, None)
            if self._known.has_unsuccessful:
                effect = self._known.outcome_effect(task.function, ())
                answer = self._alike[key] = answer.shifted(effect)
        # Without a basis `ended` learns nothing from an answer that did not know the inputs.
        self._bases.pop(task_id, None)
        hint = live.hints.latest
        if hint is not None:
            answer = workflow_hints.applied(answer, self._known.hint_effect(task.function, hint))
        live.expected[task_id] = answer

    def _answer(
        self, live: SimulatedWorkflow, task_id: str, basis: Basis, seconds: float | None
    ) -> None:
        resource = live.workflow.tasks[task_id].resource
        answer = self._answered_from(basis, resource, seconds)
        self._bases[task_id], self._answers[task_id] = basis, answer.seconds
        if self._known.has_unsuccessful:
            vector = self._vector(live, task_id, basis.tool_type)
            effect = self._known.outcome_effect(basis.function, vector.values)
            answer = answer.shifted(effect)
        live.expected[task_id] = answer

    def _answered_from(self, basis: Basis, resource: str, seconds: float | None) -> Prediction:
        model = self._models.get(basis.tool_type)
        bounds = None if model is None else model.metadata.seconds_range
        return estimator.answer(basis, default_seconds(resource), seconds, model_range=bounds)

    def _vector(self, live: SimulatedWorkflow, task_id: str, tool: str) -> FeatureVector:
        """A task's features, as reported by its predecessors that have ended."""
        task = live.workflow.tasks[task_id]
        known = self._vectors.get(task_id)
        if known is not None:
            return known
        schema = self._schemas[tool]
        ended = [live.done.get(before) for before in task.predecessors]
        spoken = sorted((r for r in ended if r is not None), key=lambda record: record.end)
        said = [r.successors.get(task.function, r.successors.get("")) for r in spoken]
        vector = schema.merge([schema.vectorize(one) for one in said if one is not None])
        # Until the last predecessor has ended, more may be reported: not kept yet.
        if all(before in live.done for before in task.predecessors):
            self._vectors[task_id] = vector
        return vector


def late_if_independent(path: Iterable[Prediction], room: float) -> float:
    """How likely the tasks of a `path` take together over `room` seconds more than is expected of
    them, if the error of none tells anything of another's: their variances add up."""
    sigma = math.sqrt(sum(((task.high - task.seconds) / Z80) ** 2 for task in path))
    # 1 − Φ(room ÷ σ); the complementary function keeps small probabilities accurate.
    return float(room < 0.0) if not sigma else 0.5 * math.erfc(room / sigma / math.sqrt(2.0))


def _plain(live: SimulatedWorkflow, now: float) -> WorkflowPrediction:
    tasks = dict(live.expected)
    for task_id, started in live.running.items():
        one = tasks[task_id]
        # The distance to `high` stays: uncertainty does not shrink as a task runs.
        left = max(one.seconds - (now - started), 0.0)
        tasks[task_id] = Prediction(left, left, left + one.high - one.seconds, one.source)
    seconds, critical = _path(live.workflow, tasks)
    work, left_tasks = workflow_estimate.totals(live.workflow, tasks)
    late = None
    if live.workflow.deadline is not None:
        room = live.workflow.deadline - now - seconds
        late = late_if_independent((tasks[i] for i in critical), room)
    return WorkflowPrediction(seconds, seconds, seconds, work, late, left_tasks, critical, tasks)


def _path(workflow: Workflow, tasks: Mapping[str, Prediction]) -> tuple[float, tuple[str, ...]]:
    """The longest path of expectations, and its tasks."""
    ends: dict[str, float] = {}
    through: dict[str, str | None] = {}
    for task_id, task in workflow.tasks.items():
        if task_id in tasks:
            before = [b for b in task.predecessors if b in ends]
            last = max(before, key=ends.__getitem__, default=None)
            through[task_id] = last
            ends[task_id] = tasks[task_id].seconds + (0.0 if last is None else ends[last])
    at: str | None = max(ends, key=ends.__getitem__, default=None)
    seconds = 0.0 if at is None else ends[at]
    critical: list[str] = []
    while at is not None:
        critical.append(at)
        at = through[at]
    return seconds, tuple(reversed(critical))
