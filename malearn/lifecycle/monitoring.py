"""How models do once they serve, and what follows from it.

Two views. *Live*: what schedulers were told, joined with what happened, per
version. *Replayed*: what `Production`, `Previous` and the baselines say of the
same executions, all of them newer than what either version was fitted on; that
is a fair comparison, and it needs no predictions on record.

A look acts on nothing it sees once. It judges only executions that no look
before it judged, waits until there are enough of them, and acts when a second
look in a row finds the same. What the last look found is kept on the version.
"""

from __future__ import annotations

import enum
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from malearn.kernel.errors import ArtifactRefused, RegistryError
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolType, ToolTypes, default_seconds
from malearn.learning import baselines, evaluation, export
from malearn.learning.matrix import Matrix
from malearn.learning.metrics import Scores, score
from malearn.lifecycle import drift, registry, tracking
from malearn.lifecycle.drift import Drift
from malearn.lifecycle.registry import Version

__all__ = [
    "FEWEST_ROWS",
    "MARGIN",
    "WINDOW",
    "Action",
    "Live",
    "Look",
    "State",
    "Verdict",
    "act",
    "fallback_share",
    "judge",
    "live",
    "look",
]

#: A look judges at least so many executions that no other judged, and at most the newest so many.
FEWEST_ROWS, WINDOW = 30, 200
#: How much larger than a rival's the mean absolute error of what serves must be to be worse.
MARGIN = 0.1

#: The rung below a model, as one of the rivals: what schedulers answer without one.
WITHOUT = "without_model"
_PRODUCTION, _PREVIOUS = "production", "previous"

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Live:
    """How the recorded predictions of one version turned out; None: those made without a model.

    `coverage` is the share of outcomes within the intervals that go with such predictions;
    `baselines` are scored on the same executions.
    """

    version: int | None
    scores: Scores
    coverage: float
    baselines: Mapping[str, Scores]


class Action(enum.StrEnum):
    """What a look leads to."""

    NOTHING = "nothing"
    WATCH = "watch"
    RETRAIN = "retrain"
    ROLL_BACK = "roll back"
    WITHDRAW = "withdraw"


