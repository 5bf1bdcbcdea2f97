"""The table of rejected records: each of them once, with its reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from malearn.data import storage
from malearn.data.delta import rejection_columns
from malearn.data.delta.repair import Damage
from malearn.data.delta.table import Position, VersionedTable
from malearn.data.key_index import KeyIndex
from malearn.data.recent_durations import RecentDurations
from malearn.data.rejected_row import RejectedRow
from malearn.data.storage import Folder
from malearn.kernel.home import Home
from malearn.kernel.records import RejectReason

__all__ = ["Rejections"]


#: Reasons that validation gave, not the record's form; such a task is not validated again.
#: `DATASET_DAMAGED` is not among them: such a row was not validated, only put aside.
_BY_VALIDATION = frozenset(
    {RejectReason.INVALID_FEATURE, RejectReason.OUTLIER, RejectReason.BATCH_REFUSED}
)


class Rejections:
    """Everything that was rejected, quarantined or fenced, with its reason; each of it once."""

    def __init__(self, path: Folder) -> None:
        self.path = path
        self._table = VersionedTable(path, rejection_columns.SCHEMA)
        self._known_version: int | None = None
        self._keys, self._outliers = KeyIndex(), RecentDurations()

    @classmethod
    def open(cls, home: Home) -> Self:
        """The table of rejected records below `home`."""
        return cls(storage.root(home) / "_rejected")

    def held(self) -> AbstractContextManager[None]:
        """As `Dataset.held`."""
        return self._table.held()

    @property
    def rows(self) -> int:
        """How many there are."""
        return self._table.rows

    def append(
        self,
        refusals: Sequence[RejectedRow],
        transaction: Position | None = None,
        marks: Sequence[Position] = (),
    ) -> list[RejectedRow]:
        """Keep those of `refusals` that are new, in one commit, and return them.

        `transaction` and `marks` are committed even where there is nothing new. Raises
        `DatasetError`.
        """
        attempts = self._table.attempts()
        while True:
            next(attempts)
            table = self._table.open()
            if table is None:
                if not refusals and transaction is None and not marks:
                    return []
                table = self._table.create()
            before = table.version()
            self._refresh(before)
            new = self._new(refusals)
            positions = [*([] if transaction is None else [transaction]), *marks]
            # A read of the stream that brought nothing new still moves its position.
            if not new and all(map(self._is_past, positions)):
                return []
            if not self._table.commit(table, before, rejection_columns.table(new), positions):
                continue
            version = table.version()
            # Otherwise somebody else's commit lies in between: the index is then read again.
            if version == before + 1:
                self._learn([_Trace.from_row(r) for r in new])
                self._known_version = version
            if self._table.tidy(table) and self._known_version == version:
                self._known_version = table.version()
            return new

    def rejected_ends(self, task_ids: Sequence[str]) -> npt.NDArray[np.float64]:
        """When each of `task_ids` that validation kept out ended, in seconds since the epoch.

        -inf where it kept none out.
        """
        self._refresh(self._table.version)
        return self._keys.ends(task_ids)

    def ends(self, task_ids: Sequence[str]) -> npt.NDArray[np.float64]:
        """When each of `task_ids` that was rejected, for whatever reason, ended at the latest.

        In seconds since the epoch; 0 where that is not known, -inf where none was rejected.
        """
        self._refresh(self._table.version)
        return self._keys.ends([(task_id,) for task_id in task_ids])

    def recent_outliers(
        self, functions: Iterable[str], limit: int = 200, *, but: Collection[str] = ()
    ) -> dict[str, list[float]]:
        """As `Dataset.recent_log_seconds`, of what was fenced off, the tasks `but` left out."""
        self._refresh(self._table.version)
        return self._outliers.log_seconds(functions, limit, but)

    def read(self, tool_type: str | None = None) -> list[RejectedRow]:
        """What was refused, oldest first; of one tool type, or all."""
        found = [r for r in self.each() if tool_type is None or r.tool_type == tool_type]
        return sorted(found, key=lambda refusal: refusal.time or 0.0)

    def newest(self, count: int) -> Iterator[RejectedRow]:
        """The `count` that came in last, and those that came in with the first of them."""
        since = self.time_of_newest(count)
        if self._table.open() is None:
            return
        where = None if since is None else rejection_columns.came_in_since(since)
        for batch in self._table.columns(None, rejection_columns.SCHEMA.names, where):
            yield from rejection_columns.rows(batch)

    def each(self, task_ids: tuple[str, str] | None = None) -> Iterator[RejectedRow]:
        """What was refused, in no order; of tasks from the first to the last of `task_ids`."""
        if self._table.open() is None:
            return
        for batch in self._table.columns(None, rejection_columns.SCHEMA.names):
            yield from rejection_columns.rows(batch, task_ids)

    def replace(self, old: Iterable[RejectedRow], new: Sequence[RejectedRow]) -> None:
        """Let `new` take the place of `old`, of which each has a task id, in one commit."""
        keys = sorted({(r.rejected.task_id, r.rejected.reason.value) for r in old})
        if not keys and not new:
            return
        old_keys = {"old_task": [k[0] for k in keys], "old_reason": [k[1] for k in keys]}
        self._table.replace(
            rejection_columns.keys(old_keys),
            rejection_columns.table(new),
            "old.task_id = new.old_task AND old.reason = new.old_reason",
        )

    def mend(self) -> Damage:
        """Make a damaged table readable again, and report what was wrong."""
        return self._table.mend()

    def recover(self) -> int:
        """Add what files of earlier versions hold and the newest lacks; returns how many rows.

        Among them may be some that a retry had taken out: the next retry finds them known.
        """
        before = self.rows
        for held in self._table.unreferenced(rejection_columns.SCHEMA.names):
            for batch in held.to_batches():
                self.append(list(rejection_columns.rows(batch)))
        return self.rows - before

    def delete_before(self, until: float) -> int:
        """Delete what was refused before `until`, seconds since the epoch; returns how many."""
        if self._table.open() is None:
            return 0
        return self._table.delete(f"ingested_at < {until!r}")

    def time_of_newest(self, rows: int) -> float | None:
        """When the oldest of the newest `rows` came in; None while there are no more."""
        return self._table.least_of_newest("ingested_at", rows)

    def compact(self) -> int:
        """As `Dataset.compact`."""
        return self._table.compact()

    def vacuum(self, hours: float) -> int:
        """Remove files that only versions before the newest have needed for `hours`."""
        return self._table.vacuum((), hours)

    def counts(self) -> dict[tuple[str | None, RejectReason], int]:
        """How many by tool type (None: of none) and reason."""
        counts: dict[tuple[str | None, RejectReason], int] = defaultdict(int)
        if self._table.open() is not None:
            for batch in self._table.columns(None, ["tool_type", "reason"]):
                for row in batch.to_pylist():
                    counts[row["tool_type"], RejectReason(row["reason"])] += 1
        return dict(counts)

    def position(self, name: str) -> int | None:
        """The newest position committed under the application id `name`."""
        return self._table.position(name)

    def _is_past(self, transaction: Position) -> bool:
        return (self._table.position(transaction[0]) or -1) >= transaction[1]

    def _new(self, refusals: Sequence[RejectedRow]) -> list[RejectedRow]:
        keys = [r.key for r in refusals]
        known = self._keys.ends(keys).tolist()
        new: dict[object, RejectedRow] = {}
        for key, refusal, end in zip(keys, refusals, known, strict=True):
            # An unknown end counts as 0, which is later than -inf (new) and than no other.
            if (refusal.end or 0.0) > end:
                new.setdefault(key, refusal)
        return list(new.values())

    def _refresh(self, version: int | None) -> None:
        if version is None or version == self._known_version:
            return
        self._keys, self._outliers = KeyIndex(), RecentDurations()
        names = ["task_id", "reason", "detail", "digest", "function", "end", "seconds"]
        for batch in self._table.columns(version, names):
            self._learn([_Trace(**row) for row in batch.to_pylist()])
        self._known_version = version

    def _learn(self, traces: Sequence[_Trace]) -> None:
        # One index, three forms of keys: (task id, reason, …) identifies a rejection, (task id,)
        # any rejection of a task, a bare id a task that validation kept out.
        self._keys.add([t.key for t in traces], [t.end or 0.0 for t in traces])
        named = [t for t in traces if t.task_id]
        self._keys.add([(t.task_id,) for t in named], [t.end or 0.0 for t in named])
        validated = [(t, t.end) for t in traces if t.end is not None and t.reason in _BY_VALIDATION]
        self._keys.add([t.task_id for t, _ in validated], [end for _, end in validated])
        self._outliers.add(
            (t.task_id, t.function, end, t.seconds or 0.0)
            for t, end in validated
            if t.reason == RejectReason.OUTLIER
        )


@dataclass(frozen=True, slots=True)
class _Trace:
    """The fields of a rejection that identify it, and its times."""

    task_id: str
    reason: str
    detail: str
    digest: str | None
    function: str
    end: float | None
    seconds: float | None

    @classmethod
    def from_row(cls, row: RejectedRow) -> _Trace:
        r = row.rejected
        return cls(
            r.task_id, r.reason.value, r.detail, row.digest, r.function, row.end, row.seconds
        )

    @property
    def key(self) -> tuple[str, ...]:
        """What identifies a rejection; without a task id, all that is known of it."""
        if self.task_id:
            return (self.task_id, self.reason)
        return ("", self.reason, self.detail, self.digest or "")
