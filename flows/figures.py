"""What flows leave for `/metrics`: a few counts and figures at the end of each run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prefect.logging import get_run_logger

from malearn.data.ingest_report import IngestReport
from malearn.kernel.home import Home
from malearn.operations.metric_store import MetricStore, Sample

if TYPE_CHECKING:
    from malearn.lifecycle.monitoring import MonitorReport

__all__ = ["checked", "decided", "ingested"]


def ingested(home: Home, report: IngestReport) -> None:
    """Count the records of one ingestion by what became of them."""
    now = Sample("malearn_ingest_timestamp_seconds", {}, time.time())
    _update(home, list(_counts(report)), [now])


def decided(home: Home, tool_type: str, promoted: bool) -> None:
    """Count one decision about a version that was trained."""
    labels = {"tool_type": tool_type, "decision": "promoted" if promoted else "refused"}
    _update(home, [Sample("malearn_gate_decisions", labels, 1)], [])


def checked(home: Home, tool_type: str, report: MonitorReport) -> None:
    """Count one check, and keep the errors that it found."""
    one = {"tool_type": tool_type}
    scores: Mapping[str, float] = {who: s.mae for who, s in report.scores.items()}
    action = Sample("malearn_monitor_checks", one | {"action": str(report.decision.action)}, 1)
    figures = [
        Sample("malearn_monitor_timestamp_seconds", one, time.time()),
        *(Sample("malearn_live_mae_seconds", one | {"predictor": w}, v) for w, v in scores.items()),
    ]
    # A check without new executions has compared nothing; the last figure stands.
    if report.rows:
        drifted = sum(drift.found for drift in report.drifts)
        figures.append(Sample("malearn_drifted_inputs", one, drifted))
    _update(home, [action], figures)


def _counts(report: IngestReport) -> Iterator[Sample]:
    for name, counts in report.tool_types.items():
        for outcome in ("accepted", "quarantined", "outliers"):
            labels = {"tool_type": name, "outcome": outcome}
            yield Sample("malearn_ingested_records", labels, getattr(counts, outcome))
    for reason, count in report.rejected.items():
        yield Sample("malearn_rejected_records", {"reason": reason}, count)
    yield Sample("malearn_lost_entries", {}, report.lost)


def _update(home: Home, add: list[Sample], put: list[Sample]) -> None:
    try:
        MetricStore(home).update(add=add, put=put)
    except OSError as error:  # a full disk must not fail the flow that has done its work
        get_run_logger().warning("Figures for /metrics were not written: %s", error)
