"""One retraining of one tool type: candidates fitted, chosen, judged, logged, registered.

Three slices in order of time keep it honest. Candidates are fitted on the
oldest and one is chosen on the next; then each, fitted on both, is measured on
the newest, and the chosen one judged there beside the incumbent and the
baselines. What is registered is the chosen recipe fitted on all rows.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from malearn import (
    baselines,
    evolution,
    export,
    gate,
    history,
    plots,
    registry,
    regressor,
    tracking,
)
from malearn.errors import ArtifactRefused, RegistryError
from malearn.families import DEFAULT, FAMILIES
from malearn.gate import Decision
from malearn.matrix import Matrix
from malearn.metrics import Scores, score
from malearn.regressor import Regressor
from malearn.stamp import Carried, Stamp
from malearn.tool_types import ToolType, ToolTypes

__all__ = ["Source", "Trained", "train"]

#: Share of the rows, newest first, that judge; and of the rest, that choose.
_JUDGING, _CHOOSING = 0.2, 0.2
#: How much lower another family's error must be for it to be preferred to the default.
_CLEARLY = 0.05
#: Executions per function that a model carries with it, for schedulers that saw none.
_CARRIED = 32
#: Most rows that a point of the learning curve is fitted on, beside the last one.
_CURVE_ROWS = 20_000

_log = logging.getLogger(__name__)

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Source:
    """The dataset a retraining reads: a Delta table's path and its version.

    `first` tells for each feature which version was the first to have a column for it.
    """

    table: str
    version: int
    first: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a retraining. Without a `version` nothing was registered; `why` says so.

    `evolved` tells, a sentence a feature, in what the declaration has changed since the
    model that serves was trained.
    """

    tool_type: str
    rows: int
    why: str
    version: int | None = None
    family: str | None = None
    decision: Decision | None = None
    scores: Mapping[str, Scores] | None = None
    run_id: str | None = None
    candidates: Mapping[str, Scores] = field(default_factory=dict)  # on the same rows as `scores`
    evolved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Candidate:
    family: str
    run_id: str
    choosing: Scores
    newest: Scores
    seconds: Vector


@dataclass(frozen=True, slots=True)
class _Incumbent:
    """What serves: judged, like everyone, on rows it was not fitted on."""

    number: int
    model: bytes
    stamp: Stamp

    @property
    def name(self) -> str:
        return f"incumbent v{self.number}"

    @property
    def trained_until(self) -> float:
        return self.stamp.trained_until


