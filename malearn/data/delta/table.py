"""A versioned table on disk: one Delta Lake table with a fixed set of columns.

Each commit is a version that can be read again until a vacuum, given the versions to keep,
removes its files. Writers may race: every commit carries Delta's application transaction
`malearn`, so that of two commits from one version the second fails and looks again.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from malearn.data import storage
from malearn.data.delta import durability, repair
from malearn.data.delta.repair import Damage
from malearn.data.storage import Folder, ObjectFolder
from malearn.kernel.errors import DatasetDamaged, DatasetError, MalearnError

__all__ = ["Commit", "Position", "VersionedTable"]


#: How far a source was read: an application id and a number that only grows, kept in commits.
Position = tuple[str, int]
_WRITER = "malearn"
_ATTEMPTS = 50  # commits that may come first before a writer gives up: half a minute of waiting
#: Versions after which small files are merged, and the bytes that such a file has at most.
_TIDIED, _SMALL = 8, 4 * 2**20
#: Rows that are read at once.
_BATCH = 16_384
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Commit:
    """One version of a table; `time` in seconds since the epoch."""

    version: int
    time: float
    operation: str
    rows_added: int
    rows_removed: int = 0
    rows_replaced: int = 0


class VersionedTable:
    """One Delta table with a fixed set of columns; created with its first commit."""

    def __init__(self, path: Folder, schema: pa.Schema) -> None:
        self.path, self.schema = path, schema
        #: The folder where it is one of this machine, whose files are then looked after here.
        self._local = path if isinstance(path, Path) else None
        self._newest: DeltaTable | None = None
        # Whether others' commits are not looked for now, and whether they were since that began.
        self._held = self._looked = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, the newest version is looked for once; for who holds the lock of its writers.

        A commit that comes in between all the same is met by the next one here, which then fails
        and looks again.
        """
        self._held, self._looked = True, False
        try:
            yield
        finally:
            self._held = False

    def open(self, version: int | None = None) -> DeltaTable | None:
        """The table, at `version` or the newest; None while nothing was ever written."""
        try:
            if version is not None:
                return DeltaTable(str(self.path), version=version)
            if self._held and self._looked and self._newest is not None:
                return self._newest
            if self._newest is None or self._is_gone(self._newest):
                self._newest = None
                self._newest = DeltaTable(str(self.path))
            elif self._has_moved_on(self._newest):
                # Reads only commits that are new; opening again reads back to the last checkpoint.
                self._newest.update_incremental()
            self._check_last_commit(self._newest.version())
            self._looked = True
            return self._newest
        except TableNotFoundError:
            # To the library there is no table; called empty, it would take everything in once more.
            if self._local and any((self._local / "_delta_log").glob("*.json")):
                raise DatasetDamaged(self._local, "its log has no first commit") from None
            return None
        except (DeltaError, OSError) as error:
            self._newest = None
            if version is not None:
                raise DatasetError(self.path.name, _one_line(error)) from error
            raise self._unreadable(error) from error

    def _is_gone(self, table: DeltaTable) -> bool:
        """Whether the commit that `table` was read from is there no more.

        A handle outlives a folder that is deleted, and would go on answering from memory.
        """
        local = self._local
        return local is not None and not durability.commit_file(local, table.version()).exists()

    def _has_moved_on(self, table: DeltaTable) -> bool:
        """Whether there may be newer commits than `table` was read from."""
        # Versions have no gaps, so one look at the disk does instead of a read of the log, which
        # costs as much as a tenth of a commit.
        local = self._local
        return local is None or durability.commit_file(local, table.version() + 1).exists()

    def _unreadable(self, error: Exception) -> MalearnError:
        """A store that does not answer is no damage."""
        if isinstance(self.path, ObjectFolder):
            return storage.unreachable(self.path, error)
        assert self._local is not None  # the path is of either kind
        return DatasetDamaged(self._local, _one_line(error))

    def _check_last_commit(self, version: int) -> None:
        """Raise `DatasetDamaged` where the newest commit is empty: delta-rs reads it as no change.

        It is what a power failure leaves of a file that had not reached the disk.
        """
        if self._local is None:
            return
        file = durability.commit_file(self._local, version)
        if file.exists() and not file.stat().st_size:
            self._newest = None
            raise DatasetDamaged(self._local, f"its commit {file.name} is empty")

    def at(self, version: int | None) -> DeltaTable:
        """The table at `version`, or the newest; raises `DatasetError` where there is none."""
        newest = self.open()
        if version is not None and newest is not None and not 0 <= version <= newest.version():
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
            self._newest = DeltaTable.create(
                str(self.path),
                schema=self.schema,
                mode="ignore",
                configuration={
                    # A version that a model was trained on stays readable: the log is never cut.
                    "delta.logRetentionDuration": "interval 36500 days",
                    "delta.checkpointInterval": "20",  # opening reads no more commits than that
                },
            )
            return self._newest
        except DeltaError as error:
            if (table := self.open()) is not None:  # another process was faster
                return table
            raise DatasetError(self.path.name, _one_line(error)) from error

    def commit(
        self,
        table: DeltaTable,
        onto: int,
        rows: pa.Table,
        positions: Sequence[Position] = (),
        replaces: bool = False,
    ) -> bool:
        """Write `rows` onto version `onto` of `table`; False when another commit came first.

        `positions` become part of the commit; one never moves back. Once it returns True, the
        commit survives a power failure.
        """
        if table.version() != onto:  # a reader of the same handle took it along to a newer one
            return False
        # Two appends never conflict in Delta, so two writers could both add one task. Of two
        # commits with the same application id, Delta refuses the second.
        marks = [Transaction(_WRITER, onto + 1)]
        for name, position in positions:
            # Delta takes a lower number too, and would then have the stream read twice.
            marks.append(Transaction(name, max(position, table.transaction_version(name) or 0)))
        properties = CommitProperties(app_transactions=marks)
        # A feature that was declared since gets its column now; older rows are null there.
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
        if self._local is not None:
            # The library may have written behind a commit of somebody else's, such as a compaction.
            # Version 0, which creates the table, is synced with the first rows.
            first = onto + 1 if onto else 0
            durability.sync_commits(self._local, range(first, table.version() + 1))
        return True

    def tidy(self, table: DeltaTable) -> bool:
        """Merge the small files that a trickle leaves, now and then: a file costs a reader 2 ms.

        Large ones stay as they are, so that it costs little however large the table is. Says
        whether that, and nothing else, moved `table` to its next version.
        """
        before = table.version()
        # By version, not by time: whoever commits the eighth merges, whichever process it is.
        if before % _TIDIED:
            return False
        try:
            table.optimize.compact(target_size=_SMALL)
        except CommitFailedError:  # another writer replaced rows meanwhile; the next one tidies up
            self._newest = None
            return False
        except DeltaError as error:
            raise DatasetError(self.path.name, _one_line(error)) from error
        return table.version() == before + 1

    def columns(
        self, version: int | None, names: Sequence[str], where: pc.Expression | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Large batches of the columns `names`, those the table lacks as nulls.

        Of the rows those for which `where` holds, whose columns every version must have; files
        that cannot have any are not read. Raises `DatasetError` for a version of which a vacuum
        has removed files.
        """
        schema = self.subschema(names)
        newest = self.open()
        table = newest if newest and version == newest.version() else self.at(version)
        # With today's schema, so that columns which old files lack are null instead of an error;
        # each column costs as much as its statistics of every file.
        dataset = table.to_pyarrow_dataset(
            schema=schema if where is None else self.schema, filesystem=self._native_files()
        )
        small: list[pa.RecordBatch] = []
        rows = 0
        try:
            for batch in dataset.to_batches(columns=list(names), filter=where, batch_size=_BATCH):
                small.append(batch)
                rows += batch.num_rows
                if rows >= _BATCH:  # a trickle leaves thousands of files of a few rows
                    yield from pa.Table.from_batches(small, schema).combine_chunks().to_batches()
                    small, rows = [], 0
        except (OSError, pa.ArrowException) as error:
            if table is newest:
                raise self._unreadable(error) from error
            raise DatasetError(
                self.path.name,
                f"the files of version {table.version()} were cleaned up; those stay that "
                "a registered model was trained on, and the newest",
            ) from error
        yield from pa.Table.from_batches(small, schema).combine_chunks().to_batches()

    def _native_files(self) -> SubTreeFileSystem | None:
        """A reader of this machine's files without Python; None for object storage.

        A scan that fails leaves reads behind. Those through delta-rs's own reader, which is an
        object of Python, would go on while the interpreter ends, and crash it.
        """
        if self._local is None:
            return None
        return SubTreeFileSystem(str(self._local), LocalFileSystem())

    def attempts(self) -> Iterator[None]:
        """As many as a commit may take, further and further apart; then raises `DatasetError`."""
        for attempt in range(_ATTEMPTS):
            if attempt:
                # Random and growing, so that writers who collided do not collide again.
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

    def delete(self, predicate: str, mark: Position | None = None) -> int:
        """Delete the rows of which `predicate`, in SQL, holds; returns how many.

        `mark` becomes part of the same commit.
        """
        properties = (
            None if mark is None else CommitProperties(app_transactions=[Transaction(*mark)])
        )
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
        # Delta keeps files for a week at least, unless that is not enforced. Whoever reads an older
        # version while it is vacuumed meets an error that names the cause (see `columns`).
        options: dict[str, Any] = {
            # The library counts in whole hours: rather keep for one too many.
            "retention_hours": math.ceil(hours),
            "enforce_retention_duration": False,
            "full": True,  # else what was dropped before the last checkpoint stays for good
            "keep_versions": sorted({v for v in keep if 0 <= v < newest}) or None,
        }
        named = self.change(lambda table: table.vacuum(dry_run=True, **options))
        local = self._local
        there = [name for name in named if local is None or (local / name).exists()]
        if there:  # a vacuum is two commits, and names again what went with the one before
            self.change(lambda table: table.vacuum(dry_run=False, **options))
        return len(there)

    def least_of_newest(
        self, column: str, rows: int, version: int | None = None, below: float = math.inf
    ) -> float | None:
        """The smallest of the `rows` largest values of `column`; None where there are no more.

        Of the values below `below`. Only files that may hold one of them are read.
        """
        if version is None and self.open() is None:
            return None
        field = pc.field(column)
        where = (field >= self._least_possible(column, rows, version, below)) & (field < below)
        found = [b.column(0).to_numpy() for b in self.columns(version, [column], where)]
        # The empty array stands in where no batch came back: `concatenate` needs at least one.
        values = np.concatenate([np.empty(0), *found])
        return float(np.partition(values, -rows)[-rows]) if len(values) > rows else None

    def _least_possible(self, column: str, rows: int, version: int | None, below: float) -> float:
        """What at least `rows` + 1 values below `below` are not less than, by the log's statistics
        of the files; -inf where some lack them.
        """
        # Delta's per-file statistics. Files by descending minimum: once those seen hold more than
        # `rows` rows, that many values are at least the last minimum.
        actions = pa.table(self.at(version).get_add_actions(flatten=True))
        least, most = f"min.{column}", f"max.{column}"
        if not {least, most, "num_records"} <= set(actions.column_names):
            return -math.inf
        files = actions.select([least, most, "num_records"]).to_pylist()
        if any(value is None for file in files for value in file.values()):
            return -math.inf
        counted = 0
        for file in sorted(files, key=lambda file: -float(file[least])):
            # Only a file wholly below `below` counts: of another, some rows do not.
            if file[most] < below:
                counted += int(file["num_records"])
                if counted > rows:
                    return float(file[least])
        return -math.inf

    def replace(self, keys: pa.Table, rows: pa.Table, matched: str) -> None:
        """Delete what has one of `keys` and insert `rows`, in one commit.

        `matched`, in SQL, is true where a row of the table, `old`, has a key, `new`.
        """
        # One merge does both: sources with a key delete, and sources without one (null matches
        # nothing) are inserted.
        unkeyed = pa.nulls(len(rows), pa.string())
        for name in keys.column_names:
            rows = rows.append_column(name, unkeyed)
        source = pa.concat_tables([keys, rows], promote_options="default")
        first = keys.column_names[0]

        def merge(table: DeltaTable) -> None:
            # As in `commit`: a writer that appends at the same time must not get past this.
            mark = Transaction(_WRITER, table.version() + 1)
            table.merge(
                source,
                matched,
                source_alias="new",
                target_alias="old",
                commit_properties=CommitProperties(app_transactions=[mark]),
            ).when_matched_delete().when_not_matched_insert(
                {f'"{name}"': f'new."{name}"' for name in self.schema.names},
                # A key that matched nothing must not become a row.
                predicate=f"new.{first} IS NULL",
            ).execute()

        self.change(merge)

    def position(self, name: str) -> int | None:
        """The newest position committed under the application id `name`."""
        table = self.open()
        return None if table is None else table.transaction_version(name)

    @property
    def version(self) -> int | None:
        """The newest version; None while nothing was ever written."""
        table = self.open()
        return None if table is None else table.version()

    @property
    def rows(self) -> int:
        """How many rows the newest version holds."""
        table = self.open()
        return 0 if table is None else int(table.count())

    def history(self) -> list[Commit]:
        """Its versions, newest first; empty while there are none."""
        table = self.open()
        return [] if table is None else [_commit(entry) for entry in table.history()]

    def rows_added_since(self, version: int) -> int:
        """How many rows later commits than `version` brought in, replaced ones among them."""
        table = self.open()
        if table is None or table.version() <= version:
            return 0
        # A compaction adds files, too, but its metrics name no rows.
        commits = map(_commit, table.history(table.version() - max(version, -1)))
        return sum(commit.rows_added + commit.rows_replaced for commit in commits)

    def mend(self) -> Damage:
        """Make it readable again; see `repair.find_and_mend`."""
        self._newest = None
        if self._local is None:
            return Damage()  # an object store keeps whole objects: nothing is cut there
        return repair.find_and_mend(self._local, self.schema)

    def unreferenced(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """The columns `names` of each file that the newest version does not need."""
        if self._local is not None and self.open() is not None:
            for held in repair.unreferenced(self._local, names):
                yield held.cast(self.subschema(names))

    def column_names(self, version: int) -> set[str]:
        """The columns that `version` has."""
        return {field.name for field in self.at(version).schema().fields}

    def read(
        self, version: int | None, names: Sequence[str], where: pc.Expression | None = None
    ) -> pa.Table:
        """As `columns`, in one table."""
        return pa.Table.from_batches(self.columns(version, names, where), self.subschema(names))

    def write_parquet(self, file: Path, version: int | None) -> int:
        """Write every column of `version` to `file`; returns the number of rows."""
        rows = 0
        with pq.ParquetWriter(file, self.schema) as writer:
            for batch in self.columns(version, self.schema.names):
                writer.write_batch(batch)
                rows += batch.num_rows
        return rows

    def subschema(self, names: Sequence[str]) -> pa.Schema:
        """The schema of the columns `names`."""
        return pa.schema([self.schema.field(name) for name in names])


def _commit(entry: Mapping[str, object]) -> Commit:
    metrics = entry.get("operationMetrics")
    numbers = metrics if isinstance(metrics, Mapping) else {}
    # An append names its counts otherwise than a merge does; so does a deletion.
    rows = numbers.get("num_added_rows", numbers.get("num_target_rows_inserted", 0))
    return Commit(
        int(str(entry["version"])),
        int(str(entry["timestamp"])) / 1000.0,
        str(entry["operation"]),
        int(rows),
        int(numbers.get("num_deleted_rows", numbers.get("num_target_rows_deleted", 0))),
        int(numbers.get("num_target_rows_updated", 0)),
    )


def _one_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else repr(error)
