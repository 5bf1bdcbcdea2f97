"""Ingestion killed by SIGKILL at random moments, two hundred times, while records keep coming.

Processes drain the stream and scan `result:*`; each dies anywhere in its batches. Meanwhile new
entries are added and results are set again: after a failure, or with a later end. Counted is
what is lost, doubled, or kept with an older end, which must be nothing. `python -m
benchmarks.kills 50` does the same with fewer kills.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from uuid import UUID

import redis

from benchmarks.figure import Figure, at_most, table
from benchmarks.nursery import NEVER, Nursery, serve
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
    with (
        redis.Redis.from_url(url) as client,
        Nursery("benchmarks.kills", ["--nursery", home.root, url]) as ingester,
    ):
        done, whole = 0, 0.0
        for number in range(4 * kills):
            _write(client, chance, number, expected)
            ingester.begin(chance.uniform(0.0, whole) if whole else NEVER)
            killed, seconds = ingester.end()
            done += killed
            whole = whole if killed else seconds
            if done >= kills:
                break
        ingester.begin()
        assert not ingester.end()[0], "the last ingestion was killed"
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


def _ingest(home: Home, url: str) -> None:
    ingestion = Ingest(home, TYPES)
    with Stream(url, TYPES) as stream:
        for _ in ingestion.drain(stream, size=4):
            pass
    for batch in redis_scan.scan(url, TYPES, size=8, ends=ingestion.ends):
        ingestion.take(batch, "redis")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--nursery"]:
        serve(partial(_ingest, Home(Path(sys.argv[2])), sys.argv[3]))
    else:
        print(table(list(figures(*map(int, sys.argv[1:2])))))
