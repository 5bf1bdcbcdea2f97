"""What people see of a workflow in progress: published by the predictor that was asked about it."""

from __future__ import annotations

import msgspec

from malearn.kernel import text
from malearn.kernel.names import Names

__all__ = ["KEY", "WorkflowStatus", "read"]

#: Redis keys: one per workflow, the run id after this; each expires.
KEY = Names().workflow

_MOST_TASKS = 10_000_000
#: Seconds of all work of a workflow, and a time: also a clock that counts milliseconds is shown.
_LONGEST, _LATEST = 1e12, 1e15


class WorkflowStatus(msgspec.Struct, frozen=True):
    """One workflow, as of the last time that a scheduler asked about it.

    `updated`, `arrived`, `deadline` and `ended` are seconds since the epoch, None where unknown.
    `seconds`, `low` and `high` are the remaining critical path as of `updated`, execution alone;
    `late` the probability of missing the deadline. `tasks` and `done` count known tasks, `unseen`
    those that are expected to be appended, `spent` and `work` are seconds of work done and left.
    `running` are the functions of running tasks, `next` those of the critical path, first to last.
    """

    run_id: str
    updated: float
    tasks: int
    done: int
    seconds: float
    low: float
    high: float
    spent: float = 0.0
    work: float = 0.0
    arrived: float | None = None
    deadline: float | None = None
    late: float | None = None
    ended: float | None = None
    running: tuple[str, ...] = ()
    next: tuple[str, ...] = ()
    unseen: int = 0

    @property
    def progress(self) -> float:
        """The share of its work that is done, 0 to 1; by number of tasks while none is known."""
        total = self.spent + self.work
        if self.ended is not None:  # of a run that failed, tasks may be left
            return self.done / max(self.tasks, 1)
        return (
            self.spent / total if self.spent > 0.0 else self.done / max(self.tasks + self.unseen, 1)
        )

    @property
    def expected_end(self) -> tuple[float, float, float]:
        """When it ends if nothing waits for a slot, and the 80 % interval; seconds since the
        epoch."""
        if self.ended is not None:
            return self.ended, self.ended, self.ended
        return self.updated + self.seconds, self.updated + self.low, self.updated + self.high

    def to_json(self) -> bytes:
        """As it stands in Redis. Half a surrogate pair, which UTF-8 cannot carry, is escaped."""
        return msgspec.json.encode(
            msgspec.structs.replace(
                self,
                run_id=text.encodable(self.run_id),
                running=tuple(map(text.encodable, self.running)),
                next=tuple(map(text.encodable, self.next)),
            )
        )


def read(raw: bytes | str) -> WorkflowStatus | None:
    """A status from Redis; None for what is none, or holds numbers that cannot be."""
    try:
        # Keys that are not known are passed over: a newer scheduler may publish more of them.
        status = msgspec.json.decode(raw, type=WorkflowStatus)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return status if _is_sane(status) else None


def _is_sane(status: WorkflowStatus) -> bool:
    # JSON's numbers are finite, but may be of any size.
    lasting = status.seconds, status.low, status.high, status.spent, status.work
    times = status.updated, status.arrived, status.deadline, status.ended
    return (
        0 <= status.done <= status.tasks <= _MOST_TASKS
        and 0 <= status.unseen <= _MOST_TASKS
        and all(0.0 <= seconds < _LONGEST for seconds in lasting)
        and all(at is None or abs(at) < _LATEST for at in times)
        and (status.late is None or 0.0 <= status.late <= 1.0)
    )