def train(
    rows: Matrix,
    tool_types: ToolTypes,
    source: Source,
    *,
    families: Sequence[str] = tuple(FAMILIES),
    trigger: str = "manual",
    progress: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train `families` on `rows` and register the best as a version, with the gate's decision.

    Nothing is promoted here. Needs `tracking.connect` first.
    """
    tool_type = rows.tool_type
    incumbent = _incumbent(tool_type)
    evolved = _evolved(tool_type, incumbent, source)
    sentences = evolved.sentences if evolved is not None else ()
    for sentence in sentences:
        _log.warning("%s: %s", tool_type.name, sentence)
    if incumbent is not None:
        unseen = sum(e.start >= incumbent.trained_until for e in rows.executions)
        if unseen < gate.FEWEST_ROWS:
            return Trained(
                tool_type.name,
                len(rows),
                f"{unseen} executions have started since {incumbent.name} was trained, "
                f"{gate.FEWEST_ROWS} are needed to judge another beside it",
                evolved=sentences,
            )
    since = incumbent.trained_until if incumbent is not None else -math.inf
    older, newest = rows.split(_JUDGING, since) if len(rows) else (rows, rows)
    oldest, choosing = older.split(_CHOOSING) if len(older) else (older, older)
    able = [name for name in families if len(oldest) >= FAMILIES[name].fewest_rows]
    if not able:
        need = min(FAMILIES[name].fewest_rows for name in families)
        return Trained(
            tool_type.name,
            len(rows),
            f"{len(rows)} rows, of which {len(oldest)} may be fitted on: "
            f"{need} are needed before a model can be chosen and judged",
            evolved=sentences,
        )
    rivals = _rivals(rows, newest, tool_types, incumbent)
    tags = {
        "malearn.tool_type": tool_type.name,
        "malearn.trigger": trigger,
        "malearn.dataset_version": str(source.version),
        "malearn.rows": str(len(rows)),
        **(evolved.tags if evolved is not None else {}),
    }
    name = f"retraining on data v{source.version}"
    description = (
        f"{len(able)} candidates on {len(rows)} {tool_type.name} executions (dataset version "
        f"{source.version}): fitted on {len(oldest)}, chosen on {len(choosing)}, judged on the "
        f"newest {len(newest)}."
    )
    description += "".join(f"\n\n{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
    with tracking.retraining(tool_type, name, tags, description) as run_id:
        tracking.log_lineage(rows, source.table, source.version, "training")
        candidates = []
        for family in able:
            progress(f"{tool_type.name}: {family}")
            candidates.append(
                _try(family, oldest, choosing, older, newest, rivals, {**tags}, source)
            )
        best = _choose(candidates)
        scores = {name: score(newest.seconds, p) for name, p in rivals.items()}
        scores[best.family] = best.newest
        decision = gate.decide(best.family, scores)
        progress(f"{tool_type.name}: {best.family} on all {len(rows)} rows")
        version = _register(best, rows, newest, source, decision, tags)
        tracking.log_outcome(scores, best.family, version, decision, best.run_id)
        curve = _learning_curve(best, older, newest)
        tracking.log_learning_curve(curve)
        tracking.log_figures(
            plots.of_retraining(
                best.family,
                newest,
                best.seconds,
                {**scores, **{c.family: c.newest for c in candidates}},
                curve,
                min(scores[name].mae for name in baselines.BASELINES),
            )
        )
        _log.info("%s version %d: %s", tool_type.registered_model, version, decision.why)
    return Trained(
        tool_type.name,
        len(rows),
        decision.why,
        version,
        best.family,
        decision,
        scores,
        run_id,
        {c.family: c.newest for c in candidates},
        sentences,
    )


def _incumbent(tool_type: ToolType) -> _Incumbent | None:
    """What serves now, if it can be asked."""
    version = registry.by_alias(tool_type, registry.PRODUCTION)
    if version is None:
        return None
    name = f"incumbent v{version.number}"
    try:
        model = registry.model_file(tool_type, version.number)
        stamp = export.stamp_of(model, name)
        stamp.check(tool_type, name)
    except (ArtifactRefused, RegistryError) as error:
        # It cannot serve either: schedulers refuse the same file for the same reason.
        _log.warning("The incumbent is left out of the comparison: %s", error)
        return None
    return _Incumbent(version.number, model, stamp)


def _evolved(
    tool_type: ToolType, incumbent: _Incumbent | None, source: Source
) -> evolution.Evolution | None:
    if incumbent is None:
        return None
    return evolution.since(incumbent.number, incumbent.stamp.features, tool_type, source.first)


def _rivals(
    rows: Matrix, newest: Matrix, tool_types: ToolTypes, incumbent: _Incumbent | None
) -> dict[str, Vector]:
    """What everybody who is no candidate predicts for the newest rows."""
    rivals = {
        name: predict(rows.executions, tool_types)[-len(newest) :]
        for name, predict in baselines.BASELINES.items()
    }
    if incumbent is not None:
        rivals[incumbent.name] = export.seconds(incumbent.model, newest)
    return rivals


def _try(
    family: str,
    oldest: Matrix,
    choosing: Matrix,
    older: Matrix,
    newest: Matrix,
    rivals: Mapping[str, Vector],
    tags: Mapping[str, str],
    source: Source,
) -> _Candidate:
    given = FAMILIES[family].parameters(regressor.monotone(newest))
    with tracking.candidate(family, {**given, "trust": regressor.TRUST}, tags) as run_id:
        tracking.log_lineage(older, source.table, source.version, "training")
        chosen_by = score(choosing.seconds, regressor.fit(family, oldest).seconds(choosing.inputs))
        fitted = regressor.fit(family, older)
        predicted = fitted.seconds(newest.inputs)
        scores = {name: score(newest.seconds, p) for name, p in rivals.items()}
        scores[family] = score(newest.seconds, predicted)
        tracking.log_scores(scores, family, chosen_by)
        tracking.log_figures(
            plots.of_candidate(family, newest, predicted, fitted.importance, scores)
        )
    return _Candidate(family, run_id, chosen_by, scores[family], predicted)


def _learning_curve(best: _Candidate, older: Matrix, newest: Matrix) -> dict[int, float]:
    """The winner's error on the newest rows by how many, of those before, it is fitted on.

    The latest ones, so that it also says what the oldest are still worth.
    """
    curve = {}
    for share in (0.125, 0.25, 0.5):
        size = min(round(share * len(older)), _CURVE_ROWS)
        if size >= FAMILIES[best.family].fewest_rows:
            latest = older.rows(np.arange(len(older) - size, len(older)))
            predicted = regressor.fit(best.family, latest).seconds(newest.inputs)
            curve[size] = score(newest.seconds, predicted).mae
    return {**curve, len(older): best.newest.mae}


def _choose(candidates: Sequence[_Candidate]) -> _Candidate:
    """The one that erred least where nobody was fitted; the default unless clearly beaten."""
    best = min(candidates, key=lambda c: c.choosing.mae)
    default = next((c for c in candidates if c.family == DEFAULT), best)
    return best if best.choosing.mae < (1.0 - _CLEARLY) * default.choosing.mae else default


def _register(
    best: _Candidate,
    rows: Matrix,
    newest: Matrix,
    source: Source,
    decision: Decision,
    tags: Mapping[str, str],
) -> int:
    tool_type = rows.tool_type
    fitted = regressor.fit(best.family, rows)
    model = export.to_onnx(fitted, _stamp(fitted, rows, newest, best, source))
    with tracking.resume(best.run_id):
        native = tracking.log_native(fitted, rows)
        uri = tracking.log_onnx(model, rows)
    number = registry.register(
        tool_type,
        uri,
        best.run_id,
        {**tags, "malearn.family": best.family, "malearn.native": native},
    )
    registry.decide(tool_type, number, decision, _summary(best, rows, source))
    return number


def _stamp(
    fitted: Regressor, rows: Matrix, newest: Matrix, best: _Candidate, source: Source
) -> Stamp:
    clips = {}
    for i, name in enumerate(rows.tool_type.feature_names):
        known = rows.inputs[:, i][~np.isnan(rows.inputs[:, i])]
        if len(known):
            clips[name] = (float(known.min()), float(known.max()))
    low, high = np.quantile(newest.seconds / best.seconds, [0.1, 0.9])
    return Stamp(
        tool_type=rows.tool_type.name,
        family=best.family,
        features=rows.tool_type.feature_names,
        history=history.FEATURES,
        run_id=best.run_id,
        dataset_version=source.version,
        trained_until=max(e.end for e in rows.executions),
        rows=len(rows),
        seconds_range=(math.exp(fitted.log_range[0]), math.exp(fitted.log_range[1])),
        clips=clips,
        calibration={"low": float(low), "high": float(high)},
        recent=_recent(rows),
    )


def _recent(rows: Matrix) -> tuple[Carried, ...]:
    """The last executions of each function, oldest first."""
    kept: list[Carried] = []
    counts: dict[str, int] = {}
    features = len(rows.tool_type.features)
    for i in sorted(range(len(rows)), key=lambda i: -rows.executions[i].end):
        e = rows.executions[i]
        counts[e.function] = counts.get(e.function, 0) + 1
        if counts[e.function] <= _CARRIED:
            numbers = (float(v) for v in rows.inputs[i, :features])
            known = tuple(None if math.isnan(v) else v for v in numbers)
            context = e.ran_context or e.serve_context
            kept.append((e.function, e.start, e.end, known, context))
    return tuple(reversed(kept))


def _summary(best: _Candidate, rows: Matrix, source: Source) -> str:
    """What the version was trained on and how it did, as one paragraph of Markdown."""
    first, last = (
        f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M}"
        for moment in (rows.executions[0].start, max(e.end for e in rows.executions))
    )
    functions = len({e.function for e in rows.executions})
    return (
        f"**{best.family}**, fitted on {len(rows):,} {rows.tool_type.name} executions of "
        f"{functions} function{'s' if functions > 1 else ''}, from {first} to {last} UTC (dataset "
        f"version {source.version}). Fitted without the newest {best.newest.n}, it erred there by "
        f"{best.newest.mae:.3g} s on average (MAE), {best.newest.median_ape:.0%} in the median, "
        f"and put {best.newest.order:.0%} of pairs in order."
    )
