"""A chronological replay: what every predictor would have predicted, and its error, per task.

Each task is predicted from what had *ended* before it started, through the same
history, models and intervals that serve; models are retrained as tasks finish.
The score of a task uses nothing that came after its start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from malearn.kernel.estimation import estimator, input_effects
from malearn.kernel.estimation.estimator import Basis, Estimator
from malearn.kernel.estimation.history import BelievedLevel
from malearn.kernel.estimation.intervals import Intervals, State, Width
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.estimation.replay import timeline
from malearn.kernel.prediction import Source
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolType, ToolTypes, default_seconds
from malearn.learning import baselines, stack
from malearn.learning.cadence import CADENCE, is_due
from malearn.learning.families import DEFAULT
from malearn.learning.matrix import Matrix
from malearn.learning.metrics import Scores, pairwise_accuracy, score
from malearn.learning.replayed_training import AlwaysRefitted, AsInProduction, Training

__all__ = ["CADENCE", "OURS", "Evaluation", "Replayed", "evaluate", "intervals_around", "replay"]

OURS = "malearn"

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was predicted of each task before it ran, in seconds, shape (tasks,) each.

    `sources` are what answered, `states` how sure that was, `levels` which levels the
    function was known at, and how likely each was taken to hold.
    """

    seconds: Vector
    low: Vector
    high: Vector
    sources: tuple[Source, ...]
    states: tuple[State, ...]
    levels: tuple[tuple[BelievedLevel, ...], ...]


