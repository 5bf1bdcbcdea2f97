"""The worker: one process, one task at a time. `crew` starts it in a fresh interpreter."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from multiprocessing import connection

import numpy as np
import redis

from malearn.workload.ear import Ear
from malearn.workload.eye import patch_weights
from malearn.workload.inputs import vocabulary
from malearn.workload.job import Job, Material
from malearn.workload.transformer import Transformer

__all__ = ["perform", "serve"]


def perform(job: Job) -> tuple[dict[str, object], Mapping[str, Material]]:
    """Run one task now: its record as a Maze worker writes it, and what it hands on."""
    start = time.time()
    outcome = job.run.workflow.step(job.function).act(job)
    end = time.time()
    times = {"start_time": start, "end_time": end}
    return {"dag_id": job.run.query_id, **outcome.record, **times}, outcome.gives


def warm_up() -> None:
    """Load what every worker of a real cluster has loaded before its first task."""
    vocabulary()
    patch_weights(128)
    Ear.of(160)
    for width, depth in ((128, 3), (160, 3), (160, 4), (192, 4), (224, 5), (256, 6), (288, 5)):
        model = Transformer.of(width, depth)
        hidden, memory = model.prefill(model.embed("ready"))
        model.decode(hidden[-1], memory, 2, np.random.default_rng(0))


def serve(descriptor: int) -> None:
    """The life of a worker: jobs come in over a pipe until its other end is gone.

    A parent that was killed closes that end too, so no worker outlives its parent by
    more than the task in hand.
    """
    pipe = connection.Connection(descriptor)
    try:
        client = redis.Redis.from_url(pipe.recv())
        warm_up()
        while True:
            job = pipe.recv()
            record, gives = perform(job)
            pipe.send(_written(client, job.task_id, record) or gives)
    except (EOFError, OSError):
        return


def _written(client: redis.Redis, task_id: str, record: Mapping[str, object]) -> str | None:
    """None once the record is in Redis, else what stood in the way."""
    try:
        client.set(f"result:{task_id}", json.dumps(record))
    except redis.RedisError as error:
        return str(error)
    return None
