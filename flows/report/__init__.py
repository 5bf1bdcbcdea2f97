"""What the commands print: each result as a JSON value and as a table."""

from malearn.flows.report.comparison import show_versions
from malearn.flows.report.datasets import show_history, show_maintained
from malearn.flows.report.evaluation import show_evaluation
from malearn.flows.report.explanation import show_explanation
from malearn.flows.report.findings import show_findings
from malearn.flows.report.ingestion import ingested, show_ingested
from malearn.flows.report.monitoring import monitored, show_monitored, show_status, status
from malearn.flows.report.quarantine import quarantined, show_quarantined, show_revalidated
from malearn.flows.report.run import show_run
from malearn.flows.report.scheduling import show_comparison
from malearn.flows.report.training import (
    found,
    promoted,
    show_found,
    show_promoted,
    show_trained,
    trained,
)
from malearn.flows.report.workflows import show_workflow, show_workflows, workflow_status

__all__ = [
    "found",
    "ingested",
    "monitored",
    "promoted",
    "quarantined",
    "show_comparison",
    "show_evaluation",
    "show_explanation",
    "show_findings",
    "show_found",
    "show_history",
    "show_ingested",
    "show_maintained",
    "show_monitored",
    "show_promoted",
    "show_quarantined",
    "show_revalidated",
    "show_run",
    "show_status",
    "show_trained",
    "show_versions",
    "show_workflow",
    "show_workflows",
    "status",
    "trained",
    "workflow_status",
]
