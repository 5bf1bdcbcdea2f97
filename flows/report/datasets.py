"""The versions of a dataset, and what maintenance did to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from malearn.flows.report import tables

if TYPE_CHECKING:
    from malearn.data.delta.table import Commit
    from malearn.data.maintenance import MaintenanceReport

__all__ = ["show_history", "show_maintained"]


def show_history(commits: Sequence[Commit]) -> None:
    """Print the versions of a dataset."""
    table = tables.table("version", "time", "rows added", "removed", "operation")
    for commit in commits:
        when = f"{datetime.fromtimestamp(commit.time, UTC):%Y-%m-%d %H:%M:%S}"
        rows = (f"{commit.rows_added:,}", f"{commit.rows_removed:,}")
        table.add_row(str(commit.version), when, *rows, commit.operation)
    tables.console().print(table)


def show_maintained(done: Sequence[MaintenanceReport]) -> None:
    """Print rows deleted, files compacted and vacuumed, and the versions pinned by models."""
    table = tables.table(
        "table", "rows", "rows deleted", "files compacted", "files vacuumed", "pinned versions"
    )
    for m in done:
        numbers = (m.rows, m.rows_deleted, m.files_compacted, m.files_vacuumed)
        kept = ", ".join(f"v{version}" for version in m.pinned_versions) or "–"
        table.add_row(m.name, *(f"{n:,}" for n in numbers), kept)
    tables.console().print(table)
