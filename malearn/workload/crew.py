"""The crew: the worker processes and the pipes to them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe, connection
from pathlib import Path

from malearn.kernel import errors
from malearn.workload.job import Job

__all__ = ["crew", "died", "send"]

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@contextmanager
def crew(size: int, redis_url: str) -> Iterator[list[connection.Connection]]:
    """`size` worker processes, by their pipes; all gone on leaving, however that happens.

    They are fresh interpreters, not forks: one BLAS thread each is set in their own
    environment before numpy loads, and the caller's environment is not touched. In a
    session of their own, they do not get the terminal's Ctrl-C: the parent ends them.
    """
    workers: list[tuple[subprocess.Popen[bytes], connection.Connection]] = []
    try:
        for _ in range(size):
            workers.append(_hire())
            send(workers[-1][1], redis_url)
        yield [pipe for _, pipe in workers]
    finally:
        for process, pipe in workers:
            pipe.close()
            process.kill()
        for process, _ in workers:
            process.wait()


def _hire() -> tuple[subprocess.Popen[bytes], connection.Connection]:
    ours, theirs = Pipe()
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    with theirs:
        handle = theirs.fileno()
        code = f"from malearn.workload import worker; worker.serve({handle})"
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            env=os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[handle],
            start_new_session=True,
        )
    return process, ours


def send(pipe: connection.Connection, message: Job | str) -> None:
    try:
        pipe.send(message)
    except OSError as error:
        raise died() from error


def died() -> errors.PlatformError:
    return errors.PlatformError("A workload worker", "died before its task was done")
