"""Delta tables with a fixed set of columns: which commit may follow which."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from malearn.data.delta.table import VersionedTable

SCHEMA = pa.schema([("task_id", pa.string())])


def rows(*task_ids: str) -> pa.Table:
    return pa.table({"task_id": list(task_ids)}, schema=SCHEMA)


def test_rows_chosen_for_one_version_are_not_written_onto_a_later_one(tmp_path: Path) -> None:
    ours, theirs = VersionedTable(tmp_path / "t", SCHEMA), VersionedTable(tmp_path / "t", SCHEMA)
    table = ours.create()
    chosen_for = table.version()
    assert ours.open() is not None
    other = theirs.open()
    assert other is not None
    assert theirs.commit(other, other.version(), rows("a"))
    handle = ours.open()  # as a reader does, while the rows are being chosen
    assert handle is not None
    assert not ours.commit(handle, chosen_for, rows("a"))
    assert ours.rows == 1
    assert ours.commit(handle, handle.version(), rows("b"))
    assert ours.rows == 2


def test_of_two_commits_onto_one_version_the_second_fails(tmp_path: Path) -> None:
    ours, theirs = VersionedTable(tmp_path / "t", SCHEMA), VersionedTable(tmp_path / "t", SCHEMA)
    ours.create()
    one, other = ours.open(), theirs.open()
    assert one is not None
    assert other is not None
    version = one.version()
    assert theirs.commit(other, version, rows("a"))
    assert not ours.commit(one, version, rows("a"))
    assert ours.rows == 1
