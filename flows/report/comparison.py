"""Two versions of a model side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from malearn.flows.report import tables

if TYPE_CHECKING:
    from malearn.learning.version_comparison import VersionComparison

__all__ = ["show_versions"]


def show_versions(comparison: VersionComparison, page: str) -> None:
    """Print which version is better, and a table per kind of group; `page` is in MLflow."""
    console, (first, second) = tables.console(), comparison.versions
    tables.line(console, f"{comparison.tool_type}: {comparison.verdict}", "bold")
    tables.line(console, comparison.note)
    console.print()
    table = tables.table(
        "rows", "n", f"MAE v{first}, s", f"MAE v{second}, s", "difference, 95 %", "p", "better"
    )
    for group in (comparison.overall, *comparison.groups):
        better = "" if group.better is None else f"v{comparison.versions[group.better]}"
        table.add_row(
            f"{group.kind} {group.name}" if group.kind != "all" else "all",
            f"{group.n:,}",
            f"{group.mae[0]:.3g}",
            f"{group.mae[1]:.3g}",
            f"{group.difference:+.3g} ({group.low:+.3g} to {group.high:+.3g})",
            "–" if group.p_value is None else f"{group.p_value:.2g}",
            better,
        )
    console.print(table)
    # Here: at the top it would make every command wait for the learning libraries.
    from malearn.learning.version_comparison import TEST

    tables.line(console, f"{TEST}.", "dim")
    tables.line(console, f"In MLflow: {page}")
