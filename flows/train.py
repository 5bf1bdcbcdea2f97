"""The flow that trains the candidates of one tool type."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from malearn.data.dataset import Dataset
from malearn.flows import artifacts, failure, progress
from malearn.kernel import believable, tool_types
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolType
from malearn.learning import matrix
from malearn.learning.families import FAMILIES
from malearn.learning.matrix import Matrix
from malearn.lifecycle import mlflow_connection, training
from malearn.lifecycle.training import DatasetVersion, Trained

__all__ = ["load", "train"]


@flow(
    name="train",
    flow_run_name="train {tool_type}",
    validate_parameters=False,
    on_failure=[failure.record_cause],
)
def train(
    tool_type: str,
    home: str | None = None,
    families: Sequence[str] = tuple(FAMILIES),
    trigger: str = "manual",
) -> Trained:
    """Fit, choose and test candidates on the dataset below `home`; register the best.

    MLflow is at `$MLFLOW_TRACKING_URI`.
    """
    types = tool_types.declared()
    chosen = types[tool_type]
    progress.tag(tool_type, trigger)
    with mlflow_connection.connected(os.environ.get("MLFLOW_TRACKING_URI", "")):
        rows, source = load(Dataset.open(Home.find(home), chosen))
        bar = progress.Steps(
            artifacts.key("progress", tool_type), len(families) + 1, f"Training {tool_type}"
        )
        trained = training.train(
            rows,
            types,
            source,
            families=families,
            trigger=trigger,
            progress=lambda what: bar.next(f"Fitting {what}"),
        )
        bar.end()
        publish(trained, chosen, trigger)
    for sentence in trained.schema_changes:
        get_run_logger().warning("%s: %s", tool_type, sentence)
    progress.finished(_line(trained))
    return trained


def _line(trained: Trained) -> str:
    if trained.version is None:
        return f"{trained.tool_type}: nothing trained, {trained.why}"
    decision = trained.decision
    fit = decision is not None and decision.promote
    best = decision.candidate if decision else trained.family
    return (
        f"{trained.tool_type}: trained on {trained.rows:,} executions, {best} is best "
        f"and {'passes' if fit else 'does not pass'} the gate"
    )


@task(cache_policy=NO_CACHE)
def load(dataset: Dataset) -> tuple[Matrix, DatasetVersion]:
    """The dataset as it is now, replayed in time, and which version that is."""
    version = dataset.version
    # A dataset of an older version may hold executions dated into the future.
    now = time.time()
    executions = [
        e
        for e in (() if version is None else dataset.read(version))
        if believable.are_believable(e.start, e.end, now)
    ]
    rows = matrix.build(dataset.tool_type, executions)
    return rows, DatasetVersion(str(dataset.path), version or 0, dataset.first_versions())


def publish(trained: Trained, tool_type: ToolType, trigger: str) -> None:
    """Leave the result and all scores as artifacts of this run."""
    artifacts.training(trained, tool_type, trigger)
    artifacts.candidates(trained)
