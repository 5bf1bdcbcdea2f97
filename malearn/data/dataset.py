"""What was learnt from, versioned: one Delta Lake table per tool type, one for what was refused.

The only home of `deltalake` and `pyarrow`. Each commit is a version that can be
read again until a vacuum, told which versions to keep, removes its files. A task
id stands in a table once: what is there already is not added, and a record of the
same task that ended later takes its place in one commit. Writers may race: every
commit carries Delta's application transaction `malearn`, so that of two commits
from one version the second fails, looks again at what is there, and retries.
"""

from __future__ import annotations

import csv
import hashlib
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from malearn.data.key_index import KeyIndex
from malearn.data.recent_durations import RecentDurations
from malearn.data.rows import Rows
from malearn.kernel import run_ids
from malearn.kernel.errors import DatasetError
from malearn.kernel.home import Home
from malearn.kernel.records import Execution, Rejected, RejectReason
from malearn.kernel.tool_types import ToolType

__all__ = ["Appended", "Commit", "Dataset", "RejectedRow", "Rejections", "Transactions"]

#: Application id and position, both as Delta keeps them: see `Dataset.append`.
Transactions = tuple[str, int]

_WRITER = "malearn"
#: Application id of the end, in milliseconds since the epoch, before which rows were let go.
_DELETED_BEFORE = "malearn-let-go"
_ATTEMPTS = 50
_VIEWS = ("serve", "ran")  # as known before a task ran, and as it ran
#: Versions after which small files are merged, and the bytes that such a file has at most.
_TIDIED, _SMALL = 8, 4 * 2**20
#: Rows that are read at once.
_BATCH = 16_384
#: Reasons that a verdict gave, not the record's form; such a task is not judged again.
_JUDGED = frozenset(
    {RejectReason.INVALID_FEATURE, RejectReason.OUTLIER, RejectReason.BATCH_REFUSED}
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append did; `version` is the table's afterwards, None while there is none."""

    version: int | None
    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Commit:
    """One version of a table; `time` in seconds since the epoch."""

    version: int
    time: float
    operation: str
    rows_added: int
    rows_removed: int = 0


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
        """What makes a refusal the same again; without a task id, all that is known of it."""
        return _Trace.from_row(self).key


class _Table:
    """One Delta table with a fixed set of columns; created with its first commit."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema
        self._newest: DeltaTable | None = None

    def open(self, version: int | None = None) -> DeltaTable | None:
        """The table, at `version` or the newest; None while nothing was ever written."""
        try:
            if version is not None:
                return DeltaTable(str(self.path), version=version)
            if self._newest is None or not self.path.is_dir():
                self._newest = None
                self._newest = DeltaTable(str(self.path))
            else:
                self._newest.update_incremental()
            return self._newest
        except TableNotFoundError:
            return None
        except DeltaError as error:
            raise DatasetError(self.path.name, _one_line(error)) from error

    def at(self, version: int | None) -> DeltaTable:
        """The table at `version`, or the newest; raises `DatasetError` where there is none."""
        newest = self.open()
        if version is not None and newest is not None and version > newest.version():
            raise DatasetError(
                self.path.name, f"it has no version {version}; the newest is {newest.version()}"
            )
        table = newest if version is None else self.open(version)
        if table is None:
            what = "there is none" if version is None else f"it has no version {version}"
            raise DatasetError(self.path.name, f"{what} at {self.path}; ingest something first")
        return table

    def create(self) -> DeltaTable:
        try:
            return DeltaTable.create(
                str(self.path),
                schema=self.schema,
                mode="ignore",
                configuration={
                    # A version that a model was trained on stays readable: the log is never cut.
                    "delta.logRetentionDuration": "interval 36500 days",
                    "delta.checkpointInterval": "20",  # opening reads no more commits than that
                },
            )
        except DeltaError as error:
            if (table := self.open()) is not None:  # another process was faster
                return table
            raise DatasetError(self.path.name, _one_line(error)) from error

    def commit(
        self,
        table: DeltaTable,
        rows: pa.Table,
        transaction: Transactions | None,
        replaces: bool = False,
    ) -> bool:
        """Write `rows` onto exactly this version of `table`; False when another came first."""
        marks = [Transaction(_WRITER, table.version() + 1)]
        if transaction is not None:
            name, position = transaction
            marks.append(Transaction(name, max(position, table.transaction_version(name) or 0)))
        properties = CommitProperties(app_transactions=marks)
        grown = not {f.name for f in table.schema().fields} >= set(self.schema.names)
        try:
            if replaces:
                table.merge(
                    rows,
                    "old.task_id = new.task_id",
                    source_alias="new",
                    target_alias="old",
                    merge_schema=grown,
                    commit_properties=properties,
                ).when_matched_update_all().when_not_matched_insert_all().execute()
            else:
                write_deltalake(
                    table,
                    rows,
                    mode="append",
                    schema_mode="merge",
                    commit_properties=properties,
                )
        except CommitFailedError:
            self._newest = None
            return False
        except DeltaError as error:
            raise DatasetError(self.path.name, _one_line(error)) from error
        return True

    def tidy(self, table: DeltaTable) -> bool:
        """Merge the small files that a trickle leaves, now and then: a file costs a reader 2 ms.

        Large ones stay as they are, so that it costs little however large the table is. Says
        whether that, and nothing else, moved `table` to its next version.
        """
        before = table.version()
        if before % _TIDIED:
            return False
        try:
            table.optimize.compact(target_size=_SMALL)
        except CommitFailedError:  # somebody replaced rows meanwhile; the next one tidies up
            self._newest = None
            return False
        except DeltaError as error:
            raise DatasetError(self.path.name, _one_line(error)) from error
        return table.version() == before + 1

    def columns(self, version: int | None, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Large batches of the columns `names`, those the table lacks as nulls.

        Raises `DatasetError` for a version of which a vacuum has removed files.
        """
        schema = self.subschema(names)
        table = self.at(version)
        dataset = table.to_pyarrow_dataset(schema=schema)
        small: list[pa.RecordBatch] = []
        rows = 0
        try:
            for batch in dataset.to_batches(columns=list(names), batch_size=_BATCH):
                small.append(batch)
                rows += batch.num_rows
                if rows >= _BATCH:  # a trickle leaves thousands of files of a few rows
                    yield from pa.Table.from_batches(small, schema).combine_chunks().to_batches()
                    small, rows = [], 0
        except FileNotFoundError as error:
            raise DatasetError(
                self.path.name,
                f"the files of version {table.version()} were cleaned up; those stay that "
                "a registered model was trained on, and the newest",
            ) from error
        yield from pa.Table.from_batches(small, schema).combine_chunks().to_batches()

    def attempts(self) -> Iterator[None]:
        """As many as a commit may take, further and further apart; then raises `DatasetError`."""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(random.uniform(0.0, 0.02 * attempt))
            yield
        raise DatasetError(
            self.path.name, f"gave up after {_ATTEMPTS} conflicting commits from concurrent writers"
        )

    def change(self, action: Callable[[DeltaTable], _T]) -> _T:
        """Do `action`, one commit, on the newest version, again after each that came before it."""
        attempts = self.attempts()
        while True:
            next(attempts)
            table = self.at(None)
            try:
                return action(table)
            except CommitFailedError:
                self._newest = None
            except DeltaError as error:
                raise DatasetError(self.path.name, _one_line(error)) from error

    def compact(self) -> int:
        """Merge small files into large ones; returns by how many fewer they are."""
        if self.open() is None:
            return 0
        done = self.change(lambda table: table.optimize.compact())
        return int(done["numFilesRemoved"]) - int(done["numFilesAdded"])

    def delete(self, predicate: str, properties: CommitProperties | None = None) -> int:
        """Delete the rows of which `predicate`, in SQL, holds; returns how many."""
        done = self.change(lambda table: table.delete(predicate, commit_properties=properties))
        return int(done["num_deleted_rows"])

    def vacuum(self, keep: Collection[int], hours: float) -> int:
        """Remove files that have been needed by no version but old ones for `hours`.

        Those that a version in `keep` needs stay, whatever their age. Returns how many went.
        """
        table = self.open()
        if table is None:
            return 0
        newest = table.version()
        options: dict[str, Any] = {
            # The library counts in whole hours: rather keep for one too many.
            "retention_hours": math.ceil(hours),
            "enforce_retention_duration": False,
            "full": True,  # else what was dropped before the last checkpoint stays for good
            "keep_versions": sorted({v for v in keep if 0 <= v < newest}) or None,
        }
        named = self.change(lambda table: table.vacuum(dry_run=True, **options))
        there = [name for name in named if (self.path / name).exists()]
        if there:  # a vacuum is two commits, and names again what went with the one before
            self.change(lambda table: table.vacuum(dry_run=False, **options))
        return len(there)

    def least_of_newest(self, column: str, rows: int) -> float | None:
        """The smallest of the `rows` largest values of `column`; None where there are no more."""
        if self.open() is None:
            return None
        values = np.concatenate(
            [batch.column(0).to_numpy() for batch in self.columns(None, [column])]
        )
        return float(np.partition(values, -rows)[-rows]) if len(values) > rows else None

    def subschema(self, names: Sequence[str]) -> pa.Schema:
        """The schema of the columns `names`."""
        return pa.schema([self.schema.field(name) for name in names])


class Dataset:
    """The executions of one tool type, at `path`. Not thread-safe; processes may race.

    Example::

        dataset = Dataset.open(home, tool_types["llm_process"])
        dataset.append(executions).version
        dataset.read(version=3)
    """

    def __init__(self, path: Path, tool_type: ToolType) -> None:
        self.path, self.tool_type = path, tool_type
        self._table = _Table(path, _execution_schema(tool_type))
        self._known_version: int | None = None
        self._seen = KeyIndex()
        self._recent = RecentDurations()

    @classmethod
    def open(cls, home: Home, tool_type: ToolType) -> Self:
        """The dataset of `tool_type` below `home`."""
        return cls(home.data / tool_type.name, tool_type)

    @property
    def version(self) -> int | None:
        """The newest version; None while nothing was ever written."""
        table = self._table.open()
        return None if table is None else table.version()

    @property
    def rows(self) -> int:
        """How many executions the newest version holds."""
        table = self._table.open()
        return 0 if table is None else int(table.count())

    def append(
        self, executions: Iterable[Execution], transaction: Transactions | None = None
    ) -> Appended:
        """Add `executions` in one commit, or none of them.

        A task id that is there already, with the same or a later end, is left
        out as a duplicate; with an earlier end its row is replaced. The
        application id and position in `transaction` become part of the same
        commit; a position never moves back. Raises `DatasetError`.
        """
        given = Rows.from_executions(self.tool_type, executions)
        latest = given.take(given.latest())
        attempts = self._table.attempts()
        while True:
            next(attempts)
            table = self._table.open()
            if table is None:
                if not latest:
                    return Appended(None)
                table = self._table.create()
            self._refresh(table)
            known = self._seen.ends(latest.task_ids)
            later = latest.end > known
            duplicates = tuple(compress(latest.task_ids, ~later))
            if not later.any():
                return Appended(table.version(), duplicates=duplicates)
            replaced = tuple(compress(latest.task_ids, later & (known > -np.inf)))
            chosen = latest.take(later)
            before = table.version()
            rows = _rows(chosen, self._table.schema)
            if not self._table.commit(table, rows, transaction, replaces=bool(replaced)):
                continue
            version = table.version()
            self._learn(chosen, before, version, bool(replaced))
            if self._table.tidy(table) and self._known_version == version:
                self._known_version = table.version()
            added = tuple(compress(latest.task_ids, later & (known == -np.inf)))
            return Appended(table.version(), added, replaced, duplicates)

    def ended_after(self, moment: float) -> int:
        """How many executions ended later than `moment`, in seconds since the epoch."""
        if self._table.open() is None:
            return 0
        batches = self._table.columns(None, ["end"])
        return sum(int((batch.column("end").to_numpy() > moment).sum()) for batch in batches)

    def ends(self, task_ids: Sequence[str]) -> npt.NDArray[np.float64]:
        """When each of `task_ids` ended, in seconds since the epoch; -inf where it is not there."""
        self._refresh(self._table.open())
        return self._seen.ends(task_ids)

    def recent_log_seconds(
        self, functions: Iterable[str], limit: int = 200
    ) -> dict[str, list[float]]:
        """What each of `functions` took lately, oldest first: at most `limit` (<= 500) log-seconds.

        By end, then task id: the same rows give the same answer however they came in.
        """
        self._refresh(self._table.open())
        return self._recent.log_seconds(functions, limit)

    def read(self, version: int | None = None) -> list[Execution]:
        """The executions of `version`, or the newest, in order of (start, task_id).

        A feature that the table does not have, or has no value for, is NaN.
        Raises `DatasetError` for a version that is not there; a dataset that
        was never written to is empty.
        """
        if version is None and self._table.open() is None:
            return []
        derived = {"run", "seconds", "ingested_at"}
        names = [name for name in self._table.schema.names if name not in derived]
        batches = self._table.columns(version, names)
        table = pa.Table.from_batches(batches, self._table.subschema(names))
        table = table.sort_by([("start", "ascending"), ("task_id", "ascending")])
        features = self.tool_type.feature_names
        serve, ran = (_tuples(table, [f"{view}_{name}" for name in features]) for view in _VIEWS)
        plain = ("task_id", "function", "start", "end", "query", "predicted", "model_version")
        columns = [table.column(name).to_pylist() for name in plain]
        words = self.tool_type.context
        contexts = [_words(table, [f"{view}_{name}" for name in words]) for view in _VIEWS]
        tool_type = self.tool_type.name
        return [
            Execution(task_id, function, tool_type, start, end, s, r, query, predicted, model, c, d)
            for task_id, function, start, end, query, predicted, model, s, r, c, d in zip(
                *columns, serve, ran, *contexts, strict=True
            )
        ]

    def history(self) -> list[Commit]:
        """Its versions, newest first; empty while there are none."""
        table = self._table.open()
        return [] if table is None else [_commit(entry) for entry in table.history()]

    def position(self, name: str) -> int | None:
        """The newest position committed under the application id `name`."""
        table = self._table.open()
        return None if table is None else table.transaction_version(name)

    @property
    def deleted_before(self) -> float:
        """The end, in seconds since the epoch, before which executions were let go for good."""
        return (self.position(_DELETED_BEFORE) or 0) / 1000.0

    def delete_before(self, until: float) -> int:
        """Delete what ended before `until`, seconds since the epoch; returns how many.

        The same commit remembers `until`, so that whoever ingests can tell these
        executions from new ones. Versions before it still hold them.
        """
        milliseconds = math.floor(until * 1000.0)
        if self._table.open() is None or milliseconds <= (self.position(_DELETED_BEFORE) or 0):
            return 0
        marks = CommitProperties(app_transactions=[Transaction(_DELETED_BEFORE, milliseconds)])
        return self._table.delete(f'"end" < {milliseconds / 1000.0!r}', marks)

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
            names = {field.name for field in self._table.at(version).schema().fields}
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
        rows = 0
        with pq.ParquetWriter(file, self._table.schema) as writer:
            for batch in self._table.columns(version, self._table.schema.names):
                writer.write_batch(batch)
                rows += batch.num_rows
        return rows

    def export_csv(self, file: Path, version: int | None = None) -> int:
        """Write `version` in the original's columns to `file`; returns the number of rows.

        `task_id,timestamp,<features as the task ran>,execution_time`, then
        what the original has no place for; `sources.table` reads it back.
        """
        self._table.at(version)
        features, words = self.tool_type.feature_names, self.tool_type.context
        executions = self.read(version)
        unknown = ("",) * len(words)
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(
                ["task_id", "timestamp", *features, "execution_time"]
                + ["function", "query", "predicted", "model_version"]
                + [f"serve_{name}" for name in (*features, *words)]
                + list(words)
            )
            for e in executions:
                writer.writerow(
                    [e.task_id, repr(e.start), *map(_cell, e.ran), repr(e.seconds)]
                    + [e.function, e.query, _cell(e.predicted), _cell(e.model_version)]
                    + [_cell(value) for value in e.serve]
                    + [*(e.serve_context or unknown), *(e.ran_context or unknown)]
                )
        return len(executions)

    def _refresh(self, table: DeltaTable | None) -> None:
        """Know every row of `table`."""
        if table is None or table.version() == self._known_version:
            return
        self._seen, self._recent = KeyIndex(), RecentDurations()
        names = ["task_id", "function", "end", "seconds"]
        for batch in self._table.columns(table.version(), names):
            task_ids, functions, ends, seconds = (batch.column(n).to_pylist() for n in names)
            self._seen.add(task_ids, ends)
            self._recent.add(zip(task_ids, functions, ends, seconds, strict=True))
        self._known_version = table.version()

    def _learn(self, added: Rows, before: int, after: int, replaced: bool) -> None:
        if replaced or after != before + 1:
            self._known_version = None
            return
        ends, seconds = added.end.tolist(), added.seconds.tolist()
        self._seen.add(added.task_ids, ends)
        self._recent.add(zip(added.task_ids, added.functions, ends, seconds, strict=True))
        self._known_version = after


class Rejections:
    """Everything that was rejected, quarantined or fenced, with its reason; each of it once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._table = _Table(path, _REFUSAL_SCHEMA)
        self._known_version: int | None = None
        self._seen, self._outliers = KeyIndex(), RecentDurations()

    @classmethod
    def open(cls, home: Home) -> Self:
        """The table of rejected records below `home`."""
        return cls(home.data / "_rejected")

    @property
    def rows(self) -> int:
        table = self._table.open()
        return 0 if table is None else int(table.count())

    def append(
        self, refusals: Sequence[RejectedRow], transaction: Transactions | None = None
    ) -> list[RejectedRow]:
        """Keep those of `refusals` that are new, in one commit, and return them.

        `transaction` is committed even where there is nothing new. Raises `DatasetError`.
        """
        attempts = self._table.attempts()
        while True:
            next(attempts)
            table = self._table.open()
            if table is None:
                if not refusals and transaction is None:
                    return []
                table = self._table.create()
            self._refresh(table)
            new = self._new(refusals)
            if not new and (transaction is None or self._is_past(table, transaction)):
                return []
            before = table.version()
            if not self._table.commit(table, _refusal_rows(new), transaction):
                continue
            version = table.version()
            if version == before + 1:
                self._learn([_Trace.from_row(r) for r in new])
                self._known_version = version
            if self._table.tidy(table) and self._known_version == version:
                self._known_version = table.version()
            return new

    def judged_ends(self, task_ids: Sequence[str]) -> npt.NDArray[np.float64]:
        """When each of `task_ids` that a verdict kept out ended, in seconds since the epoch.

        -inf where there was no such verdict.
        """
        self._refresh(self._table.open())
        return self._seen.ends(task_ids)

    def known(self, task_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which of `task_ids` were refused, for whatever reason; shape (len(task_ids),)."""
        self._refresh(self._table.open())
        return self._seen.ends([(task_id,) for task_id in task_ids]) > -np.inf

    def recent_outliers(
        self, functions: Iterable[str], limit: int = 200, *, but: Collection[str] = ()
    ) -> dict[str, list[float]]:
        """As `Dataset.recent_log_seconds`, of what was fenced off, the tasks `but` left out."""
        self._refresh(self._table.open())
        return self._outliers.log_seconds(functions, limit, but)

    def read(self, tool_type: str | None = None) -> list[RejectedRow]:
        """What was refused, oldest first; of one tool type, or all."""
        found = [r for r in self.each() if tool_type is None or r.tool_type == tool_type]
        return sorted(found, key=lambda refusal: refusal.time or 0.0)

    def each(self, task_ids: tuple[str, str] | None = None) -> Iterator[RejectedRow]:
        """What was refused, in no order; of tasks from the first to the last of `task_ids`."""
        if self._table.open() is None:
            return
        for batch in self._table.columns(None, _REFUSAL_SCHEMA.names):
            if task_ids is not None:
                column = pc.field("task_id")
                batch = batch.filter((column >= task_ids[0]) & (column <= task_ids[1]))
            for row in batch.to_pylist():
                yield _refusal(row)

    def replace(self, old: Iterable[RejectedRow], new: Sequence[RejectedRow]) -> None:
        """Let `new` take the place of `old`, of which each has a task id, in one commit."""
        keys = sorted({(r.rejected.task_id, r.rejected.reason.value) for r in old})
        if not keys and not new:
            return
        none = [None] * len(new)
        rows = pa.concat_tables(
            [
                pa.table({"old_task": [k[0] for k in keys], "old_reason": [k[1] for k in keys]}),
                _refusal_rows(new)
                .append_column("old_task", pa.array(none, pa.string()))
                .append_column("old_reason", pa.array(none, pa.string())),
            ],
            promote_options="default",
        )

        def merge(table: DeltaTable) -> None:
            mark = Transaction(_WRITER, table.version() + 1)
            table.merge(
                rows,
                "old.task_id = new.old_task AND old.reason = new.old_reason",
                source_alias="new",
                target_alias="old",
                commit_properties=CommitProperties(app_transactions=[mark]),
            ).when_matched_delete().when_not_matched_insert(
                {f'"{name}"': f'new."{name}"' for name in _REFUSAL_SCHEMA.names},
                predicate="new.old_task IS NULL",
            ).execute()

        self._table.change(merge)

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
        table = self._table.open()
        return None if table is None else table.transaction_version(name)

    def _is_past(self, table: DeltaTable, transaction: Transactions) -> bool:
        return (table.transaction_version(transaction[0]) or -1) >= transaction[1]

    def _new(self, refusals: Sequence[RejectedRow]) -> list[RejectedRow]:
        keys = [_Trace.from_row(r).key for r in refusals]
        known = self._seen.ends(keys).tolist()
        new: dict[object, RejectedRow] = {}
        for key, refusal, end in zip(keys, refusals, known, strict=True):
            if (refusal.end or 0.0) > end:
                new.setdefault(key, refusal)
        return list(new.values())

    def _refresh(self, table: DeltaTable | None) -> None:
        if table is None or table.version() == self._known_version:
            return
        self._seen, self._outliers = KeyIndex(), RecentDurations()
        names = ["task_id", "reason", "detail", "digest", "function", "end", "seconds"]
        for batch in self._table.columns(table.version(), names):
            self._learn([_Trace(**row) for row in batch.to_pylist()])
        self._known_version = table.version()

    def _learn(self, traces: Sequence[_Trace]) -> None:
        self._seen.add([t.key for t in traces], [t.end or 0.0 for t in traces])
        named = [t for t in traces if t.task_id]
        self._seen.add([(t.task_id,) for t in named], [t.end or 0.0 for t in named])
        judged = [(t, t.end) for t in traces if t.end is not None and t.reason in _JUDGED]
        self._seen.add([t.task_id for t, _ in judged], [end for _, end in judged])
        self._outliers.add(
            (t.task_id, t.function, end, t.seconds or 0.0)
            for t, end in judged
            if t.reason == RejectReason.OUTLIER
        )


@dataclass(frozen=True, slots=True)
class _Trace:
    """As much of a refusal as it takes to know it again."""

    task_id: str
    reason: str
    detail: str
    digest: str | None
    function: str
    end: float | None
    seconds: float | None

    @classmethod
    def from_row(cls, refusal: RejectedRow) -> _Trace:
        r = refusal.rejected
        return cls(
            r.task_id,
            r.reason.value,
            r.detail,
            _digest(r),
            r.function,
            refusal.end,
            refusal.seconds,
        )

    @property
    def key(self) -> tuple[str, ...]:
        """What makes a refusal the same again; without a task id, all that is known of it."""
        if self.task_id:
            return (self.task_id, self.reason)
        return ("", self.reason, self.detail, self.digest or "")


def _execution_schema(tool_type: ToolType) -> pa.Schema:
    text, number = pa.string(), pa.float64()
    fixed = [("task_id", text), ("run", text), ("function", text), ("query", text)]
    fixed += [("start", number), ("end", number), ("seconds", number), ("predicted", number)]
    fixed += [("model_version", pa.int64()), ("ingested_at", number)]
    views = [(f"{view}_{n}", number) for view in _VIEWS for n in tool_type.feature_names]
    views += [(f"{view}_{n}", text) for view in _VIEWS for n in tool_type.context]
    return pa.schema(fixed + views)


_REFUSAL_SCHEMA = pa.schema(
    [
        (name, pa.string())
        for name in ("task_id", "function", "tool_type", "reason", "detail", "record", "source")
    ]
    + [("digest", pa.string())]
    + [(name, pa.float64()) for name in ("end", "seconds", "ingested_at")]
)


def _rows(rows: Rows, schema: pa.Schema) -> pa.Table:
    columns: dict[str, object] = {
        "task_id": rows.task_ids,
        "run": [run_ids.run_of(task_id) for task_id in rows.task_ids],
        "function": rows.functions,
        "query": rows.queries,
        "start": rows.start,
        "end": rows.end,
        "seconds": rows.seconds,
        "predicted": pa.array(rows.predicted, from_pandas=True),
        "model_version": rows.versions,
        "ingested_at": np.full(len(rows), time.time()),
    }
    for view, matrix, contexts in (
        ("serve", rows.serve, rows.serve_contexts),
        ("ran", rows.ran, rows.ran_contexts),
    ):
        for name, column in zip(rows.tool_type.feature_names, matrix.T, strict=True):
            columns[f"{view}_{name}"] = pa.array(column, from_pandas=True)
        for i, name in enumerate(rows.tool_type.context):
            columns[f"{view}_{name}"] = [words[i] or None if words else None for words in contexts]
    return pa.table(columns, schema=schema)


def _refusal_rows(refusals: Sequence[RejectedRow]) -> pa.Table:
    rejected, now = [r.rejected for r in refusals], time.time()
    columns: dict[str, object] = {
        "task_id": [r.task_id for r in rejected],
        "function": [r.function for r in rejected],
        "tool_type": [r.tool_type for r in refusals],
        "reason": [r.reason.value for r in rejected],
        "detail": [r.detail for r in rejected],
        "record": [r.record for r in rejected],
        "source": [r.source for r in refusals],
        "digest": [_digest(r) for r in rejected],
        "end": [r.end for r in refusals],
        "seconds": [r.seconds for r in refusals],
        "ingested_at": [now if r.time is None else r.time for r in refusals],
    }
    return pa.table(columns, schema=_REFUSAL_SCHEMA)


def _digest(rejected: Rejected) -> str | None:
    """What tells records without a task id apart."""
    if rejected.task_id:
        return None
    return hashlib.sha256(rejected.record.encode()).hexdigest()[:16]


def _refusal(row: Mapping[str, Any]) -> RejectedRow:
    rejected = Rejected(
        row["task_id"], row["function"], RejectReason(row["reason"]), row["detail"], row["record"]
    )
    return RejectedRow(
        rejected, row["source"], row["tool_type"], row["end"], row["seconds"], row["ingested_at"]
    )


def _tuples(table: pa.Table, names: Sequence[str]) -> list[tuple[float, ...]]:
    """Rows of float columns, nulls as NaN."""
    columns = [table.column(name).to_numpy().astype(np.float64).tolist() for name in names]
    return list(zip(*columns, strict=True)) if columns else [()] * table.num_rows


def _words(table: pa.Table, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Rows of text columns, nulls as ""; empty where all are null."""
    columns = [table.column(name) for name in names]
    if all(column.null_count == len(column) for column in columns):
        return [()] * table.num_rows
    texts = [[word or "" for word in column.to_pylist()] for column in columns]
    return [words if any(words) else () for words in zip(*texts, strict=True)]


def _cell(value: float | None) -> str:
    return "" if value is None or value != value else repr(value)


def _commit(entry: Mapping[str, object]) -> Commit:
    metrics = entry.get("operationMetrics")
    numbers = metrics if isinstance(metrics, Mapping) else {}
    rows = numbers.get("num_added_rows", numbers.get("num_target_rows_inserted", 0))
    return Commit(
        int(str(entry["version"])),
        int(str(entry["timestamp"])) / 1000.0,
        str(entry["operation"]),
        int(rows),
        int(numbers.get("num_deleted_rows", numbers.get("num_target_rows_deleted", 0))),
    )


def _one_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else repr(error)
