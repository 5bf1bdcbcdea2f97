"""Two ingesters at once, on a local disk and on object storage, killed by SIGKILL at any moment.

Schedulers spread what they report over several streams meanwhile. Counted is what is lost or
doubled, which must be nothing. `python -m benchmarks.growth.ingesters local 10` does ten rounds.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import redis

from benchmarks.figure import Figure, at_least, at_most, table
from benchmarks.growth.process import say
from benchmarks.nursery import NEVER, Nursery, serve
from malearn.data import stream as streams
from malearn.data.dataset import Dataset
from malearn.data.ingest import Ingest
from malearn.data.stream import Stream
from malearn.kernel.home import Home
from malearn.kernel.names import Names
from malearn.kernel.reading.stream_entries import encode
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import declared
from malearn.platform import EmbeddedRedis

__all__ = ["campaign", "on_disk", "on_object_storage"]

TYPES = declared()
LLM = TYPES["llm_process"]
ROUNDS, _STREAMS, _COMING = 100, 4, 40


def on_disk(rounds: int = ROUNDS) -> Iterator[Figure]:
    """With datasets in a directory."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with EmbeddedRedis(Home(place / "redis")) as server:
            found = campaign(Home(place / "home"), server.url, rounds, {})
    yield from _figures("a local disk", rounds, found)


def on_object_storage(rounds: int = ROUNDS) -> Iterator[Figure]:
    """With datasets on SeaweedFS's S3 server."""
    from tests import object_storage

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with (
            object_storage.serving(place / "s3") as endpoint,
            EmbeddedRedis(Home(place / "redis")) as server,
        ):
            store = object_storage.variables(endpoint)
            given = {
                **store,
                "MALEARN_DATA": f"s3://bucket/{uuid4().hex}",
                "MALEARN_REDIS_URL": server.url,
            }
            found = campaign(Home(place / "home"), server.url, rounds, given)
    yield from _figures("object storage", rounds, found)


def _figures(where: str, rounds: int, found: tuple[int, int, int, int]) -> Iterator[Figure]:
    kills, lost, doubled, all_of = found
    of = f"of {all_of:,} tasks by two ingesters with {kills} kills, {_STREAMS} streams, {where}"
    yield at_most(f"growth: lost, {of}", lost, "tasks", 0)
    yield at_most(f"growth: doubled, {of}", doubled, "rows", 0)
    yield at_least(
        f"growth: ingesters killed within {rounds} rounds, {where}", kills, "", rounds // 2
    )


def campaign(
    home: Home, url: str, rounds: int, environment: Mapping[str, str]
) -> tuple[int, int, int, int]:
    """How many ingesters were killed, and how many tasks were lost, doubled, and added."""
    chance = random.Random(20250812)
    kills, added, whole = 0, 0, 0.0
    os.environ |= environment
    module, words = "benchmarks.growth.ingesters", ["--nursery", home.root, url]
    with (
        redis.Redis.from_url(url) as client,
        Nursery(module, words) as one,
        Nursery(module, words) as other,
    ):
        for number in range(rounds):
            added = _report(client, added)
            # One is killed in every round but the first, which says how long they take.
            moments = [chance.uniform(0.0, whole) if whole else NEVER, NEVER]
            chance.shuffle(moments)
            one.begin(moments[0])
            other.begin(moments[1])
            ended = [one.end(), other.end()]
            kills += sum(killed for killed, _ in ended)
            whole = max([seconds for killed, seconds in ended if not killed], default=whole)
            if number % 10 == 9:
                say(f"round {number + 1} of {rounds}: {kills} kills, {added:,} tasks")
        one.begin()
        one.end()
    found = [row.task_id for row in Dataset.open(home, LLM).read()]
    return kills, added - len(set(found)), len(found) - len(set(found)), added


def _report(client: redis.Redis, first: int) -> int:
    """Add entries to the streams as schedulers do; returns how many there are by now."""
    names = Names.find()
    keys = names.streams(_STREAMS)
    for n in range(first, first + _COMING):
        run, function = str(UUID(int=n // 4)), LLM.name
        given = (100.0, 20.0, 1.0, 0.0)
        entry = Execution(f"{run}-task{n}_{function}", f"task{n}_{function}", function, 1e9 + n,
                          1e9 + n + 2.0, given, given)  # fmt: skip
        client.xadd(keys[names.stream_of(run, _STREAMS)], {b"e": encode(entry, LLM)})
    return first + _COMING


def _ingest(home: Home, url: str) -> None:
    """Drain every stream in small batches, so that a kill may meet any step of one."""
    ingestion = Ingest(home, TYPES)
    for key in streams.existing(url):
        with Stream(url, TYPES, key) as stream:
            for _ in ingestion.drain(stream, size=4):
                pass


if __name__ == "__main__":
    where, *given = sys.argv[1:]
    if where == "--nursery":
        serve(partial(_ingest, Home(Path(given[0])), given[1]))
    else:
        part = on_disk if where == "local" else on_object_storage
        print(table(part(*map(int, given))))
