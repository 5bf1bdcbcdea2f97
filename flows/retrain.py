"""The flow that retrains one tool type: train, and promote what passes the gate."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from prefect import flow
from prefect.logging import get_run_logger

from malearn.data import locks
from malearn.data.dataset import Dataset
from malearn.flows import artifacts, failure, figures, parameters, progress
from malearn.flows.promote import promote
from malearn.flows.train import train
from malearn.kernel import generic
from malearn.kernel.errors import DatasetDamaged
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolType
from malearn.learning.gate import GateCheck
from malearn.lifecycle import mlflow_connection, registry, untrained
from malearn.lifecycle.training import Trained

__all__ = ["RetrainOutcome", "due", "renew", "retrain", "without_executions"]


@dataclass(frozen=True, slots=True)
class RetrainOutcome:
    """The result for one tool type: its retraining, what is in Production now, and every check."""

    trained: Trained
    production: int | None
    family: str | None
    why: str
    reasons: tuple[GateCheck, ...] = ()


@flow(
    name="retrain",
    flow_run_name="retrain {tool_type}: {trigger}",
    validate_parameters=False,
    on_failure=[failure.record_cause],
)
def retrain(
    tool_type: parameters.ToolTypeName,
    home: parameters.Home = None,
    trigger: parameters.Trigger = "manual",
) -> RetrainOutcome:
    """Retrain one tool type if executions are new, and promote what passes the gate."""
    progress.tag(tool_type, trigger)
    return renew(tool_type, home, trigger)


def renew(tool_type: str, home: str | None, trigger: str) -> RetrainOutcome:
    """`retrain` as part of the flow that calls it.

    Retrainings of a tool type run one at a time; a second one waits, and then finds nothing
    new. Needs MLflow at `$MLFLOW_TRACKING_URI`.
    """
    declared = generic.declared(Home.find(home))[tool_type]
    log = get_run_logger()
    with locks.retrain_lock(
        Home.find(home),
        declared,
        lambda: log.info("Waiting for another retraining of %s to finish", tool_type),
    ):
        # Looked at under the lock: whoever held it may have trained on the same executions.
        trained = _repeated(declared, home, trigger) or train(tool_type, home, trigger=trigger)
        why = trained.why
        reasons: tuple[GateCheck, ...] = (GateCheck("rows", False, why),)
        if trained.version is not None:
            # Still under the lock: the gate compared the candidate with what serves now.
            promoted = promote(tool_type, trained.version, home)
            why, reasons = promoted.why, promoted.reasons
            figures.decided(Home.find(home), tool_type, promoted.promoted)
        with mlflow_connection.connected(os.environ.get("MLFLOW_TRACKING_URI", "")):
            serving = registry.by_alias(declared, registry.PRODUCTION)
    return RetrainOutcome(
        trained,
        serving.number if serving else None,
        serving.family if serving else None,
        why,
        reasons,
    )


def due(datasets: Iterable[Dataset]) -> list[str]:
    """The tool types of those `datasets` of which executions are new. Needs MLflow, as `renew`."""
    with mlflow_connection.connected(os.environ.get("MLFLOW_TRACKING_URI", "")):
        return [one.tool_type.name for one in datasets if _is_due(one)]


def without_executions(datasets: Iterable[Dataset]) -> dict[str, RetrainOutcome]:
    """The outcomes of those `datasets` into which nothing was ever ingested, by tool type.

    All at once, without a flow for each: many may be declared of which few are in use. Needs
    MLflow, as `renew`.
    """
    empty = [one.tool_type for one in datasets if _is_empty(one)]
    if not empty:
        return {}
    with mlflow_connection.connected(os.environ.get("MLFLOW_TRACKING_URI", "")):
        known = registry.with_aliases(empty)
    why = "0 rows, as nothing of it was ingested yet"
    outcomes = {}
    for tool_type in empty:
        serving = known[tool_type.name].get(registry.PRODUCTION)
        outcomes[tool_type.name] = RetrainOutcome(
            Trained(tool_type.name, 0, why),
            serving.number if serving else None,
            serving.family if serving else None,
            why,
            (GateCheck("rows", False, why),),
        )
    return outcomes


def _is_due(dataset: Dataset) -> bool:
    try:
        return bool(dataset.rows and untrained.count(dataset))
    except DatasetDamaged:
        return True  # its own retraining says what is wrong, and stops no other


def _is_empty(dataset: Dataset) -> bool:
    try:
        return not dataset.rows
    except DatasetDamaged:
        return False  # its own retraining says what is wrong


def _repeated(tool_type: ToolType, home: str | None, trigger: str) -> Trained | None:
    """A result without a model if training would only repeat the last one, else None."""
    dataset = Dataset.open(Home.find(home), tool_type)
    if not dataset.rows:
        return None  # training explains that there are no rows
    with mlflow_connection.connected(os.environ.get("MLFLOW_TRACKING_URI", "")):
        if untrained.count(dataset):
            return None
        # There is one: rows that no model was trained on would have been counted.
        newest = untrained.full(tool_type)[0].number
        why = f"version {newest} was trained on the same executions"
        trained = Trained(tool_type.name, dataset.rows, why)
        artifacts.training(trained, tool_type, trigger)
    progress.finished(f"{tool_type.name}: nothing trained, {why}")
    return trained
