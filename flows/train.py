"""The flow that trains the candidates of one tool type."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from malearn.data import execution_window
from malearn.data.dataset import Dataset
from malearn.flows import artifacts, failure, moments, parameters, progress
from malearn.kernel import generic, text
from malearn.kernel.errors import MalearnError
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.kernel.workflows.workflow_calibration import Outcome
from malearn.learning import dataset_workflows, matrix, replayed_workflows
from malearn.learning import families as model_families
from malearn.learning.matrix import Matrix
from malearn.learning.tuning import Found
from malearn.lifecycle import mlflow_connection, training, tuning
from malearn.lifecycle.training import DatasetVersion, Trained

__all__ = ["load", "train", "workflow_scores"]

_WORKFLOW_ROWS = 2_000  # of each dataset, the newest: more than the workflows replayed have


@flow(
    name="train",
    flow_run_name="train {tool_type}",
    validate_parameters=False,
    on_failure=[failure.record_cause],
)
def train(
    tool_type: parameters.ToolTypeName,
    home: parameters.Home = None,
    families: parameters.Families = None,
    trigger: parameters.Trigger = "manual",
    data_version: parameters.DataVersion = None,
    newest_rows: parameters.NewestRows = None,
    since: parameters.Since = None,
    trials: parameters.Trials = 0,
    seconds: parameters.TuningSeconds = None,
) -> Trained:
    """Fit, choose and test candidates on the dataset below `home`; register the best.

    `families` are those that the declaration names where none are given. `data_version`, its
    `newest_rows` and those that started `since` then, a date or seconds since the epoch, limit
    what is read. With `trials` the hyper-parameters of each family are searched for first, so
    often, and for `seconds` at most; what is found adds candidates. MLflow is at
    `$MLFLOW_TRACKING_URI`.
    """
    types = generic.declared(Home.find(home))
    chosen = types[tool_type]
    # Before minutes of reading and fitting: the declaration may name what no family knows.
    model_families.check(chosen)
    names = tuple(families or model_families.tried(chosen))
    progress.tag(tool_type, trigger)
    with mlflow_connection.connected(os.environ.get("MLFLOW_TRACKING_URI", "")):
        dataset = Dataset.open(Home.find(home), chosen)
        rows, source = load(dataset, data_version, newest_rows, moments.seconds(since))
        source = replace(source, workflow_scores=workflow_scores(Home.find(home), types))
        found = _search(rows, source, home, names, trials, seconds) if trials else []
        better = {one.family: one.parameters for one in found if one.better}
        steps = len(names) + len(better) + 1
        bar = progress.Steps(artifacts.key("progress", tool_type), steps, f"Training {tool_type}")
        trained = training.train(
            rows,
            types,
            source,
            families=names,
            found=better,
            explore=bool(families),  # who asks for a family wants to see it
            trigger=trigger,
            progress=lambda what: bar.next(f"Fitting {what}"),
        )
        bar.end()
        publish(trained, chosen, trigger)
    for sentence in (*trained.schema_changes, *trained.failed.values()):
        get_run_logger().warning("%s: %s", tool_type, sentence)
    # What was found and is no better is part of the result, too.
    trained = replace(trained, found=tuple(found))
    progress.finished(_line(trained))
    return trained


def _search(
    rows: Matrix,
    source: DatasetVersion,
    home: str | None,
    names: Sequence[str],
    trials: int,
    seconds: float | None,
) -> list[Found]:
    """What a search finds for each family, shown trial by trial."""
    tool_type = rows.tool_type.name
    searched = [name for name in names if model_families.get(name).search]
    key = artifacts.key("search", tool_type)
    bar = progress.Steps(key, trials * len(searched), f"Searching for {tool_type}")
    found = tuning.tune(
        rows, source, Home.find(home), searched, trials=trials, seconds=seconds, progress=bar.next
    )
    bar.end()
    return found


def workflow_scores(home: Home, types: ToolTypes) -> tuple[Outcome, ...]:
    """How far the newest workflows in the datasets were off, for the model to carry along."""
    try:
        found = dataset_workflows.workflows(home, types, rows=_WORKFLOW_ROWS)
    except MalearnError as error:  # another tool type's dataset, which this one does not need
        get_run_logger().warning("Intervals of whole workflows are not calibrated: %s", error)
        return ()
    return replayed_workflows.scores(found, types)


def _line(trained: Trained) -> str:
    if trained.version is None:
        return f"{trained.tool_type}: nothing trained, {trained.why}"
    decision = trained.decision
    fit = decision is not None and decision.promote
    best = decision.candidate if decision else trained.family
    return (
        f"{trained.tool_type}: trained on {text.counted(trained.rows, 'execution')}, "
        f"{best} is best and {'passes' if fit else 'does not pass'} the gate"
    )


@task(cache_policy=NO_CACHE)
def load(
    dataset: Dataset,
    data_version: int | None = None,
    newest_rows: int | None = None,
    since: float | None = None,
    *,
    window: int | None = None,
) -> tuple[Matrix, DatasetVersion]:
    """The newest of the dataset as it is now, replayed in time, and which version that is.

    Or as it was in `data_version`. By default as many rows as the tool type is trained on, or a
    `window`; of them only the `newest_rows` that started `since` then, in seconds since the epoch.
    What was before them is still what their history knows of.
    """
    newest = dataset.version
    version = newest if data_version is None else data_version
    limits = {}
    wanted = window or max(dataset.tool_type.train_rows, newest_rows or 0)
    read = execution_window.read(dataset, wanted, version)
    # Built from all of them, cut afterwards: levels need what came before the rows in question.
    rows = matrix.build(dataset.tool_type, read.executions, read.before)
    if version != newest:
        limits["data_version"] = f"dataset version {version}"
    first = 0
    if since is not None:
        limits["data_since"] = f"since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC"
        # Rows are in the order of their start, so these are the first ones.
        first = sum(e.start < since for e in rows.executions)
    if newest_rows is not None:
        limits["data_rows"] = f"the newest {text.counted(newest_rows, 'row')}"
        first = max(first, len(rows) - newest_rows)
    if first:
        rows = rows.rows(np.arange(first, len(rows)))
    source = DatasetVersion(
        str(dataset.path), version or 0, dataset.first_versions(), limits, read.total, wanted
    )
    return rows, source


def publish(trained: Trained, tool_type: ToolType, trigger: str) -> None:
    """Leave the result and all scores as artifacts of this run."""
    artifacts.training(trained, tool_type, trigger)
    artifacts.candidates(trained)
