"""One retraining of one tool type: candidates fitted, chosen, judged, logged, registered.

Three slices in order of time keep it honest. Candidates are fitted on the
oldest and one is chosen on the next; then each, fitted on both, is measured on
the newest, and the chosen one judged there beside the incumbent and the
baselines. What is registered is the chosen recipe fitted on all rows.

Beside a full fit of every family stands the incumbent, updated on the newest of
the rows that the others are fitted on. It has seen all that it was once fitted
on, so while it is a candidate nothing older chooses or judges.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import numpy as np
from numpy.typing import NDArray

from malearn.data import schema_diff
from malearn.kernel import onnx_model
from malearn.kernel.errors import ArtifactRefused, RegistryError, TrainingError
from malearn.kernel.onnx_model import OnnxModel
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.learning import baselines, export, gate, plots, regressor
from malearn.learning.families import DEFAULT, FAMILIES
from malearn.learning.gate import Decision
from malearn.learning.matrix import Matrix
from malearn.learning.metrics import Scores, score
from malearn.learning.regressor import Regressor
from malearn.lifecycle import registry, tracking

__all__ = ["DatasetVersion", "Trained", "train"]

#: Share of the rows, newest first, that judge; and of the rest, that choose.
_JUDGING, _CHOOSING = 0.2, 0.2
#: So many executions that the incumbent has not seen are needed to judge an update of it.
_ENOUGH_TO_UPDATE = 4 * gate.FEWEST_ROWS
#: How much lower another family's error must be for it to be preferred to the default.
_CLEARLY = 0.05
#: Most rows that a point of the learning curve is fitted on, beside the last one.
_CURVE_ROWS = 20_000

_log = logging.getLogger(__name__)

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DatasetVersion:
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
class _Recipe:
    """One way to come to a model: a family fitted anew, or the incumbent updated."""

    name: str
    family: str
    fit: Callable[[Matrix], Regressor]
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class _Candidate:
    recipe: _Recipe
    run_id: str
    choosing: Scores
    newest: Scores
    seconds: Vector


@dataclass(frozen=True, slots=True)
class _Incumbent:
    """What serves: judged, like everyone, on rows it was not fitted on.

    `native` is the address of the trainer's model in MLflow, where there is one.
    """

    number: int
    model: OnnxModel
    native: str | None

    @property
    def name(self) -> str:
        return f"incumbent v{self.number}"

    @property
    def trained_until(self) -> float:
        return self.model.metadata.trained_until


@dataclass(frozen=True, slots=True)
class _Slices:
    """The rows of one retraining in order of time; `older` is `oldest` and `choosing`."""

    oldest: Matrix
    choosing: Matrix
    older: Matrix
    newest: Matrix


def train(
    rows: Matrix,
    tool_types: ToolTypes,
    source: DatasetVersion,
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
        unseen = _unseen(rows, incumbent)
        if unseen < gate.FEWEST_ROWS:
            return Trained(
                tool_type.name,
                len(rows),
                f"{unseen} executions have started since {incumbent.name} was trained, "
                f"{gate.FEWEST_ROWS} are needed to judge another beside it",
                evolved=sentences,
            )
    warm = _warm(rows, incumbent, families)
    slices = _slices(rows, incumbent, bool(warm))
    recipes = [
        recipe
        for recipe in (*(_anew(family, rows) for family in families), *warm)
        if len(slices.oldest) >= FAMILIES[recipe.family].fewest_rows
    ]
    if not recipes:
        need = min(FAMILIES[name].fewest_rows for name in families)
        return Trained(
            tool_type.name,
            len(rows),
            f"{len(rows)} rows, of which {len(slices.oldest)} may be fitted on: "
            f"{need} are needed before a model can be chosen and judged",
            evolved=sentences,
        )
    newest = slices.newest
    rivals = _rivals(rows, newest, tool_types, incumbent)
    tags = {
        "malearn.tool_type": tool_type.name,
        "malearn.trigger": trigger,
        "malearn.dataset_version": str(source.version),
        "malearn.data.rows": str(len(rows)),
        **(evolved.tags if evolved is not None else {}),
    }
    name = f"retraining on data v{source.version}"
    description = (
        f"{len(recipes)} candidates on {len(rows)} {tool_type.name} executions (dataset version "
        f"{source.version}): fitted on {len(slices.oldest)}, chosen on {len(slices.choosing)}, "
        f"judged on the newest {len(newest)}."
    )
    description += "".join(f"\n\n{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
    with tracking.retraining(tool_type, name, tags, description) as run_id:
        tracking.log_lineage(rows, source.table, source.version, "training")
        candidates = []
        for recipe in recipes:
            progress(f"{tool_type.name}: {recipe.name}")
            candidates.append(_try(recipe, slices, rivals, tags, source))
        best = _choose(candidates)
        own = best.recipe.name
        scores = {name: score(newest.seconds, p) for name, p in rivals.items()}
        scores[own] = best.newest
        decision = gate.decide(own, scores)
        progress(f"{tool_type.name}: {own} on all {len(rows)} rows")
        version = _register(best, rows, newest, source, decision, tags)
        tracking.log_outcome(scores, own, version, decision, best.run_id)
        curve = _learning_curve(best, candidates, slices)
        tracking.log_learning_curve(curve)
        tracking.log_figures(
            plots.of_retraining(
                own,
                newest,
                best.seconds,
                {**scores, **{c.recipe.name: c.newest for c in candidates}},
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
        best.recipe.family,
        decision,
        scores,
        run_id,
        {c.recipe.name: c.newest for c in candidates},
        sentences,
    )


def _incumbent(tool_type: ToolType) -> _Incumbent | None:
    """What serves now, if it can be asked."""
    version = registry.by_alias(tool_type, registry.PRODUCTION)
    if version is None:
        return None
    name = f"incumbent v{version.number}"
    try:
        model = onnx_model.load(registry.model_file(tool_type, version.number), tool_type, name)
    except (ArtifactRefused, RegistryError) as error:
        # It cannot serve either: schedulers refuse the same file for the same reason.
        _log.warning("The incumbent is left out of the comparison: %s", error)
        return None
    return _Incumbent(version.number, model, version.tags.get("malearn.native"))


def _evolved(
    tool_type: ToolType, incumbent: _Incumbent | None, source: DatasetVersion
) -> schema_diff.SchemaDiff | None:
    if incumbent is None:
        return None
    return schema_diff.diff_since(
        incumbent.number, incumbent.model.metadata.features, tool_type, source.first
    )


def _anew(family: str, rows: Matrix) -> _Recipe:
    """A full fit of `family`."""
    given = FAMILIES[family].parameters(regressor.monotone(rows))
    return _Recipe(family, family, partial(regressor.fit, family), given)


def _warm(
    rows: Matrix, incumbent: _Incumbent | None, families: Sequence[str]
) -> tuple[_Recipe, ...]:
    """The update of the incumbent, if it can be loaded and there is enough that it has not seen."""
    if incumbent is None or incumbent.native is None:
        return ()
    if _unseen(rows, incumbent) < _ENOUGH_TO_UPDATE:
        return ()
    try:
        known = tracking.load_native(incumbent.native)
        regressor.update(known, rows)
    except (RegistryError, TrainingError) as reason:
        _log.info("%s is not updated: %s", incumbent.name, reason)
        return ()
    if known.family not in families:
        return ()
    given = FAMILIES[known.family].parameters(regressor.monotone(rows))
    return (
        _Recipe(
            f"{known.family} updated",
            known.family,
            partial(regressor.update, known),
            {**given, "updated_from": incumbent.name},
        ),
    )


def _unseen(rows: Matrix, incumbent: _Incumbent) -> int:
    return sum(e.start >= incumbent.trained_until for e in rows.executions)


def _slices(rows: Matrix, incumbent: _Incumbent | None, warm: bool) -> _Slices:
    """With an update among the candidates, all that judges and chooses is new to the incumbent."""
    if not len(rows):
        return _Slices(rows, rows, rows, rows)
    since = -math.inf if incumbent is None else incumbent.trained_until
    judging, choosing, chosen_since = _JUDGING, _CHOOSING, -math.inf
    if incumbent is not None and warm:
        # Half of the unseen rows judge at most, half of the others choose, the rest updates.
        judging = min(judging, _unseen(rows, incumbent) / 2 / len(rows))
    older, newest = rows.split(judging, since)
    if incumbent is not None and warm and len(older):
        choosing = min(choosing, max(_unseen(older, incumbent), 1) / 2 / len(older))
        chosen_since = since
    oldest, chosen_by = older.split(choosing, chosen_since) if len(older) else (older, older)
    return _Slices(oldest, chosen_by, older, newest)


def _rivals(
    rows: Matrix, newest: Matrix, tool_types: ToolTypes, incumbent: _Incumbent | None
) -> dict[str, Vector]:
    """What everybody who is no candidate predicts for the newest rows."""
    rivals = {
        name: predict(rows.executions, tool_types)[-len(newest) :]
        for name, predict in baselines.BASELINES.items()
    }
    if incumbent is not None:
        rivals[incumbent.name] = incumbent.model.predict(
            newest.inputs_for(incumbent.model.metadata.columns)
        )
    return rivals


def _try(
    recipe: _Recipe,
    slices: _Slices,
    rivals: Mapping[str, Vector],
    tags: Mapping[str, str],
    source: DatasetVersion,
) -> _Candidate:
    newest, choosing, name = slices.newest, slices.choosing, recipe.name
    fitted = recipe.fit(slices.older)
    given = {"family": recipe.family, **recipe.parameters, "shrinkage": round(fitted.shrinkage, 3)}
    with tracking.candidate(name, given, tags) as run_id:
        tracking.log_lineage(slices.older, source.table, source.version, "training")
        chosen_by = score(choosing.seconds, recipe.fit(slices.oldest).seconds(choosing.inputs))
        predicted = fitted.seconds(newest.inputs)
        scores = {rival: score(newest.seconds, p) for rival, p in rivals.items()}
        scores[name] = score(newest.seconds, predicted)
        tracking.log_scores(scores, name, chosen_by)
        tracking.log_errors(np.log(predicted / newest.seconds))
        tracking.log_figures(plots.of_candidate(name, newest, predicted, fitted.importance, scores))
    return _Candidate(recipe, run_id, chosen_by, scores[name], predicted)


def _learning_curve(
    best: _Candidate, candidates: Sequence[_Candidate], slices: _Slices
) -> dict[int, float]:
    """The error of the winner's family on the newest rows by how many, of those before, it is
    fitted on.

    The latest ones, so that it also says what the oldest are still worth.
    """
    family, older, newest = best.recipe.family, slices.older, slices.newest
    curve = {}
    for share in (0.125, 0.25, 0.5):
        size = min(round(share * len(older)), _CURVE_ROWS)
        if size >= FAMILIES[family].fewest_rows:
            latest = older.rows(np.arange(len(older) - size, len(older)))
            predicted = regressor.fit(family, latest).seconds(newest.inputs)
            curve[size] = score(newest.seconds, predicted).mae
    anew = next((c for c in candidates if c.recipe.name == family), best)
    return {**curve, len(older): anew.newest.mae}


def _choose(candidates: Sequence[_Candidate]) -> _Candidate:
    """The one that erred least where nobody was fitted.

    Of the default family it is the better of fit and update; another is preferred to that
    only where it is clearly better.
    """
    best = min(candidates, key=lambda c: c.choosing.mae)
    defaults = [c for c in candidates if c.recipe.family == DEFAULT] or [best]
    default = min(defaults, key=lambda c: c.choosing.mae)
    return best if best.choosing.mae < (1.0 - _CLEARLY) * default.choosing.mae else default


def _register(
    best: _Candidate,
    rows: Matrix,
    newest: Matrix,
    source: DatasetVersion,
    decision: Decision,
    tags: Mapping[str, str],
) -> int:
    tool_type, family = rows.tool_type, best.recipe.family
    fitted = best.recipe.fit(rows)
    low, high = np.quantile(newest.seconds / best.seconds, [0.1, 0.9])
    calibration = {"low": float(low), "high": float(high)}
    model = export.to_onnx(
        fitted, export.metadata_for(fitted, rows, best.run_id, source.version, calibration)
    )
    with tracking.resume(best.run_id):
        native = tracking.log_native(fitted, rows, source.version)
        uri = tracking.log_onnx(model, rows)
    number = registry.register(
        tool_type,
        uri,
        best.run_id,
        {**tags, "malearn.family": family, "malearn.native": native},
    )
    registry.decide(tool_type, number, decision, _summary(best, rows, source))
    return number


def _summary(best: _Candidate, rows: Matrix, source: DatasetVersion) -> str:
    """What the version was trained on and how it did, as one paragraph of Markdown."""
    first, last = (
        f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M}"
        for moment in (rows.executions[0].start, max(e.end for e in rows.executions))
    )
    functions = len({e.function for e in rows.executions})
    return (
        f"**{best.recipe.name}**, fitted on {len(rows):,} {rows.tool_type.name} executions of "
        f"{functions} function{'s' if functions > 1 else ''}, from {first} to {last} UTC (dataset "
        f"version {source.version}). Fitted without the newest {best.newest.n}, it erred there by "
        f"{best.newest.mae:.3g} s on average (MAE), {best.newest.median_ape:.0%} in the median, "
        f"and put {best.newest.pairwise_accuracy:.0%} of pairs in order."
    )
