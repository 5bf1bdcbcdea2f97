"""What `malearn doctor` found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from malearn.flows.report import tables

if TYPE_CHECKING:
    from malearn.operations.finding import Finding

__all__ = ["show_findings"]

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}


def show_findings(found: Sequence[Finding]) -> None:
    """Print one line per check, and how many problems there are."""
    console = tables.console()
    for finding in found:
        mark = Text(*_MARKS[finding.level])
        # Text, not markup: a path may hold square brackets.
        console.print(mark + Text(f" {finding.subject}: {finding.detail}", ""), soft_wrap=True)
    problems = sum(finding.level == "problem" for finding in found)
    style = "red" if problems else "green"
    tables.line(console, f"{problems or 'No'} problem{'' if problems == 1 else 's'}", style)
