"""Re-admission: what was kept out, judged by today's declaration, contract and fence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from malearn import expectations
from malearn.data import outliers, quarantine
from malearn.data.ingest import Ingest
from malearn.data.quarantine import Readmitted, Which
from malearn.kernel.home import Home
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolType

__all__ = ["readmit"]


def readmit(home: Home, which: Which, progress: Callable[[str], None]) -> Readmitted:
    """Judge `which` of the quarantine below `home` anew, each record by itself."""
    done = Readmitted()
    for part in quarantine.readmit(Ingest(home, which.tool_types, _each, outliers.fence), which):
        done += part
        progress(f"Judged {done.judged:,} anew: {sum(done.accepted.values()):,} accepted")
    return done


def _each(tool_type: ToolType, executions: Sequence[Execution]) -> expectations.Validated:
    return expectations.validate(tool_type, executions, allowed_bad=1.0)
