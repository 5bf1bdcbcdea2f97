"""Monitoring of the serving models: check, report, act.

Two views. *Live*: what schedulers were answered, joined with what happened, per version.
*Replayed*: what `Production`, `Previous` and the baselines predict for the same executions, all
of them newer than what either version was fitted on; that is a fair comparison, and it needs no
recorded predictions.

A check scores only executions that no earlier check has scored, and waits until there are enough
of them. Its findings are kept on the version, in a tag; `monitor_decision` decides what follows.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from malearn.kernel import text
from malearn.kernel.errors import ArtifactRefused, RegistryError
from malearn.kernel.onnx import onnx_model
from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.learning import baselines, evaluation, stack
from malearn.learning.matrix import Matrix
from malearn.learning.metrics import Scores, score
from malearn.lifecycle import drift, live, monitor_decision, registry, runs, trained_on
from malearn.lifecycle.drift import Drift
from malearn.lifecycle.live import LiveAccuracy
from malearn.lifecycle.monitor_decision import (
    PREVIOUS,
    PRODUCTION,
    WITHOUT_MODEL,
    Action,
    MonitorDecision,
    MonitorState,
)
from malearn.lifecycle.registry import Version

__all__ = ["FEWEST_ROWS", "WINDOW", "MonitorReport", "act", "check"]

#: A check scores at least so many executions that none before it scored, and at most the newest
#: so many.
FEWEST_ROWS, WINDOW = 30, 200

#: The default seconds of a resource are no competitor of a model that was promoted.
_BASELINES = {name: p for name, p in baselines.BASELINES.items() if name != "heuristic"}

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MonitorReport:
    """All that one check of a tool type found.

    `rows` executions were scored: `predicted` holds everybody's predictions for them, in seconds,
    `scores` their errors; `drifts` compare them with the newest of those that the serving model
    was trained on. `previous` is the version that a rollback would restore.
    """

    tool_type: str
    production: int | None
    previous: int | None
    live: tuple[LiveAccuracy, ...]
    fallback: float | None
    decision: MonitorDecision
    rows: int = 0
    scores: Mapping[str, Scores] = field(default_factory=dict)
    drifts: tuple[Drift, ...] = ()
    predicted: Mapping[str, Vector] = field(default_factory=dict)
    actual: Vector = field(default_factory=lambda: np.empty(0))

    def metrics(self) -> dict[str, float]:
        """What MLflow draws over time; the prefix of a name is its section there."""
        metrics = {}
        for who, s in self.scores.items():
            metrics[f"mae/{who}"] = s.mae
            metrics[f"median_ape/{who}"] = s.median_ape
            metrics[f"pairwise_accuracy/{who}"] = s.pairwise_accuracy
        metrics |= {f"drift/{d.name}": d.distance for d in self.drifts}
        metrics["serving/version"] = float(self.production or 0)
        metrics["serving/rows"] = float(self.rows)
        if self.fallback is not None:
            metrics["serving/fallback_share"] = self.fallback
        for one in self.live:
            if one.version == self.production:
                metrics["live/mae"] = one.scores.mae
                metrics["live/median_ape"] = one.scores.median_ape
                metrics["live/pairwise_accuracy"] = one.scores.pairwise_accuracy
                metrics["live/coverage"] = one.coverage
        return metrics


def check(
    rows: Matrix,
    tool_types: ToolTypes,
    older: Callable[[float], Matrix] | None = None,
    *,
    now: float | None = None,
) -> MonitorReport:
    """Check the tool type of `rows`, which are its newest executions. Changes nothing.

    `older` gives the newest that started before a moment, for when `rows` do not reach back to
    what the serving model was trained on. Moment and `now`, by default this machine's clock, are
    in seconds since the epoch. Needs `mlflow_connection.connect` first.
    """
    tool_type, now = rows.tool_type, time.time() if now is None else now
    production = registry.by_alias(tool_type, registry.PRODUCTION)
    previous = registry.by_alias(tool_type, registry.PREVIOUS)
    models = _models(tool_type, production, previous)
    report = partial(
        MonitorReport,
        tool_type.name,
        production.number if production else None,
        previous.number if previous and PREVIOUS in models else None,
        live.score_live(rows.executions, tool_types),
        live.fallback_share(rows.executions),
    )
    if production is None:
        return report(_nothing("no version serves; schedulers answer from recent durations"))
    state = MonitorState.from_json(registry.monitor_state(production))
    if PRODUCTION not in models:
        why = f"version {production.number} has no ONNX file that can be loaded"
        return report(_nothing(why, state))
    # Neither a model nor a check has seen what ended after it was made, whatever the clocks of
    # those who wrote executions say: one that ran ahead must not end all monitoring.
    versions = {PRODUCTION: production, PREVIOUS: previous}
    until = {
        name: trained_on.until(version, models[name].metadata)
        for name, version in versions.items()
        if version is not None and name in models
    }
    # New to both versions, or the one that was trained on a row would look better on it.
    since, scored_until = max(until.values()), min(state.until, now)
    new = [i for i, e in enumerate(rows.executions) if e.start >= since and e.end > scored_until]
    new = new[-WINDOW:]
    if len(new) < FEWEST_ROWS:
        why = f"{text.counted(len(new), 'new execution')}; a check needs {FEWEST_ROWS}"
        return report(_nothing(why, state))
    scored = rows.rows(np.array(new, dtype=np.intp))
    predicted = _predictions(rows, new, scored, models, tool_types)
    scores = {name: score(scored.seconds, p) for name, p in predicted.items()}
    trained = _ended_by(rows, until[PRODUCTION])
    if len(trained) < WINDOW and older is not None:
        trained = _ended_by(older(until[PRODUCTION]), until[PRODUCTION])
    drifts = _drifts(trained, scored, predicted[PRODUCTION], production)
    # The next check begins after these: no row counts for two consecutive findings.
    latest = min(now, max(e.end for e in scored.executions))
    decision = monitor_decision.decide(scores, drifts, state, latest)
    return report(decision, len(scored), scores, tuple(drifts), predicted, scored.seconds)


def act(report: MonitorReport, tool_type: ToolType) -> int | None:
    """Carry out what a check decided, and keep its findings on the version.

    Returns the version that serves afterwards. Retraining is not done here.
    """
    decision, production = report.decision, report.production
    if production is None or not report.rows:
        return production
    # Asked again: scoring takes a while, in which a person or a training may have moved the alias.
    current = registry.by_alias(tool_type, registry.PRODUCTION)
    if current is None or current.number != production:  # moved meanwhile
        return current.number if current else None
    registry.tag(tool_type, production, registry.MONITOR_STATE, decision.state.to_json())
    if decision.action not in (Action.ROLL_BACK, Action.DISABLE_MODEL):
        return production
    # Noted before the alias moves, so that a version is never out of service without a reason.
    registry.tag(tool_type, production, "malearn.unpublished", "; ".join(decision.reasons)[:1000])
    if decision.action is Action.ROLL_BACK:
        return registry.rollback(tool_type)[1]
    registry.unpublish(tool_type)
    return None


def _ended_by(rows: Matrix, moment: float) -> Matrix:
    return rows.rows(np.flatnonzero([e.end <= moment for e in rows.executions]))


def _nothing(why: str, state: MonitorState | None = None) -> MonitorDecision:
    """The decision of a check that scored nothing."""
    return MonitorDecision(Action.NOTHING, (why,), state or MonitorState())


def _models(
    tool_type: ToolType, production: Version | None, previous: Version | None
) -> dict[str, OnnxModel]:
    """The ONNX files that can be asked; of a version with both aliases one."""
    if production and previous and production.number == previous.number:
        previous = None
    models = {}
    for name, version in ((PRODUCTION, production), (PREVIOUS, previous)):
        if version is None:
            continue
        try:
            file = registry.model_file(tool_type, version.number)
            models[name] = onnx_model.load(file, tool_type, name)
        except (ArtifactRefused, RegistryError):
            continue
    return models


def _predictions(
    rows: Matrix,
    new: Sequence[int],
    scored: Matrix,
    models: Mapping[str, OnnxModel],
    tool_types: ToolTypes,
) -> dict[str, Vector]:
    """Everybody's predictions for the scored executions, from what was known at each start."""
    predicted = {
        name: model.predict(scored.inputs_for(model.metadata.columns))
        for name, model in models.items()
    }
    others = {name: predict(rows.executions, tool_types) for name, predict in _BASELINES.items()}
    predicted |= {name: p[list(new)] for name, p in others.items()}
    # Fitted to what had ended before the first of the new ones, as the serving model was.
    learner = stack.of_newest(rows.executions, others, len(rows.executions) - min(new))
    if learner is not None:
        predicted[stack.NAME] = learner[np.array(new) - min(new)]
    # All rows are replayed, not only the new ones: the history must know what came before them.
    without = evaluation.replay(rows.executions, tool_types, family="")
    predicted[WITHOUT_MODEL] = without.seconds[list(new)]
    return predicted


