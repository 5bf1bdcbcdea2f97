"""The executor: worker processes that perform the runs of a plan, and the loop that feeds them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe, connection
from pathlib import Path

import redis

from malearn.data import redis_client
from malearn.kernel import errors
from malearn.workload.workflows import WORKFLOWS, Run, plan

__all__ = ["execute", "work"]

#: Set to 1: threads of several workers on the same cores would make durations depend on neighbours.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
IDLE, WRITTEN = "idle", "written"  # what workers report, beside errors


def execute(
    redis_url: str,
    *,
    tasks: int = 360,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Execute the workload; every task's record ends up in Redis as `result:<task_id>`.

    `tasks` counts those that run a model (the last workflow is completed, so there may be up to
    three more); their start and data tasks come on top. `seed` decides every input, `workers` is
    at most 2 and at most the cores by default, and `progress` is called with (records written,
    records in all) after each one. Returns the records written.

    Raises:
        InputError: `tasks` or `workers` is below 1.
        Unreachable: Redis does not answer.
        PlatformError: a worker process died.
    """
    size = min(2, os.cpu_count() or 1) if workers is None else workers
    if tasks < 1 or size < 1:
        raise errors.InputError("workload", f"cannot execute {tasks} tasks with {size} workers")
    with redis_client.connected(redis_url) as client:
        # Before workers are started: a wrong address is then one sentence, not theirs.
        client.ping()
    # Reversed, for `pop` takes from the end.
    runs = list(reversed(plan(tasks, seed)))
    total, done = sum(len(WORKFLOWS[run.name].steps) for run in runs), 0
    with _started(size, redis_url) as pipes:
        while done < total:
            for pipe in connection.wait(pipes):
                assert isinstance(pipe, connection.Connection)
                message = _received(pipe)
                if message == WRITTEN:
                    done += 1
                    if progress:
                        progress(done, total)
                elif message != IDLE:
                    raise _unreachable(redis_url, message)
                elif runs:
                    _send(pipe, runs.pop())
    return total


@contextmanager
def _started(size: int, redis_url: str) -> Iterator[list[connection.Connection]]:
    """`size` worker processes, by their pipes; all gone on leaving, however that happens.

    They are fresh interpreters, not forks: one BLAS thread each is set in their own environment
    before numpy loads. In a session of their own, they do not get the terminal's Ctrl-C.
    """
    processes: list[subprocess.Popen[bytes]] = []
    pipes: list[connection.Connection] = []
    # The workers' own path, since `-P` and another interpreter would leave out what this process
    # has added; "" means the working directory.
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    try:
        for _ in range(size):
            ours, theirs = Pipe()
            pipes.append(ours)
            with theirs:
                # Not multiprocessing: its spawn would run the main module of our caller again.
                code = f"from malearn.workload import executor; executor.work({theirs.fileno()})"
                process = subprocess.Popen(
                    [sys.executable, "-P", "-c", code],
                    env=os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": paths},
                    stdin=subprocess.DEVNULL,
                    # Our stdout holds the command's result, which may be JSON.
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            processes.append(process)
            _send(ours, redis_url)
        yield pipes
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            # All are killed before one is waited for, so that they end side by side.
            process.kill()
        for process in processes:
            process.wait()


def work(descriptor: int) -> None:
    """The life of a worker: runs come in over a pipe until its other end is gone.

    A parent that was killed closes that end too, so no worker outlives its parent by more than
    the task in hand.
    """
    pipe = connection.Connection(descriptor)
    try:
        client = redis_client.connect(pipe.recv())
        for run in plan(1, 0):
            list(run.records())  # loads what a worker of a real cluster has long loaded
        while True:
            pipe.send(IDLE)
            run = pipe.recv()
            for task_id, record in run.records():
                client.set(f"result:{task_id}", record)
                pipe.send(WRITTEN)
    except (redis.RedisError, redis.exceptions.RedisClusterException) as error:
        pipe.send(str(error))
    except (EOFError, OSError):
        return


def _send(pipe: connection.Connection, message: Run | str) -> None:
    try:
        pipe.send(message)
    except OSError as error:
        raise _died() from error


def _received(pipe: connection.Connection) -> str:
    try:
        return str(pipe.recv())
    except (EOFError, OSError) as error:
        raise _died() from error


def _died() -> errors.PlatformError:
    return errors.PlatformError("A workload worker", "died before its task was done")


def _unreachable(redis_url: str, cause: object) -> errors.Unreachable:
    return errors.Unreachable("Redis", redis_url, "MALEARN_REDIS_URL", cause)
