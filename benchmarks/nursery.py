"""Processes that are killed in the middle of their work, cheaply: one imports, and forks the rest.

`Nursery` is the side that gives orders, `serve` the one that forks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

__all__ = ["NEVER", "Nursery", "serve"]

NEVER = 3_600.0  # seconds: longer than any work here takes


class Nursery:
    """Runs `python -m MODULE WORDS…`, which calls `serve`; to be entered by `with`."""

    def __init__(self, module: str, words: Sequence[object]) -> None:
        command = [sys.executable, "-m", module, *map(str, words)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, seconds: float = NEVER) -> None:
        """Begin the work once, and kill it by SIGKILL after so many seconds."""
        assert self._process.stdin is not None
        print(seconds, file=self._process.stdin, flush=True)

    def end(self) -> tuple[bool, float]:
        """Wait for it: whether it was killed, and its seconds. Raises for one that failed."""
        assert self._process.stdout is not None
        code, seconds = self._process.stdout.readline().split()
        if int(code) not in (0, -signal.SIGKILL):
            raise RuntimeError(f"The work failed by itself, with status {code}.")
        return int(code) != 0, float(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()


def serve(work: Callable[[], None]) -> None:
    """For each line of stdin, fork a process that does `work`; kill it so many seconds later.

    The caller must have started no thread, so that forking is safe.
    """
    for line in sys.stdin:
        began = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work()
                code = 0
            finally:
                os._exit(code)
        end = began + float(line)
        while True:
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                break
            if time.perf_counter() >= end:
                os.kill(pid, signal.SIGKILL)
                end = float("inf")
            time.sleep(0.0005)
        print(os.waitstatus_to_exitcode(status), time.perf_counter() - began, flush=True)