@dataclass(frozen=True, slots=True)
class State:
    """What the last look at a version found: whether it is worse than a rival, and what drifted.

    `until` is when the last execution that was judged ended, in seconds since the epoch.
    """

    worse: bool = False
    drifted: tuple[str, ...] = ()
    until: float = -math.inf

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> State:
        if not text:
            return cls()
        values = json.loads(text)
        return cls(**{**values, "drifted": tuple(values["drifted"])})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, each reason for it, and what the next look should know."""

    action: Action
    reasons: tuple[str, ...]
    state: State

    @property
    def retrain(self) -> bool:
        """Whether another model is wanted."""
        return self.action in (Action.RETRAIN, Action.WITHDRAW)


@dataclass(frozen=True, slots=True)
class Look:
    """All that one look at a tool type saw.

    `rows` were judged by this look: `predicted` is what everyone says of them, in seconds,
    `scores` how far off that is; `drifts` say how far they are from the newest of those that
    what serves was trained on. `previous` is the version to go back to.
    """

    tool_type: str
    production: int | None
    previous: int | None
    live: tuple[Live, ...]
    fallback: float | None
    verdict: Verdict
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
            metrics[f"order/{who}"] = s.order
        metrics |= {f"drift/{d.name}": d.distance for d in self.drifts}
        metrics["serving/version"] = float(self.production or 0)
        metrics["serving/rows"] = float(self.rows)
        if self.fallback is not None:
            metrics["serving/fallback_share"] = self.fallback
        for one in self.live:
            if one.version == self.production:
                live = {"mae": one.scores.mae, "median_ape": one.scores.median_ape}
                live |= {"order": one.scores.order, "coverage": one.coverage}
                metrics |= {f"live/{key}": value for key, value in live.items()}
        return metrics


def look(rows: Matrix, tool_types: ToolTypes) -> Look:
    """Look at the tool type of `rows`, which are all its executions. Changes nothing.

    Needs `tracking.connect` first.
    """
    tool_type = rows.tool_type
    production = registry.by_alias(tool_type, registry.PRODUCTION)
    previous = registry.by_alias(tool_type, registry.PREVIOUS)
    models = _models(tool_type, production, previous)
    seen = partial(
        Look,
        tool_type.name,
        production.number if production else None,
        previous.number if previous and _PREVIOUS in models else None,
        live(rows.executions, tool_types),
        fallback_share(rows.executions),
    )
    if production is None:
        return seen(
            _nothing("no version serves; schedulers answer from what functions took lately")
        )
    state = State.from_json(production.tags.get(registry.WATCHED))
    if _PRODUCTION not in models:
        why = f"version {production.number} has no ONNX file that can be run"
        return seen(_nothing(why, state))
    until = {name: export.metadata_of(model, name).trained_until for name, model in models.items()}
    unseen = max(until.values())
    new = [i for i, e in enumerate(rows.executions) if e.start >= unseen and e.end > state.until]
    new = new[-WINDOW:]
    if len(new) < FEWEST_ROWS:
        why = f"{len(new)} new executions, a look needs {FEWEST_ROWS}"
        return seen(_nothing(why, state))
    judged = rows.rows(np.array(new, dtype=np.intp))
    predicted = _everyone(rows, new, judged, models, tool_types)
    scores = {name: score(judged.seconds, p) for name, p in predicted.items()}
    learnt = rows.rows(np.flatnonzero([e.end <= until[_PRODUCTION] for e in rows.executions]))
    drifts = _drifts(learnt, judged, predicted[_PRODUCTION], production)
    verdict = judge(scores, drifts, state, max(e.end for e in judged.executions))
    return seen(verdict, len(judged), scores, tuple(drifts), predicted, judged.seconds)


def live(executions: Sequence[Execution], tool_types: ToolTypes) -> tuple[Live, ...]:
    """Recorded predictions of one tool type beside what happened, the newest version first.

    Of each version the newest `WINDOW` executions count.
    """
    ordered = sorted(executions, key=lambda e: (e.start, e.task_id))
    told = [i for i, e in enumerate(ordered) if e.predicted is not None and e.predicted > 0.0]
    if not told:
        return ()
    rivals = {name: predict(ordered, tool_types) for name, predict in baselines.BASELINES.items()}
    predictions = np.array([ordered[i].predicted for i in told], dtype=np.float64)
    low, high = evaluation.intervals_around([ordered[i] for i in told], predictions)
    by_version: dict[int | None, list[int]] = defaultdict(list)
    for position, i in enumerate(told):
        by_version[ordered[i].model_version].append(position)
    seen = []
    for version, positions in by_version.items():
        newest = np.array(positions[-WINDOW:])
        rows = np.array(told)[newest]
        actual = np.array([ordered[i].seconds for i in rows])
        inside = (low[newest] <= actual) & (actual <= high[newest])
        seen.append(
            Live(
                version,
                score(actual, predictions[newest]),
                float(inside.mean()),
                {name: score(actual, p[rows]) for name, p in rivals.items()},
            )
        )
    return tuple(sorted(seen, key=lambda s: -(s.version or 0)))


def fallback_share(executions: Sequence[Execution]) -> float | None:
    """Of the newest `WINDOW` answers on record, how many no model gave; None without any."""
    ordered = sorted(executions, key=lambda e: e.start)
    told = [e.model_version for e in ordered if e.predicted is not None][-WINDOW:]
    return sum(version is None for version in told) / len(told) if told else None


def judge(
    scores: Mapping[str, Scores], drifts: Sequence[Drift], state: State, until: float
) -> Verdict:
    """What to do about what one look saw, given what the look before it found.

    `scores` come from the same executions, the last of which ended at `until`: those of
    `production`, of `previous` where there is one, of baselines, and of the rung
    `without_model`.
    """
    own = scores[_PRODUCTION]
    better = [name for name in scores if _clearly_better(scores[name], own)]
    drifted = [d for d in drifts if d.found]
    again = [d.name for d in drifted if d.name in state.drifted]
    reasons = [_worse(own, name, scores[name]) for name in better] + [*map(_drifted, drifted)]
    now = State(bool(better), tuple(d.name for d in drifted), until)
    # Who has acted on something begins to count anew.
    clean = State(until=until)
    if better and state.worse:
        action, consequence = _remedy(scores)
        return Verdict(action, (*reasons, consequence), clean)
    if again:
        consequence = f"two looks in a row found that {', '.join(again)} drifted: retrain"
        return Verdict(Action.RETRAIN, (*reasons, consequence), clean)
    if better or drifted:
        return Verdict(Action.WATCH, (*reasons, "acts when the next look finds it again"), now)
    well = f"MAE {own.mae:.3g} s on {own.n} new executions, no rival clearly better, no drift"
    return Verdict(Action.NOTHING, (well,), now)


def act(seen: Look, tool_type: ToolType) -> int | None:
    """Carry out what a look decided, and note on the version what it found.

    Returns the version that serves afterwards. Retraining is not done here.
    """
    verdict, production = seen.verdict, seen.production
    if production is None or not seen.rows:
        return production
    current = registry.by_alias(tool_type, registry.PRODUCTION)
    if current is None or current.number != production:  # somebody was faster
        return current.number if current else None
    registry.tag(tool_type, production, registry.WATCHED, verdict.state.to_json())
    if verdict.action not in (Action.ROLL_BACK, Action.WITHDRAW):
        return production
    registry.tag(tool_type, production, "malearn.withdrawn", "; ".join(verdict.reasons)[:1000])
    if verdict.action is Action.ROLL_BACK:
        return registry.rollback(tool_type)[1]
    registry.withdraw(tool_type)
    return None


def _clearly_better(rival: Scores, own: Scores) -> bool:
    return own.mae > (1.0 + MARGIN) * rival.mae


def _remedy(scores: Mapping[str, Scores]) -> tuple[Action, str]:
    """What serves instead, and why."""
    own, without, previous = scores[_PRODUCTION], scores[WITHOUT], scores.get(_PREVIOUS)
    if (
        previous is not None
        and _clearly_better(previous, own)
        and not _clearly_better(without, previous)
    ):
        return Action.ROLL_BACK, "worse in two looks in a row: back to the version before"
    if _clearly_better(without, own):
        return (
            Action.WITHDRAW,
            "worse in two looks in a row, and no version before it does well: until another is "
            f"promoted schedulers answer from what functions took lately (MAE {without.mae:.3g} s)",
        )
    return Action.RETRAIN, "worse in two looks in a row, and nothing at hand does well: retrain"


def _worse(own: Scores, name: str, rival: Scores) -> str:
    return (
        f"MAE {own.mae:.3g} s on {own.n} new executions, more than {MARGIN:.0%} above that of "
        f"{name} ({rival.mae:.3g} s)"
    )


def _drifted(found: Drift) -> str:
    return (
        f"{found.name} drifted: distance {found.distance:.2f}, median {found.before:.3g} before, "
        f"{found.now:.3g} now"
    )


def _nothing(why: str, state: State | None = None) -> Verdict:
    """Of a look that judged nothing."""
    return Verdict(Action.NOTHING, (why,), state or State())


def _models(
    tool_type: ToolType, production: Version | None, previous: Version | None
) -> dict[str, bytes]:
    """The ONNX files that can be asked; of a version with both aliases one."""
    if production and previous and production.number == previous.number:
        previous = None
    models = {}
    for name, version in ((_PRODUCTION, production), (_PREVIOUS, previous)):
        if version is None:
            continue
        try:
            model = registry.model_file(tool_type, version.number)
            export.metadata_of(model, name).check(tool_type, name)
        except (ArtifactRefused, RegistryError):
            continue
        models[name] = model
    return models


def _everyone(
    rows: Matrix,
    new: Sequence[int],
    judged: Matrix,
    models: Mapping[str, bytes],
    tool_types: ToolTypes,
) -> dict[str, Vector]:
    """What everyone says of the judged executions, from what was known when each started."""
    predicted = {name: export.seconds(model, judged) for name, model in models.items()}
    for name in ("function_median", "function_ema"):
        predicted[name] = baselines.BASELINES[name](rows.executions, tool_types)[list(new)]
    level = judged.inputs[:, judged.columns.index("level")].astype(np.float64)
    blind = default_seconds(None, tool_types[rows.tool_type.name])
    predicted[WITHOUT] = np.where(np.isnan(level), blind, np.exp(level))
    return predicted


def _drifts(learnt: Matrix, judged: Matrix, predicted: Vector, production: Version) -> list[Drift]:
    """Features, what functions take, and errors, against the newest of training."""
    if not len(learnt):
        return []
    names = learnt.tool_type.feature_names
    lately = learnt.rows(np.arange(max(0, len(learnt) - WINDOW), len(learnt)))
    before = {name: lately.inputs[:, i].astype(np.float64) for i, name in enumerate(names)}
    now = {name: judged.inputs[:, i].astype(np.float64) for i, name in enumerate(names)}
    usual = _usual(learnt)
    before["seconds"], now["seconds"] = _relative(lately, usual), _relative(judged, usual)
    found = drift.compare(before, now)
    errors = tracking.judged_errors(production.run_id) if production.run_id else None
    if errors is not None and len(errors):
        missed = np.abs(np.log(predicted / judged.seconds))
        found.append(drift.grown("error", np.abs(errors), missed))
    return found


def _usual(learnt: Matrix) -> dict[str, float]:
    """What each function took, in the median of the rows of training, in seconds."""
    taken: dict[str, list[float]] = defaultdict(list)
    for e in learnt.executions:
        taken[e.function].append(e.seconds)
    return {function: float(np.median(seconds)) for function, seconds in taken.items()}


def _relative(rows: Matrix, usual: Mapping[str, float]) -> Vector:
    """Seconds as multiples of what is usual for each function, so that another mix of functions
    is no drift; functions of which nothing is known are left out.
    """
    known = [e for e in rows.executions if e.function in usual]
    return np.array([e.seconds / usual[e.function] for e in known])
