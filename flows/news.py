"""What Prefect's automations are told: executions that came in, enough of them, or a drift."""

from __future__ import annotations

import os
from collections.abc import Mapping

from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from malearn.data.dataset import Dataset
from malearn.data.ingest import IngestReport
from malearn.kernel.errors import Unreachable
from malearn.lifecycle import tracking, untrained

__all__ = ["DRIFT", "ENOUGH", "INGESTED", "resource", "tell"]

#: Executions of a tool type were accepted.
INGESTED = "malearn.executions.ingested"
#: So many are new since the newest version was trained that the tool type is due.
ENOUGH = "malearn.executions.enough"
#: A look calls for another model: something drifted, or a rival errs less than what serves.
DRIFT = "malearn.lifecycle.drift.found"


def resource(tool_type: str) -> dict[str, str]:
    """What events of `tool_type` are about."""
    return {
        "prefect.resource.id": f"malearn.tool-type.{tool_type}",
        "prefect.resource.name": tool_type,
    }


def tell(datasets: Mapping[str, Dataset], report: IngestReport) -> None:
    """Emit `INGESTED` for each tool type of which executions were accepted in `report`, and
    `ENOUGH` for each that is due, whenever its executions came in.

    Part of a lifecycle, which retrains anyway, and without `$MLFLOW_TRACKING_URI`, nobody is
    due.
    """
    for name, counts in report.tool_types.items():
        if counts.accepted:
            emit_event(INGESTED, resource(name), payload={"accepted": counts.accepted})
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    if address and not flow_run.parent_flow_run_id:
        try:
            _tell_due(datasets, address)
        except Unreachable as error:  # the rows are in; the next ingestion counts again
            get_run_logger().warning("Nobody counted what is new: %s", error)


def _tell_due(datasets: Mapping[str, Dataset], address: str) -> None:
    with tracking.connected(address):
        for name, dataset in datasets.items():
            fresh, wanted = untrained.count(dataset), dataset.tool_type.retrain_after
            if fresh >= wanted:
                payload = {"new": fresh, "retrain_after": wanted}
                emit_event(ENOUGH, resource(name), payload=payload)
                get_run_logger().info("%s is due: %d executions are new", name, fresh)
