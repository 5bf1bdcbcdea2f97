"""The executor: gives every free worker the next task that can start."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from multiprocessing import connection

import redis

from malearn.kernel import errors
from malearn.workload.board import Board
from malearn.workload.crew import crew, died, send
from malearn.workload.job import Job, Material
from malearn.workload.plan import plan

__all__ = ["execute"]


def execute(
    redis_url: str,
    *,
    tasks: int = 360,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Execute the workload; every task's record ends up in Redis as `result:<task_id>`.

    `tasks` counts those that run a model (the last workflow is completed, so there may be
    up to three more); their start and merge tasks come on top. `seed` decides every input,
    `workers` is at most 2 and at most the cores by default, and `progress` is called with
    (records written, records in all) after each one. Returns the records written.

    Raises:
        InputError: `tasks` or `workers` is below 1.
        Unreachable: Redis does not answer.
        PlatformError: a worker process died.
    """
    size = min(2, os.cpu_count() or 1) if workers is None else workers
    if tasks < 1 or size < 1:
        raise errors.InputError("workload", f"cannot execute {tasks} tasks with {size} workers")
    _ping(redis_url)
    board = Board(plan(tasks, seed))
    total = board.left
    with crew(size, redis_url) as idle:
        busy: dict[connection.Connection, Job] = {}
        while board.left:
            while idle and (job := board.take()):
                busy[idle[-1]] = job
                send(idle.pop(), job)
            for pipe in connection.wait(list(busy)):
                assert isinstance(pipe, connection.Connection)
                board.finish(busy.pop(pipe), _received(pipe, redis_url))
                idle.append(pipe)
                if progress:
                    progress(total - board.left, total)
    return total


def _ping(redis_url: str) -> None:
    try:
        with redis.Redis.from_url(redis_url) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        raise _unreachable(redis_url, error) from error


def _received(pipe: connection.Connection, redis_url: str) -> Mapping[str, Material]:
    try:
        reply: str | Mapping[str, Material] = pipe.recv()
    except (EOFError, OSError) as error:
        raise died() from error
    if isinstance(reply, str):
        raise _unreachable(redis_url, reply)
    return reply


def _unreachable(redis_url: str, cause: object) -> errors.Unreachable:
    return errors.Unreachable("Redis", redis_url, "MALEARN_REDIS_URL", cause)