@dataclass(frozen=True, slots=True)
class StateScores:
    """Of `n` tasks in one state: errors, and the shares of outcomes outside the interval."""

    n: int
    mae: float
    median_ape: float
    below: float
    above: float

    @property
    def coverage(self) -> float:
        """The share of outcomes within the intervals."""
        # Shares are rounded to what a float holds: without this, none could be shown as -0 %.
        return max(0.0, 1.0 - self.below - self.above)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everyone's predictions of the same tasks, in order of their start.

    `predicted` maps each predictor to seconds, shape (tasks,); `groups` names the
    run each task belongs to; tasks before `score_from` were predicted, not scored.
    """

    executions: tuple[Execution, ...]
    groups: tuple[str, ...]
    predicted: Mapping[str, Vector]
    ours: Replayed
    score_from: int = 0
    own: str = OURS
    #: The tool types that do not count in `order`.
    unordered: frozenset[str] = frozenset()

    @property
    def actual(self) -> Vector:
        """The seconds that the tasks took, shape (tasks,)."""
        return np.array([e.seconds for e in self.executions])

    def rows(self, tool_type: str | None = None) -> NDArray[np.intp]:
        """The scored tasks, of one tool type or of all."""
        return np.array(
            [
                i
                for i, e in enumerate(self.executions)
                if i >= self.score_from and tool_type in (None, e.tool_type)
            ],
            dtype=np.intp,
        )

    def scores(self, tool_type: str) -> dict[str, Scores]:
        """Of every predictor, on the scored tasks of one tool type."""
        rows, actual = self.rows(tool_type), self.actual
        return {name: score(actual[rows], p[rows]) for name, p in self.predicted.items()}

    @property
    def tool_types(self) -> list[str]:
        """Those of the scored tasks."""
        return sorted({self.executions[i].tool_type for i in self.rows()})

    def inside(self, tool_type: str) -> Vector:
        """1 for each scored outcome within our interval, else 0."""
        rows, actual = self.rows(tool_type), self.actual
        within = (self.ours.low[rows] <= actual[rows]) & (actual[rows] <= self.ours.high[rows])
        return within.astype(np.float64)

    def coverage(self, tool_type: str) -> float:
        """The share of outcomes within our intervals."""
        return float(self.inside(tool_type).mean())

    def by_state(self, tool_type: str | None = None) -> dict[str, StateScores]:
        """How far we were off, and what our intervals missed, by what the answers stood on."""
        rows, actual = self.rows(tool_type), self.actual
        found = {}
        for state in sorted({self.ours.states[i] for i in rows}):
            here = np.array([i for i in rows if self.ours.states[i] == state], dtype=np.intp)
            scores = score(actual[here], self.predicted[self.own][here])
            below = float((actual[here] < self.ours.low[here]).mean())
            above = float((actual[here] > self.ours.high[here]).mean())
            found[state] = StateScores(len(here), scores.mae, scores.median_ape, below, above)
        return found

    def columns(self) -> dict[str, list[Any]]:
        """One row a scored task: what everyone predicted, our interval, and the outcome."""
        rows = self.rows()
        tasks = [self.executions[i] for i in rows]
        return {
            "task_id": [e.task_id for e in tasks],
            "group": [self.groups[i] for i in rows],
            "function": [e.function for e in tasks],
            "tool_type": [e.tool_type for e in tasks],
            "context": ["/".join(e.serve_context) for e in tasks],
            "start": [e.start for e in tasks],
            "seconds": [e.seconds for e in tasks],
            **{name: p[rows].tolist() for name, p in self.predicted.items()},
            "low": self.ours.low[rows].tolist(),
            "high": self.ours.high[rows].tolist(),
            "source": [self.ours.sources[i] for i in rows],
            "state": [self.ours.states[i] for i in rows],
        }

    def order(self) -> dict[str, float]:
        """Share of pairs within a run, of any tool types but `unordered`, that each predictor
        orders rightly."""
        rows, actual = self.rows(), self.actual
        if self.unordered:
            rows = rows[[self.executions[i].tool_type not in self.unordered for i in rows]]
        groups = [self.groups[i] for i in rows]
        return {
            name: pairwise_accuracy(actual[rows], p[rows], groups)
            for name, p in self.predicted.items()
        }

    def as_json(self) -> dict[str, object]:
        """The form that `malearn evaluate --json` prints."""
        types = {}
        for name in self.tool_types:
            predictors = {
                predictor: {
                    "mae": s.mae,
                    "median_ape": s.median_ape,
                    # JSON has no NaN.
                    "r2": s.r2 if math.isfinite(s.r2) else None,
                    "coverage": self.coverage(name) if predictor == OURS else None,
                }
                for predictor, s in self.scores(name).items()
            }
            states = {state: asdict(found) for state, found in self.by_state(name).items()}
            types[name] = {
                "n": len(self.rows(name)),
                "predictors": predictors,
                "states": states,
            }
        order = {n: o if math.isfinite(o) else None for n, o in self.order().items()}
        return {"n": len(self.rows()), "tool_types": types, "order": order}


def evaluate(
    executions: Sequence[Execution],
    tool_types: ToolTypes,
    groups: Mapping[str, str],
    *,
    score_from: int = 0,
    cadence: int | None = CADENCE,
    family: str = DEFAULT,
    production: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    order_all: bool = False,
) -> Evaluation:
    """Replay `executions` and let everyone predict them.

    `groups` names the run of each task id; pairs are ordered within a run. A generic tool type
    does not count in the order of all tasks, unless `order_all`.
    `score_from` leaves out the first so many tasks, in order of their start. `cadence`, `family`
    and `production` are those of `replay`.
    """
    ordered = sorted(executions, key=lambda e: (e.start, e.task_id))
    ours = replay(
        ordered,
        tool_types,
        cadence=cadence,
        family=family,
        production=production,
        progress=progress,
    )
    predicted = {
        OURS: ours.seconds,
        "contract_only": stack.contract_only(ordered, tool_types, cadence),
    }
    predicted |= {name: p(ordered, tool_types) for name, p in baselines.BASELINES.items()}
    # Last, as its inputs are the other baselines' predictions.
    predicted[stack.NAME] = stack.replayed(ordered, predicted, cadence)
    labels = tuple(groups.get(e.task_id, "") for e in ordered)
    # A generic type holds tasks of every kind, whose order would hide that of the declared ones.
    unlike = () if order_all or tool_types.generic is None else (tool_types.generic.name,)
    return Evaluation(
        tuple(ordered), labels, predicted, ours, score_from, unordered=frozenset(unlike)
    )


def replay(
    executions: Sequence[Execution],
    tool_types: ToolTypes,
    *,
    cadence: int | None = CADENCE,
    family: str = DEFAULT,
    production: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Replayed:
    """What each source of the fallback chain would have answered, in order of start.

    A model of `family` is fitted anew as often as `cadence` says, and answers once its tool type
    has enough rows. With `production` models are trained, chosen and promoted as there: see
    `replayed_training`. Until then the history answers, the heuristic before anything is known;
    `family` may be empty: no models.
    """
    known, n = Estimator(), len(executions)
    inputs: list[tuple[float, ...]] = [()] * n
    bases: list[Basis] = []
    sources: list[Source] = []
    levels: list[tuple[BelievedLevel, ...]] = []
    seconds, low, high = np.empty(n), np.empty(n), np.empty(n)
    ended: dict[str, list[int]] = {name: [] for name in tool_types}
    training: Training = AlwaysRefitted(family)
    if production:
        training = AsInProduction(tool_types)
    fitted, finished = 0, 0
    for i, just_ended in timeline(executions):
        task = executions[i]
        for j in just_ended:
            # Its own error first, then the outcome: the error is that of what was known before.
            known.learn(bases[j], float(seconds[j]), executions[j].seconds)
            known.observe(_observation(executions[j]))
            ended[executions[j].tool_type].append(j)
            finished += 1
        if family and is_due(finished, fitted, cadence):
            fitted = finished
            for name, places in ended.items():
                if places:
                    training.retrain(name, _rows(executions, inputs, places, tool_types[name]))
            progress(i, n)
        basis = known.look_up(task.function, task.tool_type, task.serve, task.serve_context)
        # Kept for training: a row holds what was known at its start, never what came later.
        inputs[i] = (*task.serve, *basis.snapshot)
        answered = bounds = None
        if (model := training.serving.get(task.tool_type)) is not None:
            answered = float(model.seconds(np.array([inputs[i]], dtype=np.float32))[0])
            bounds = model.seconds_range
        default = default_seconds(None, tool_types[task.tool_type])
        prediction = estimator.answer(basis, default, answered, model_range=bounds)
        seconds[i], low[i], high[i] = prediction.seconds, prediction.low, prediction.high
        bases.append(basis)
        sources.append(prediction.source)
        levels.append(known.believed_levels(task.function, task.serve_context))
    states = tuple(basis.width.state for basis in bases)
    return Replayed(seconds, low, high, tuple(sources), states, tuple(levels))


def intervals_around(executions: Sequence[Execution], predicted: Vector) -> tuple[Vector, Vector]:
    """`low` and `high`, in seconds, of our intervals around another predictor's answers.

    `executions` in order of their start.
    """
    intervals = Intervals()
    inputs = [input_effects.encode(task.serve)[1] for task in executions]
    widths: list[Width | None] = []
    seen: set[str] = set()
    low, high = np.empty(len(predicted)), np.empty(len(predicted))
    for i, just_ended in timeline(executions):
        task = executions[i]
        for j in just_ended:
            ended, said, given = executions[j], float(predicted[j]), widths[j]
            seen.add(ended.tool_type)
            if given is not None:
                intervals.learn(
                    ended.function, ended.tool_type, ended.seconds, said, given, inputs[j]
                )
        width = intervals.width(task.function, task.tool_type)
        width = intervals.of_inputs(width, task.function, inputs[i])
        low[i], high[i] = width.around(float(predicted[i]))
        # The first answers of a tool type are assumptions: their errors say nothing of later ones.
        widths.append(width if task.tool_type in seen else None)
    return low, high


def _observation(task: Execution) -> Observation:
    return Observation(
        task.function, task.tool_type, task.start, task.end, task.serve, task.context
    )


def _rows(
    executions: Sequence[Execution],
    inputs: Sequence[tuple[float, ...]],
    ended: Sequence[int],
    tool_type: ToolType,
) -> Matrix:
    """The rows of `ended`, in order of their start, with what was known then."""
    # By place, which is by start: `ended` is in order of ends, and windows cut by start.
    places = sorted(ended)
    return Matrix(
        tool_type,
        tuple(executions[j] for j in places),
        np.array([inputs[j] for j in places], dtype=np.float32),
        np.array([executions[j].seconds for j in places]),
    )
