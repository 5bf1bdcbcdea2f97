"""One retraining of one tool type: a model is selected, logged to MLflow and registered.

How it is selected is in `malearn.learning.selection`, which does not use MLflow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np

from malearn.data import schema_diff
from malearn.data.schema_diff import SchemaDiff
from malearn.kernel import text
from malearn.kernel.onnx import onnx_model
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.kernel.workflows.workflow_calibration import Outcome
from malearn.learning import baselines, export, plots, selection
from malearn.learning.families import Parameters
from malearn.learning.gate import Decision
from malearn.learning.incumbent import Incumbent
from malearn.learning.matrix import Matrix
from malearn.learning.metrics import Scores
from malearn.learning.selection import Candidate, NothingSelected, Selection
from malearn.learning.tuning import Found
from malearn.lifecycle import (
    explanation_runs,
    incumbents,
    logged_models,
    registry,
    runs,
    trained_on,
)

__all__ = ["DatasetVersion", "Trained", "train"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """The dataset that a retraining reads: a Delta table's path and its version.

    `first` holds for each feature the first version with a column for it. `limits` are those that
    a person set to what is read of it, by parameter name: what is trained so is an experiment,
    which no gate promotes. Of its `total` rows the newest `window` are read. `workflow_scores`
    are how far whole workflows with such tasks were off lately, which the model carries.
    """

    table: str
    version: int
    first: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    total: int = 0
    window: int = 0
    workflow_scores: tuple[Outcome, ...] = ()

    @property
    def described(self) -> str:
        """The version and the limits, in words."""
        parts = [f"dataset version {self.version}", *self.limits.values()]
        return ", ".join(dict.fromkeys(parts))


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a retraining. Without a `version` nothing was registered, for the reason `why`.

    `schema_changes` describes, a sentence a feature, how the declaration differs from the serving
    model's. `candidates` were scored on the same rows as everybody in `scores`; `failed` gives, by
    name, why others could not be fitted or exported. `limits` are those of the dataset that was
    read, in words; `found` is what a search came to before.
    """

    tool_type: str
    rows: int
    why: str
    version: int | None = None
    family: str | None = None
    decision: Decision | None = None
    scores: Mapping[str, Scores] | None = None
    run_id: str | None = None
    candidates: Mapping[str, Scores] = field(default_factory=dict)
    schema_changes: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    limits: str = ""
    found: tuple[Found, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether there is a version, and the gate would let it serve."""
        return self.decision is not None and self.decision.promote


def train(
    rows: Matrix,
    tool_types: ToolTypes,
    source: DatasetVersion,
    *,
    families: Sequence[str] | None = None,
    found: Mapping[str, Parameters] | None = None,
    explore: bool = False,
    trigger: str = "manual",
    progress: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train `families` on `rows` and register the best as a version, with the gate's decision.

    Without `families` those that are declared; `found` are hyper-parameters that a search found,
    by family. With any, with limits of the `source` and with `explore`, models are trained though
    too few rows are new to compare them with the incumbent. Nothing is promoted here. Needs
    `mlflow_connection.connect` first. Raises `TrainingError` or `ExportError` where none can be
    fitted or exported.
    """
    tool_type = rows.tool_type
    # Once, before anything is fitted: an alias that moves meanwhile does not change the comparison.
    incumbent = incumbents.load(rows)
    changes = _schema_changes(tool_type, incumbent, source)
    sentences = changes.sentences if changes else ()
    for sentence in sentences:
        _log.warning("%s: %s", tool_type.name, sentence)
    selected = selection.select(
        rows,
        tool_types,
        families=families,
        found=found,
        incumbent=incumbent,
        # Who names a family, searched, or set limits wants a model even if no gate can compare it.
        explore=bool(explore or found or source.limits),
        progress=lambda what: progress(f"{tool_type.name}: {what}"),
    )
    limits = source.described if source.limits else ""
    if isinstance(selected, NothingSelected):
        return Trained(
            tool_type.name, len(rows), selected.why, schema_changes=sentences, limits=limits
        )
    for reason in selected.failed.values():
        _log.warning("%s: %s", tool_type.name, reason)
    if limits:
        # A check of the gate, so that the version says so wherever its decision is shown.
        detail = f"trained on {limits}: only `malearn promote` may let it serve"
        decision = selected.decision.with_check("data", False, detail)
        selected = replace(selected, decision=decision)
    tags = {
        "malearn.tool_type": tool_type.name,
        "malearn.trigger": trigger,
        "malearn.dataset_version": str(source.version),
        "malearn.rows": str(len(rows)),
        **({"malearn.train_rows": str(source.window)} if source.window else {}),
        **(changes.tags if changes else {}),
        **({trained_on.LIMITS: limits} if limits else {}),
        **{f"malearn.failed.{name}": why for name, why in selected.failed.items()},
    }
    run_id, version = _record(selected, source, tags, sentences)
    decision = selected.decision
    _log.info("%s version %d: %s", tool_type.registered_model, version, decision.why)
    return Trained(
        tool_type.name,
        len(rows),
        decision.why,
        version,
        selected.chosen.recipe.family,
        decision,
        selected.scores,
        run_id,
        {c.recipe.name: c.test for c in selected.candidates},
        sentences,
        selected.failed,
        limits,
    )


def _schema_changes(
    tool_type: ToolType, incumbent: Incumbent | None, source: DatasetVersion
) -> SchemaDiff | None:
    if incumbent is None or incumbent.model is None:
        return None
    features = incumbent.model.metadata.features
    return schema_diff.diff_since(incumbent.version, features, tool_type, source.first)


def _record(
    selected: Selection, source: DatasetVersion, tags: Mapping[str, str], sentences: Sequence[str]
) -> tuple[str, int]:
    """Log the selection as one run with a child per candidate, and register what was chosen.

    Returns the run's id and the version's number.
    """
    rows, chosen = selected.rows, selected.chosen
    name, description = f"retraining on data v{source.version}", _description(selected, source)
    if source.limits:
        name = f"experiment on {source.described}"
    description += "".join(f"\n\n{reason}" for reason in selected.failed.values())
    description += "".join(f"\n\n{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
    with runs.retraining(rows.tool_type, name, tags, description) as run_id:
        runs.log_lineage(rows, source.table, source.version, "training")
        run_ids = {c.recipe.name: _log_candidate(c, selected, source, tags) for c in
                   selected.candidates}  # fmt: skip
        own = chosen.recipe.name
        # Before the figures below, which may fail: by then the model is registered.
        version = _register(selected, run_ids[own], source, tags)
        runs.log_outcome(selected.scores, own, version, selected.decision, run_ids[own])
        runs.log_learning_curve(selected.learning_curve)
        explanation_runs.log(chosen.fitted, selected.windows.before_test, selected.windows.test)
        everybody = {**selected.scores, **{c.recipe.name: c.test for c in selected.candidates}}
        runs.log_figures(
            plots.of_retraining(
                own,
                selected.windows.test,
                chosen.seconds,
                everybody,
                selected.learning_curve,
                min(selected.scores[name].mae for name in baselines.BASELINES),
            )
        )
    return run_id, version


def _log_candidate(
    one: Candidate, selected: Selection, source: DatasetVersion, tags: Mapping[str, str]
) -> str:
    """Log a candidate as a child of the run in progress; returns the child's id."""
    test, name = selected.windows.test, one.recipe.name
    parameters = {
        "family": one.recipe.family,
        **one.recipe.parameters,
        **source.limits,
        "shrinkage": round(one.fitted.shrinkage, 3),
    }
    scores = {**selected.competitors, name: one.test}
    with runs.candidate(name, parameters, tags) as run_id:
        before_test = selected.windows.before_test
        runs.log_lineage(before_test, source.table, source.version, "training")
        runs.log_scores(scores, name, one.validation)
        runs.log_errors(np.log(one.seconds / test.seconds))
        runs.log_lineage(test, source.table, source.version, "test")
        figures = plots.of_candidate(name, test, one.seconds, one.fitted.importance, scores)
        runs.log_figures(figures, compared=True)
    return run_id


def _register(
    selected: Selection, run_id: str, source: DatasetVersion, tags: Mapping[str, str]
) -> int:
    """Register the model that was chosen, as ONNX beside the trainer's own form."""
    rows, fitted = selected.rows, selected.fitted
    metadata = export.metadata_for(
        fitted, rows, run_id, source.version, selected.calibration, source.workflow_scores
    )
    model = export.to_onnx(fitted, metadata)
    # In the run of the candidate, whose scores and parameters stand beside the model there.
    with runs.resume(run_id):
        native = logged_models.log_native(fitted, rows, source.version)
        uri = logged_models.log_onnx(model, rows)
    notes = {
        "malearn.family": fitted.family,
        "malearn.native": native,
        onnx_model.DIGEST_TAG: onnx_model.digest(model),
    }
    number = registry.register(
        rows.tool_type, uri, run_id, {**tags, **notes, **trained_on.tags(metadata)}
    )
    registry.decide(rows.tool_type, number, selected.decision, _summary(selected, source))
    return number


def _description(selected: Selection, source: DatasetVersion) -> str:
    """Of the whole retraining, as one paragraph of Markdown."""
    rows, cut = selected.rows, selected.windows
    newest = f"the newest of {source.total:,}, " if source.total > len(rows) else ""
    candidates = text.counted(len(selected.candidates), "candidate")
    return (
        f"{candidates} on {len(rows)} {rows.tool_type.name} executions "
        f"({newest}{source.described}): fitted on {len(cut.train)}, chosen on a validation "
        f"window of {len(cut.validation)}, tested on the newest {len(cut.test)}."
    )


def _summary(selected: Selection, source: DatasetVersion) -> str:
    """What the version was trained on and how it did, as one paragraph of Markdown."""
    rows, test = selected.rows, selected.chosen.test
    first, last = (
        f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M}"
        for moment in (rows.executions[0].start, max(e.end for e in rows.executions))
    )
    functions = len({e.function for e in rows.executions})
    return (
        f"**{selected.chosen.recipe.name}**, fitted on {len(rows):,} {rows.tool_type.name} "
        f"executions of {text.counted(functions, 'function')}, from {first} to {last} "
        f"UTC ({source.described}). Fitted without the test window, the newest "
        f"{test.n}, it had there a mean absolute error of {test.mae:.3g} s, a median error of "
        f"{test.median_ape:.0%} and a pairwise accuracy of {test.pairwise_accuracy:.0%}."
    )
