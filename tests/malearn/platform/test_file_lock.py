"""File locks: who may hold one beside whom, and when it is released."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from malearn.platform.file_lock import FileLock

ROOT = Path(__file__).parents[3]


def test_many_share_a_lock_but_one_takes_it(tmp_path: Path) -> None:
    one, two = FileLock.shared(tmp_path / "lock"), FileLock.shared(tmp_path / "lock")
    assert not two.try_upgrade()
    assert FileLock.try_exclusive(tmp_path / "lock") is None
    one.release()
    two.release()
    taken = FileLock.try_exclusive(tmp_path / "lock")
    assert taken is not None
    taken.release()


def test_the_last_one_can_have_it_alone(tmp_path: Path) -> None:
    lock = FileLock.shared(tmp_path / "lock")
    assert lock.try_upgrade()
    lock.release()


def test_a_forked_child_does_not_keep_it(tmp_path: Path) -> None:
    """Else a stray worker process would keep servers up that nobody uses."""
    script = """
import os, pathlib, sys
from malearn.platform.file_lock import FileLock
lock = FileLock.shared(pathlib.Path(sys.argv[1]))
if os.fork():
    os._exit(0)
print("forked", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", script, str(tmp_path / "lock")]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "forked\n"
        parent.wait(120)
        taken = FileLock.try_exclusive(tmp_path / "lock")
    assert taken is not None
    taken.release()
