"""The dataset of one tool type: its executions, versioned, each task once.

What is there already is not added, and a record of the same task that ended later takes its
place in one commit.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from malearn.data import csv_files, storage
from malearn.data.delta import execution_columns
from malearn.data.delta.repair import Damage
from malearn.data.delta.table import Commit, Position, VersionedTable
from malearn.data.key_index import KeyIndex
from malearn.data.recent_durations import RecentDurations
from malearn.data.rows import Rows
from malearn.data.storage import Folder
from malearn.kernel.home import Home
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolType

__all__ = ["AppendResult", "Dataset"]


#: Application id of the end, in milliseconds since the epoch, before which retention deleted rows.
#: The name is stored in tables since 0.1.0 and must stay. Delta keeps whole numbers only, hence
#: milliseconds.
_DELETED_BEFORE = "malearn-let-go"


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What an append did; `version` is the table's afterwards, None while there is none."""

    version: int | None
    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()


class Dataset:
    """The executions of one tool type, at `path`. Not thread-safe; processes may race.

    Example::

        dataset = Dataset.open(home, tool_types["llm_process"])
        dataset.append(executions).version
        dataset.read(version=3)
    """

    def __init__(self, path: Folder, tool_type: ToolType) -> None:
        self.path, self.tool_type = path, tool_type
        self._table = VersionedTable(path, execution_columns.schema(tool_type))
        # The version that the index below was built from.
        self._known_version: int | None = None
        self._keys = KeyIndex()
        self._recent = RecentDurations()

    @classmethod
    def open(cls, home: Home, tool_type: ToolType) -> Self:
        """The dataset of `tool_type` below `home`."""
        return cls(storage.root(home) / tool_type.name, tool_type)

    def held(self) -> AbstractContextManager[None]:
        """As `VersionedTable.held`: inside, others' commits are met only by a commit of its own."""
        return self._table.held()

    @property
    def version(self) -> int | None:
        """The newest version; None while nothing was ever written."""
        return self._table.version

    @property
    def rows(self) -> int:
        """How many executions the newest version holds."""
        return self._table.rows

    def append(
        self, executions: Iterable[Execution], transaction: Position | None = None
    ) -> AppendResult:
        """Add `executions` in one commit, or none of them.

        A task id that is there already, with the same or a later end, is left
        out as a duplicate; with an earlier end its row is replaced. The
        application id and position in `transaction` become part of the same
        commit; a position never moves back. Raises `DatasetError`.
        """
        given = Rows.from_executions(self.tool_type, executions)
        # Within a batch, too, the record that ended last stands for its task.
        latest = given.take(given.latest())
        positions = [] if transaction is None else [transaction]
        attempts = self._table.attempts()
        while True:
            next(attempts)
            table = self._table.open()
            if table is None:
                if not latest:
                    return AppendResult(None)
                table = self._table.create()
            before = table.version()
            self._refresh(before)
            known = self._keys.ends(latest.task_ids)
            later = latest.end > known
            duplicates = tuple(compress(latest.task_ids, ~later))
            # The position is not lost: the batch's rejections are committed with it, too.
            if not later.any():
                return AppendResult(table.version(), duplicates=duplicates)
            replaced = tuple(compress(latest.task_ids, later & (known > -np.inf)))
            chosen = latest.take(later)
            rows = execution_columns.table(chosen)
            # A merge reads the files it may change; most batches replace nothing, and only append.
            if not self._table.commit(table, before, rows, positions, replaces=bool(replaced)):
                continue
            version = table.version()
            self._learn(chosen, before, version, bool(replaced))
            # Merging files changes no row: the index stays true of the version that it made.
            if self._table.tidy(table) and self._known_version == version:
                self._known_version = table.version()
            added = tuple(compress(latest.task_ids, later & (known == -np.inf)))
            return AppendResult(table.version(), added, replaced, duplicates)

    def rows_added_since(self, version: int) -> int:
        """How many executions were ingested after `version`, whatever times they carry."""
        return self._table.rows_added_since(version)

    def ended_after(self, moment: float) -> list[Execution]:
        """The executions that ended later than `moment`, in seconds since the epoch."""
        self._refresh(self._table.version)
        # The index answers for nearly every call, without a scan of the table.
        if self._keys.latest <= moment:
            return []
        names = execution_columns.stored(self.tool_type)
        found = self._table.read(None, names, execution_columns.ended_after(moment))
        return execution_columns.executions(self.tool_type, found)

    def delete_after(self, moment: float) -> int:
        """Delete what ended later than `moment`, seconds since the epoch; returns how many."""
        return self._table.delete(f'"end" > {moment!r}')

    def ends(self, task_ids: Sequence[str]) -> npt.NDArray[np.float64]:
        """When each of `task_ids` ended, in seconds since the epoch; -inf where it is not there."""
        self._refresh(self._table.version)
        return self._keys.ends(task_ids)

    def recent_log_seconds(
        self, functions: Iterable[str], limit: int = 200
    ) -> dict[str, list[float]]:
        """What each of `functions` took lately, oldest first: at most `limit` (<= 500) log-seconds.

        By end, then task id: the same rows give the same answer however they came in.
        """
        self._refresh(self._table.version)
        return self._recent.log_seconds(functions, limit)

    def read(self, version: int | None = None) -> list[Execution]:
        """The executions of `version`, or the newest, in order of (start, task_id).

        All that it ever took in: what only needs the newest reads an `ExecutionWindow`.
        A feature that the table does not have, or has no value for, is NaN.
        Raises `DatasetError` for a version that is not there; a dataset that
        was never written to is empty.
        """
        if version is None and self._table.open() is None:
            return []
        names = execution_columns.stored(self.tool_type)
        return execution_columns.executions(self.tool_type, self._table.read(version, names))

    def newest(
        self, rows: int, version: int | None = None, before: float = math.inf
    ) -> list[Execution]:
        """The newest `rows` executions of `version`, in order of (start, task_id).

        Of those that started before `before`, seconds since the epoch. Costs what they do,
        whatever else the dataset holds.
        """
        if version is None and self._table.open() is None:
            return []
        # Two reads: one column to find the start of the window, then all columns of the rows in it.
        since = self._table.least_of_newest("start", rows, version, before)
        names = execution_columns.stored(self.tool_type)
        where = execution_columns.started_between(-math.inf if since is None else since, before)
        found = self._table.read(version, names, where)
        # Several executions may share the first start; the order by task id decides which stay.
        return execution_columns.executions(self.tool_type, found)[-rows:]

    def newest_of_functions(
        self, each: int, among: int, version: int | None = None, before: float = math.inf
    ) -> list[Execution]:
        """The newest `each` executions of every function, in order of (start, task_id).

        Of the newest `among` that started before `before`, seconds since the epoch. Memory is
        that of what is returned.
        """
        if version is None and self._table.open() is None:
            return []
        since = self._table.least_of_newest("start", among, version, before)
        names = execution_columns.stored(self.tool_type)
        where = execution_columns.started_between(-math.inf if since is None else since, before)
        kept = execution_columns.newest_of_functions(
            self._table.columns(version, names, where), self._table.subschema(names), each
        )
        return execution_columns.executions(self.tool_type, kept)

    def count_readable(self) -> int:
        """Read every value of every row, and return how many rows there are."""
        if self._table.open() is None:
            return 0
        names = self._table.schema.names
        return sum(batch.num_rows for batch in self._table.columns(None, names))

    def mend(self) -> Damage:
        """Make a damaged table readable again, and report what was wrong."""
        return self._table.mend()

    def recover(self) -> int:
        """Add what files of earlier versions hold and the newest lacks; returns how many rows.

        What retention has deleted stays deleted.
        """
        before, names = self.rows, execution_columns.stored(self.tool_type)
        for held in self._table.unreferenced(names):
            found = execution_columns.executions(self.tool_type, held)
            # Old files also hold what was replaced or deleted since: `append` keeps the later
            # record of a task, and retention's limit keeps out what it deleted.
            self.append([e for e in found if e.end >= self.deleted_before])
        return self.rows - before

    def history(self) -> list[Commit]:
        """Its versions, newest first; empty while there are none."""
        return self._table.history()

    def position(self, name: str) -> int | None:
        """The newest position committed under the application id `name`."""
        return self._table.position(name)

    @property
    def deleted_before(self) -> float:
        """The end, in seconds since the epoch, before which retention deleted all executions."""
        return (self.position(_DELETED_BEFORE) or 0) / 1000.0

    def delete_before(self, until: float) -> int:
        """Delete what ended before `until`, seconds since the epoch; returns how many.

        The same commit remembers `until`, so that ingestion can tell these
        executions from new ones. Versions before it still hold them.
        """
        # Rounded down, and used for the deletion too, so that limit and deletion agree exactly.
        milliseconds = math.floor(until * 1000.0)
        if self._table.open() is None or milliseconds <= (self.position(_DELETED_BEFORE) or 0):
            return 0
        mark = (_DELETED_BEFORE, milliseconds)
        return self._table.delete(f'"end" < {milliseconds / 1000.0!r}', mark)

    def end_of_newest(self, rows: int) -> float | None:
        """When the oldest of the newest `rows` executions ended; None while there are no more."""
        return self._table.least_of_newest("end", rows)

    def compact(self) -> int:
        """Merge small files; returns by how many fewer they are. The rows stay as they are."""
        return self._table.compact()

    def vacuum(self, keep: Collection[int], hours: float) -> int:
        """Remove files that only old versions have needed for `hours`; returns how many.

        The newest version and those in `keep` stay readable, whatever their age.
        """
        return self._table.vacuum(keep, hours)

    def first_versions(self) -> dict[str, int]:
        """For each feature that it has a column for, the first version that had one."""
        newest = self.version
        if newest is None:
            return {}

        def known(version: int) -> set[str]:
            names = self._table.column_names(version)
            return {n for n in self.tool_type.feature_names if f"serve_{n}" in names}

        oldest, first = known(0), {}
        for name in known(newest):
            low, high = 0, 0 if name in oldest else newest
            while high - low > 1:  # columns come, and never go
                middle = (low + high) // 2
                low, high = (low, middle) if name in known(middle) else (middle, high)
            first[name] = high
        return first

    def export_parquet(self, file: Path, version: int | None = None) -> int:
        """Write every column of `version` to `file`; returns the number of rows."""
        return self._table.write_parquet(file, version)

    def export_csv(self, file: Path, version: int | None = None) -> int:
        """Write `version` in the original's columns to `file`; returns the number of rows.

        `task_id,timestamp,<features as the task ran>,execution_time`, then
        what the original has no place for; `csv_files.read` reads it back.
        """
        # Raises for a version that is not there, before the file is created.
        self._table.at(version)
        executions = self.read(version)
        csv_files.write(file, self.tool_type, executions)
        return len(executions)

    def _refresh(self, version: int | None) -> None:
        """Index every row of `version`, the newest."""
        if version is None or version == self._known_version:
            return
        self._keys, self._recent = KeyIndex(), RecentDurations()
        names = ["task_id", "function", "end", "seconds"]
        for batch in self._table.columns(version, names):
            task_ids, functions, ends, seconds = (batch.column(n).to_pylist() for n in names)
            self._keys.add(task_ids, ends)
            self._recent.add(zip(task_ids, functions, ends, seconds, strict=True))
        self._known_version = version

    def _learn(self, added: Rows, before: int, after: int, replaced: bool) -> None:
        # `RecentDurations` cannot take a replaced row back, and commits of others were not seen:
        # the next caller reads the index again.
        if replaced or after != before + 1:
            self._known_version = None
            return
        ends, seconds = added.end.tolist(), added.seconds.tolist()
        self._keys.add(added.task_ids, ends)
        self._recent.add(zip(added.task_ids, added.functions, ends, seconds, strict=True))
        self._known_version = after
