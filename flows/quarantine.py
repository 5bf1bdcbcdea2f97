"""Revalidation of quarantined rows by today's declaration, contract and outlier fence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from malearn import expectations
from malearn.data import outliers, quarantine
from malearn.data.ingest import Ingest
from malearn.data.quarantine import Readmitted, Which
from malearn.kernel.home import Home
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolType

__all__ = ["revalidate"]


def revalidate(home: Home, which: Which, progress: Callable[[str], None]) -> Readmitted:
    """Validate `which` rows of the quarantine below `home` again, each by itself."""
    done = Readmitted()
    for part in quarantine.readmit(Ingest(home, which.tool_types, _each, outliers.fence), which):
        done += part
        progress(f"Revalidated {done.judged:,} rows: {sum(done.accepted.values()):,} accepted")
    return done


def _each(tool_type: ToolType, executions: Sequence[Execution]) -> expectations.Validated:
    return expectations.validate(tool_type, executions, allowed_bad=1.0)
