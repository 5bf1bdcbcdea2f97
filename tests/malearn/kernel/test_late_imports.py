"""A process may fork while one of its threads imports something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SLOW = """
import time
time.sleep(1)
WHOLE = True
"""
FORKS = """
import os, signal, sys, threading
from malearn.kernel import late_imports

def load():
    with late_imports.uninterrupted():
        import slow

thread = threading.Thread(target=load)
thread.start()
while "slow" not in sys.modules:
    pass
if child := os.fork():
    thread.join()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(60)  # the import of a module that is never completed does not end
import slow
os._exit(not slow.WHOLE)
"""


def test_the_child_of_a_fork_finds_no_module_half_imported(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "forks.py").write_text(FORKS)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", tmp_path / "forks.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