def _drifts(trained: Matrix, scored: Matrix, predicted: Vector, production: Version) -> list[Drift]:
    """Features, what functions take, and errors, against the newest of training."""
    if not len(trained):
        return []
    names = trained.tool_type.feature_names
    # Its newest rows, as many as are scored: older ones may have drifted before it was trained.
    lately = trained.rows(np.arange(max(0, len(trained) - WINDOW), len(trained)))
    before = {name: lately.inputs[:, i].astype(np.float64) for i, name in enumerate(names)}
    now = {name: scored.inputs[:, i].astype(np.float64) for i, name in enumerate(names)}
    usual = _usual(trained)
    before["seconds"], now["seconds"] = _relative(lately, usual), _relative(scored, usual)
    found = drift.compare(before, now)
    errors = runs.test_errors(production.run_id) if production.run_id else None
    if errors is not None and len(errors):
        # As a factor, like the errors that training kept with the candidate.
        missed = np.abs(np.log(predicted / scored.seconds))
        found.append(drift.grown("error", np.abs(errors), missed))
    return found


def _usual(trained: Matrix) -> dict[str, float]:
    """What each function took, in the median of the rows of training, in seconds."""
    taken: dict[str, list[float]] = defaultdict(list)
    for e in trained.executions:
        taken[e.function].append(e.seconds)
    return {function: float(np.median(seconds)) for function, seconds in taken.items()}


def _relative(rows: Matrix, usual: Mapping[str, float]) -> Vector:
    """Seconds as multiples of what is usual for each function, so that another mix of functions
    is no drift; functions of which nothing is known are left out.
    """
    known = [e for e in rows.executions if e.function in usual]
    return np.array([e.seconds / usual[e.function] for e in known])
