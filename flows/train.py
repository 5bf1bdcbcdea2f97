"""The flow that trains the candidates of one tool type."""

from __future__ import annotations

import os
from collections.abc import Sequence

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from flows import progress
from malearn import matrix, tool_types, tracking, training
from malearn.dataset import Dataset
from malearn.families import FAMILIES
from malearn.home import Home
from malearn.matrix import Matrix
from malearn.training import Source, Trained

__all__ = ["load", "train"]


@flow(name="train", flow_run_name="train {tool_type}", validate_parameters=False)
def train(
    tool_type: str,
    home: str | None = None,
    families: Sequence[str] = tuple(FAMILIES),
    trigger: str = "manual",
) -> Trained:
    """Fit, choose and judge candidates on the dataset below `home`; register the best.

    MLflow is at `$MLFLOW_TRACKING_URI`.
    """
    types = tool_types.declared()
    with tracking.connected(os.environ.get("MLFLOW_TRACKING_URI", "")):
        rows, source = load(Dataset.of(Home.find(home), types[tool_type]))
        trained = training.train(
            rows, types, source, families=families, trigger=trigger, progress=_fitting
        )
    show_candidates(trained)
    progress.finished(_line(trained))
    return trained


def _fitting(what: str) -> None:
    get_run_logger().info("Fitting %s", what)


def _line(trained: Trained) -> str:
    if trained.version is None:
        return f"{trained.tool_type}: nothing trained, {trained.why}"
    fit = trained.decision is not None and trained.decision.promote
    return (
        f"{trained.tool_type}: trained on {trained.rows:,} executions, {trained.family} is best "
        f"and {'passes' if fit else 'does not pass'} the gate"
    )


@task(cache_policy=NO_CACHE)
def load(dataset: Dataset) -> tuple[Matrix, Source]:
    """The dataset as it is now, replayed in time, and which version that is."""
    version = dataset.version
    executions = [] if version is None else dataset.read(version)
    rows = matrix.build(dataset.tool_type, executions)
    return rows, Source(str(dataset.path), version or 0)


@task(cache_policy=NO_CACHE)
def show_candidates(trained: Trained) -> None:
    """Everyone's scores on the newest slice, as a table artifact."""
    if trained.scores is None:
        return
    create_table_artifact(
        [
            {
                "predictor": name,
                "MAE, s": round(s.mae, 3),
                "median error": f"{s.median_ape:.0%}",
                "order": f"{s.order:.0%}",
                "R²": round(s.r2, 3),
                "rows": s.n,
            }
            for name, s in sorted(trained.scores.items(), key=lambda item: item[1].mae)
        ],
        key=f"candidates-{trained.tool_type.lower().replace('_', '-')}",
        description=f"{trained.tool_type}: {trained.why}",
    )
