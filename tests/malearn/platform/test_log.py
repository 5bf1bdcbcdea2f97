"""Logs: the line that says why, out of everything a server writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from malearn.platform.log import MAX_BYTES, Log


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("", ""),
        ("12:M 22 Nov 2026 22:35:01.509 # Failed listening on port 1.\n", "Failed listening"),
        ("Traceback:\n  File x\nOSError: disk full\n\n***\n", "OSError: disk full"),
        ("a.DatabaseError: no database\n[SQL: x]\n(Background: y)\n", "a.DatabaseError: no"),
        ("2026/11/22 22:35:25 ERROR: no such table\n", "no such table"),
    ],
)
def test_the_last_line_with_a_meaning(tmp_path: Path, written: str, line: str) -> None:
    path = tmp_path / "server.log"
    path.write_text("an older failure\n")
    with Log.begin(path) as log:
        log.file.write(written.encode())
    assert log.last_line().startswith(line)
    assert bool(log.last_line()) == bool(line)


def test_a_large_log_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_bytes(b"x" * (MAX_BYTES + 1))
    with Log.begin(path):
        pass
    assert path.stat().st_size < 100
    assert (tmp_path / "server.old.log").stat().st_size > MAX_BYTES
