"""Ingestion killed by SIGKILL at random moments, two hundred times, while records keep coming.

Processes drain the stream and scan `result:*`; each dies anywhere in its batches. Meanwhile new
entries are added and results are set again: after a failure, or with a later end. Counted is
what is lost, doubled, or kept with an older end, which must be nothing. `python -m
benchmarks.kills 50` does the same with fewer kills.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import redis

from benchmarks.figure import Figure, at_most, table
from malearn.data import redis_scan
from malearn.data.dataset import Dataset
from malearn.data.ingest import Ingest
from malearn.data.stream import Stream
from malearn.kernel.home import Home
from malearn.kernel.reading.stream_entries import STREAM
from malearn.kernel.tool_types import declared
from malearn.platform import EmbeddedRedis

__all__ = ["figures"]

TYPES = declared()
KILLS = 200
#: Tasks that come by each way between two kills.
COMING = 6


def figures(kills: int = KILLS) -> Iterator[Figure]:
    """What `kills` kills cost: nothing."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        with EmbeddedRedis(Home(Path(folder) / "redis")) as server:
            done, expected = campaign(home, server.url, kills)
        rows = Dataset.open(home, TYPES["llm_process"]).read()
    stored = {row.task_id: row.end for row in rows}
    older = sum(stored[task] < end for task, end in expected.items() if task in stored)
    of = f"of {len(expected):,} tasks after {done} kills"
    yield at_most(f"lost, {of}", len(expected.keys() - stored.keys()), "tasks", 0)
    yield at_most(f"doubled, {of}", len(rows) - len(stored), "rows", 0)
    yield at_most(f"kept with an older end, {of}", older, "tasks", 0)
    yield at_most(f"kills that were wanted and did not happen, of {kills}", kills - done, "", 0)


def campaign(home: Home, url: str, kills: int) -> tuple[int, dict[str, float]]:
    """Kill `kills` ingestions; returns how many died, and when each task ended at the latest."""
    chance = random.Random(20250812)
    expected: dict[str, float] = {}
    command = [sys.executable, "-m", "benchmarks.kills", "--nursery", str(home.root), url]
    with (
        redis.Redis.from_url(url) as client,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as nursery,
    ):
        assert nursery.stdin is not None and nursery.stdout is not None
        orders, answers = nursery.stdin, nursery.stdout

        def ingest(moment: float) -> tuple[int, float]:
            print(moment, file=orders, flush=True)
            code, seconds = answers.readline().split()
            return int(code), float(seconds)

        done, whole = 0, 0.0
        for number in range(4 * kills):
            _write(client, chance, number, expected)
            code, seconds = ingest(chance.uniform(0.0, whole) if whole else 600.0)
            done += code == -signal.SIGKILL
            whole = seconds if code == 0 else whole
            if done >= kills:
                break
        assert ingest(600.0)[0] == 0, "the last ingestion failed"
        orders.close()
    return done, expected


def _write(
    client: redis.Redis, chance: random.Random, number: int, expected: dict[str, float]
) -> None:
    """Add some tasks to the stream and some results, and write some known ones again."""
    known = [task for task in expected if task.startswith("ffffffff")]
    for task in chance.sample(known, min(len(known), COMING // 2)):
        _set(client, task, expected[task] + chance.uniform(1.0, 9.0), expected)
    for place in range(COMING):
        count = number * COMING + place
        task = f"ffffffff{str(UUID(int=count))[8:]}-llm_process"
        if place % 3 == 0:  # a failure, whose retry may come before the next kill or after
            _set(client, task, 10.0 + count, expected, status="failed")
            _set(client, task, 12.0 + count, expected)
        else:
            _set(client, task, 10.0 + count, expected)
        entry: dict[str, object] = {
            "task_id": f"{UUID(int=count)}-llm_process",
            "function": "llm_process",
        }
        entry |= {"tool_type": "llm_process", "start": 1.0 + count, "end": 5.0 + count}
        entry |= {"serve": {"text_length": 9}, "ran": {}}
        client.xadd(STREAM, {b"e": json.dumps(entry)})
        expected[str(entry["task_id"])] = 5.0 + count


def _set(
    client: redis.Redis, task: str, end: float, expected: dict[str, float], status: str = "success"
) -> None:
    record = {"start_time": end - 5.0, "end_time": end, "status": status}
    client.set(f"result:{task}", json.dumps(record | {"curr_task_feat": {"text_length": 9}}))
    if status != "failed":
        expected[task] = end


def _nursery(home: str, url: str) -> None:
    """For each line read, fork an ingestion and kill it so many seconds later.

    Imports once and starts no thread of its own, so that forking it is safe and quick.
    """
    for line in sys.stdin:
        began = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _ingest(Home(Path(home)), url)
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


def _ingest(home: Home, url: str) -> None:
    ingestion = Ingest(home, TYPES)
    with Stream(url, TYPES) as stream:
        for _ in ingestion.drain(stream, size=4):
            pass
    for batch in redis_scan.scan(url, TYPES, size=8, ends=ingestion.ends):
        ingestion.take(batch, "redis")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--nursery"]:
        _nursery(*sys.argv[2:])
    else:
        print(table(list(figures(*map(int, sys.argv[1:2])))))
