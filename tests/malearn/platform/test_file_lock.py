"""Leases: who may hold one beside whom, and when it is given back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from malearn.platform.file_lock import Lease

ROOT = Path(__file__).parents[3]


def test_many_share_a_lease_but_one_takes_it(tmp_path: Path) -> None:
    one, two = Lease.share(tmp_path / "lease"), Lease.share(tmp_path / "lease")
    assert not two.alone()
    assert Lease.take(tmp_path / "lease") is None
    one.close()
    two.close()
    taken = Lease.take(tmp_path / "lease")
    assert taken is not None
    taken.close()


def test_the_last_one_can_have_it_alone(tmp_path: Path) -> None:
    lease = Lease.share(tmp_path / "lease")
    assert lease.alone()
    lease.close()


def test_a_forked_child_does_not_keep_it(tmp_path: Path) -> None:
    """Else a stray worker process would keep servers up that nobody uses."""
    script = """
import os, pathlib, sys
from malearn.platform.file_lock import Lease
lease = Lease.share(pathlib.Path(sys.argv[1]))
if os.fork():
    os._exit(0)
print("forked", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", script, str(tmp_path / "lease")]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "forked\n"
        parent.wait(10)
        taken = Lease.take(tmp_path / "lease")
    assert taken is not None
    taken.close()
