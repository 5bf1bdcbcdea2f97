"""What became of every record of an ingestion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from malearn.flows.report import tables
from malearn.kernel import text

if TYPE_CHECKING:
    from rich.console import Console

    from malearn.data.ingest_report import IngestReport

__all__ = ["ingested", "show_ingested"]


def ingested(report: IngestReport) -> dict[str, Any]:
    """Counts that add up to `records`; what a stream lost unread beside them, if anything."""
    # Left out where there are none: most sources are files, which lose nothing.
    gaps = {"lost": report.lost, "gaps": list(report.gaps)} if report.gaps else {}
    return gaps | {
        "records": report.records,
        "rejected": dict(report.rejected),
        "tool_types": {
            name: {
                "accepted": counts.accepted,
                "quarantined": counts.quarantined,
                "outliers": counts.outliers,
                "version": counts.version,
            }
            for name, counts in report.tool_types.items()
        },
    }


def show_ingested(report: IngestReport, console: Console | None = None) -> None:
    """Print what became of the records."""
    console = console or tables.console()
    tables.line(console, text.counted(report.records, "record"), "bold")
    table = tables.table("tool type", "accepted", "quarantined", "outliers", "dataset")
    for name, counts in report.tool_types.items():
        numbers = (counts.accepted, counts.quarantined, counts.outliers)
        version = "–" if counts.version is None else f"version {counts.version}"
        table.add_row(name, *(f"{n:,}" for n in numbers), version)
    if report.tool_types:
        console.print(table)
        console.print()
    if report.rejected:
        table = tables.table("reason for rejection", "records")
        for reason, n in sorted(report.rejected.items(), key=lambda item: -item[1]):
            table.add_row(reason, f"{n:,}")
        console.print(table)
        console.print()
    for why in report.gaps:
        tables.line(console, f"! {why}.", "yellow")
    for counts in report.tool_types.values():
        for sentence in counts.refused:
            tables.line(console, f"✗ {sentence}", "red")
    tables.line(
        console,
        f"{report.accepted:,} accepted + {report.accounted - report.accepted:,} kept out "
        f"= {report.accounted:,} of {report.records:,}.\n",
    )
