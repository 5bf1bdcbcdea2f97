"""A rejected record on its way to, or out of, the table of rejections."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from malearn.kernel.records import Rejected

__all__ = ["RejectedRow"]


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """One rejected record on its way to, or out of, the table of rejections.

    `end`, in seconds since the epoch, and `seconds` are the execution's, where there was one.
    `time`, in seconds since the epoch, is when it came into the table; None on its way there.
    """

    rejected: Rejected
    source: str
    tool_type: str | None = None
    end: float | None = None
    seconds: float | None = None
    time: float | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[str, ...]:
        """What identifies a rejection; without a task id, all that is known of it."""
        one = self.rejected
        if one.task_id:
            return (one.task_id, one.reason.value)
        # The detail names the line or entry: the same damage at another place is another rejection.
        return ("", one.reason.value, one.detail, self.digest or "")

    @property
    def digest(self) -> str | None:
        """What distinguishes records without a task id."""
        if self.rejected.task_id:
            return None
        # Stored in the table, unlike a `hash`, and so must be the same in every process.
        return hashlib.sha256(self.rejected.record.encode()).hexdigest()[:16]
