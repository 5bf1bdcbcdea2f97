"""Repair of a damaged table: what a power failure, a full disk or a deleted file left of it.

Nothing is deleted: what cannot be read is moved to `_damaged` beside the tables. A commit that
is missing is replaced by an empty one, so that later ones can be read; its rows, and those of
any file that no readable commit names, are found again through `unreferenced`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from malearn.data.delta import durability
from malearn.kernel import text
from malearn.kernel.errors import DatasetError

__all__ = ["DAMAGED", "Damage", "find_and_mend", "unreferenced"]

#: The folder, beside the tables, for what cannot be read.
DAMAGED = "_damaged"
_LOG = "_delta_log"
_YEAR_9999 = 2.5e11  # seconds since the epoch: what a date can name


@dataclass(frozen=True, slots=True)
class Damage:
    """What was wrong with a table, a sentence each, and how many rows went with lost files."""

    found: tuple[str, ...] = ()
    lost: int = 0


def find_and_mend(table: Path, schema: pa.Schema) -> Damage:
    """Make `table`, with columns `schema`, readable again. Raises `DatasetError` if it cannot.

    A table that was never written is in order.
    """
    log = table / _LOG
    if not log.is_dir():
        return Damage()
    # In this order: lost files are found by opening the table, which needs a readable log.
    found = [*_mend_checkpoints(log), *_mend_commits(table, schema)]
    try:
        lost, files = _drop_lost_files(table)
    except (DeltaError, OSError, pa.ArrowException) as error:
        problem = f"cannot be repaired ({error}); restore {table} from a backup"
        raise DatasetError(table.name, problem) from error
    return Damage((*found, *files), lost)


def unreferenced(table: Path, names: Sequence[str]) -> Iterator[pa.Table]:
    """The columns `names` of each readable file that the newest version does not need."""
    # The log writes paths as URLs.
    needed = {Path(unquote(name)).name for name in _files(DeltaTable(str(table)))}
    for file in sorted(table.glob("*.parquet")):
        if file.name in needed or not _is_readable(file):
            continue
        # The columns of its own time, which may be fewer than today's.
        held = pq.read_table(file)
        if "task_id" in held.column_names:
            yield pa.table(
                {
                    n: held.column(n) if n in held.column_names else pa.nulls(len(held))
                    for n in names
                }
            )


def _mend_checkpoints(log: Path) -> Iterator[str]:
    """Move aside checkpoints that cannot be read: the log, which is never cut, holds the same."""
    broken = [file for file in sorted(log.glob("*.checkpoint*.parquet")) if not _is_readable(file)]
    for file in broken:
        _move_aside(file)
        yield f"checkpoint {file.name} could not be read; the log is used instead"
    # The hint may name a checkpoint that was just moved: without it readers list the log.
    hint = log / "_last_checkpoint"
    if hint.exists() and (broken or not _is_json(hint)):
        _move_aside(hint)
        if not broken:
            yield "the note of the last checkpoint could not be read; it is only a shortcut"


def _mend_commits(table: Path, schema: pa.Schema) -> Iterator[str]:
    """Move aside commits that cannot be read; fill the gaps before the last good one."""
    files = {int(f.stem): f for f in (table / _LOG).glob("*.json") if f.stem.isdigit()}
    bad = [version for version, file in sorted(files.items()) if not _is_commit(file)]
    for version in bad:
        _move_aside(files.pop(version))
        yield f"commit {version} was empty or cut"
    newest = max(files, default=-1)
    # Delta reads versions without a gap: behind a missing one, all later rows would be lost.
    for version in range(newest + 1):
        if version not in files:
            if version not in bad:
                yield f"commit {version} was missing"
            _write_filler(table, version, schema)
    # All commits were bad: the table begins again, empty; `unreferenced` finds its files.
    if newest < 0:
        _write_filler(table, 0, schema)


def _write_filler(table: Path, version: int, schema: pa.Schema) -> None:
    """A commit that changes nothing; the first one declares the table."""
    info = {"commitInfo": {"timestamp": int(time.time() * 1000.0), "operation": "REPAIR"}}
    text = json.dumps(info) + "\n"
    # The first commit must hold protocol and schema. Their exact form is the library's: a new table
    # is made aside and its commit copied.
    if version == 0:
        scratch = _aside(table) / f"declaration-{time.time_ns()}"
        DeltaTable.create(str(scratch), schema=schema)
        text = durability.commit_file(scratch, 0).read_text("utf-8")
    file = durability.commit_file(table, version)
    file.write_text(text, "utf-8")
    durability.sync_commits(table, [version])


def _drop_lost_files(table: Path) -> tuple[int, list[str]]:
    """Take files that are missing or broken out of the newest version; the rows they held."""
    opened = DeltaTable(str(table))
    # Before `repair` below, after which the log no longer shows how many rows the file had.
    counts = pa.table(opened.get_add_actions(flatten=True)).to_pylist()
    lost, sentences = 0, []
    for action in counts:
        file = table / unquote(str(action["path"]))
        if _is_readable(file):
            continue
        rows = int(action.get("num_records") or 0)
        state = "could not be read" if file.exists() else "was missing"
        if file.exists():
            _move_aside(file)
        lost += rows
        sentences.append(
            f"file {file.name} with {text.counted(rows, 'row')} {state}{_contents(action)}"
        )
    if sentences:
        # Delta's FSCK drops files that are not there, which is why broken ones were moved.
        opened.repair()
        durability.sync_commits(table, [DeltaTable(str(table)).version()])
    return lost, sentences


def _contents(action: Mapping[str, Any]) -> str:
    """Which rows a file held, as far as the log's statistics show."""
    first, last = action.get("min.task_id"), action.get("max.task_id")
    # Statistics are all that is left of the file: with them its runs can be imported again.
    told = ""
    if first and last:
        told = f": task {first}" if first == last else f": tasks between {first} and {last}"
    low, high = action.get("min.end"), action.get("max.end")
    if told and low is not None and high is not None and 0.0 <= low <= high < _YEAR_9999:
        from_, to = (f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}" for at in (low, high))
        told += f", ended {from_} UTC" if from_ == to else f", ended {from_} to {to} UTC"
    return told


def _files(table: DeltaTable) -> Iterable[str]:
    return [str(row["path"]) for row in pa.table(table.get_add_actions(flatten=True)).to_pylist()]


def _is_readable(file: Path) -> bool:
    """Whether `file` is Parquet whose end, where its columns are listed, is in order."""
    try:
        # Only the footer, not all pages: a file that was cut has lost its end.
        pq.read_metadata(file)
    except (OSError, pa.ArrowException):
        return False
    return True


def _is_commit(file: Path) -> bool:
    try:
        content = file.read_bytes()
        # The list parses every line; `True` is there because a good commit may add no file.
        return bool(content.strip()) and bool([*durability.added_files(content), True])
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _aside(table: Path) -> Path:
    folder = table.parent / DAMAGED / table.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _move_aside(file: Path) -> None:
    table = file.parent.parent if file.parent.name == _LOG else file.parent
    # The time keeps a second repair from overwriting what the first one saved.
    file.rename(_aside(table) / f"{time.time_ns()}-{file.name}")
