"""The events that Prefect's automations react to: new executions, enough of them, or drift."""

from __future__ import annotations

import os
from collections.abc import Mapping

from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from malearn.data.dataset import Dataset
from malearn.data.ingest_report import IngestReport
from malearn.kernel.errors import Unreachable
from malearn.kernel.names import Names
from malearn.lifecycle import mlflow_connection, untrained

__all__ = ["DRIFT", "ENOUGH", "INGESTED", "STREAM_GAP", "WITHDRAWN", "emit", "resource"]

#: Executions of a tool type were accepted.
INGESTED = "malearn.executions.ingested"
#: Enough are new since the newest version was trained that the tool type is due for retraining.
ENOUGH = "malearn.executions.enough"
#: A check calls for another model: drift, or a competitor with a clearly lower error.
DRIFT = "malearn.drift.found"
#: The monitor took a version out of Production: a rollback, or no model at all.
WITHDRAWN = "malearn.production.withdrawn"
#: Entries left the stream before they were read.
STREAM_GAP = "malearn.stream.gap"


def resource(tool_type: str) -> dict[str, str]:
    """The Prefect resource of events about `tool_type`."""
    return {
        "prefect.resource.id": Names.find().tool_type_resource(tool_type),
        "prefect.resource.name": tool_type,
    }


def emit(datasets: Mapping[str, Dataset], report: IngestReport) -> None:
    """Emit `INGESTED` for each tool type of which executions were accepted in `report`, and
    `ENOUGH` for each that is due for retraining, whenever its executions came in; `STREAM_GAP`
    for each gap in the stream.

    `ENOUGH` is not emitted within a lifecycle, which retrains anyway, nor without
    `$MLFLOW_TRACKING_URI`, where the number of untrained executions is unknown.
    """
    for why in report.gaps:
        about = {
            "prefect.resource.id": f"{Names.find().prefix}.stream",
            "prefect.resource.name": "stream",
        }
        emit_event(STREAM_GAP, about, payload={"lost": report.lost, "why": why})
        get_run_logger().warning("%s", why)
    for name, counts in report.tool_types.items():
        if counts.accepted:
            emit_event(INGESTED, resource(name), payload={"accepted": counts.accepted})
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if address and not flow_run.parent_flow_run_id:
        try:
            _emit_due(datasets, address)
        except Unreachable as error:  # the rows are in; the next ingestion counts again
            get_run_logger().warning("Could not count untrained executions: %s", error)


def _emit_due(datasets: Mapping[str, Dataset], address: str) -> None:
    with mlflow_connection.connected(address):
        for name, dataset in datasets.items():
            fresh, wanted = untrained.count(dataset), dataset.tool_type.retrain_after
            if fresh >= wanted:
                payload = {"new": fresh, "retrain_after": wanted}
                emit_event(ENOUGH, resource(name), payload=payload)
                get_run_logger().info(
                    "%s is due for retraining: %d executions are new", name, fresh
                )
