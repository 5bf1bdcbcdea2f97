"""Revalidation of quarantined rows by today's declaration, contract and outlier fence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from malearn import expectations
from malearn.data import outliers, quarantine
from malearn.data.ingest import Ingest
from malearn.data.quarantine import QuarantineFilter, RetryReport
from malearn.kernel import text
from malearn.kernel.home import Home
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolType

__all__ = ["revalidate"]


def revalidate(home: Home, which: QuarantineFilter, progress: Callable[[str], None]) -> RetryReport:
    """Validate `which` rows of the quarantine below `home` again, each by itself."""
    done = RetryReport()
    for part in quarantine.retry(Ingest(home, which.tool_types, _each, outliers.fence), which):
        done += part
        accepted = sum(done.accepted.values())
        progress(f"Revalidated {text.counted(done.retried, 'row')}: {accepted:,} accepted")
    return done


def _each(tool_type: ToolType, executions: Sequence[Execution]) -> expectations.ValidationResult:
    # 1.0: a row whose batch was rejected as a whole is now validated by itself.
    return expectations.validate(tool_type, executions, allowed_bad=1.0)
