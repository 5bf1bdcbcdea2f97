"""Ingestion from a Redis Cluster, as the user that docs/operating.md describes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest
import redis

from malearn.data import redis_client, redis_scan, stream
from malearn.data.dataset import Dataset
from malearn.data.ingest import Ingest
from malearn.data.ingest_report import IngestReport
from malearn.data.keyspace import Watch
from malearn.data.stream import Stream
from malearn.flows import doctor, history_backfill, workflow_progress
from malearn.kernel.errors import InputError
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.home import Home
from malearn.kernel.names import Names
from malearn.kernel.reading import stream_entries
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import declared
from malearn.kernel.workflows.workflow_status import WorkflowStatus
from tests.redis_cluster import Cluster

PAGE = Path(__file__).parents[3] / "docs" / "operating.md"
TYPES = declared()
LLM = TYPES["llm_process"]
RUN = "19725120-6620-445b-9f40-7ceccb20bae2"
RECORD = '{"start_time": 1, "end_time": 5, "curr_task_feat": {"text_length": 9}}'
STREAMS = 4


@pytest.fixture
def url(redis_cluster: Cluster) -> str:
    text = PAGE.read_text("utf-8")
    (line,) = re.findall(r"^ACL SETUSER (malearn-ingest .*)$", text, re.M)
    (more,) = re.findall(r"Cluster.* needs `([^`]*)`, too", text)
    (locks,) = re.findall(r"locks need `([^`]*)` as well", text)
    user, *rules = line.split()
    for node in redis_cluster.nodes:
        with node.client() as client:
            client.execute_command(
                "ACL", "SETUSER", user, "reset", *rules, *more.split(), *locks.split()
            )
    return redis_cluster.url.replace("//", f"//{user}:password@")


@pytest.fixture
def client(redis_cluster: Cluster) -> Iterator[redis.RedisCluster]:
    with redis_cluster.client() as client:
        yield client


def execution(number: int) -> Execution:
    """Of one task; four are a run, and runs are in several streams."""
    function, given = f"task{number}_{LLM.name}", (100.0, 20.0, 1.0, 0.0)
    start, task = 1e9 + number, f"{UUID(int=number // 4)}-task{number}"
    return Execution(task, function, LLM.name, start, start + 2.0, given, given)


def drained(home: Home, url: str) -> IngestReport:
    """What one ingester takes in of all streams, in batches that meet another's."""
    ingestion, report = Ingest(home, TYPES), IngestReport()
    for key in stream.existing(url):
        with Stream(url, TYPES, key) as source:
            report = sum(ingestion.drain(source, size=8), report)
    return report


def test_two_ingesters_take_every_execution_once_from_streams_on_several_nodes(
    home: Home, url: str, client: redis.RedisCluster, redis_cluster: Cluster
) -> None:
    names = Names.find()
    keys = names.streams(STREAMS)
    assert len({redis_cluster.node_of(key).port for key in keys}) > 1
    for number in range(32):
        one = execution(number)
        key = keys[names.stream_of(one.task_id[:36], STREAMS)]
        client.xadd(key, {b"e": stream_entries.encode(one, LLM)})
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: drained(home, url), range(2)))
    assert sum(report.accepted for report in reports) == 32
    found = sorted(row.task_id for row in Dataset.open(home, LLM).read())
    assert found == sorted(execution(number).task_id for number in range(32))
    assert [client.xlen(key) for key in keys] == [0] * STREAMS


def test_results_on_all_nodes_are_scanned(
    home: Home, url: str, client: redis.RedisCluster, redis_cluster: Cluster
) -> None:
    keys = redis_cluster.keys_on_each(f"result:{RUN}-task{{}}_llm_process")
    for key in keys:
        client.set(key, RECORD)
    ingestion = Ingest(home, TYPES)
    batches = list(redis_scan.scan(url, TYPES, ends=ingestion.ends))
    report = sum((ingestion.take(batch, "redis") for batch in batches), IngestReport())
    assert (report.records, report.accepted) == (3, 3)


def test_results_that_are_set_on_any_node_are_watched(url: str, redis_cluster: Cluster) -> None:
    for node in redis_cluster.nodes:
        with node.client() as one:
            one.config_set("notify-keyspace-events", "K$")
    keys = redis_cluster.keys_on_each(f"result:{RUN}-task{{}}_llm_process")
    until, caught = time.monotonic() + 120, 0
    watch = Watch(url, TYPES, lambda: caught >= len(keys) or time.monotonic() > until, quiet=0.1)

    def set_once_watched() -> None:
        for node, key in zip(redis_cluster.nodes, keys, strict=True):
            with node.client() as one:
                while not one.pubsub_numpat() and time.monotonic() < until:
                    time.sleep(0.02)
                one.set(key, RECORD)

    setter = threading.Thread(target=set_once_watched)
    setter.start()
    for batch in watch.batches():
        caught += len(batch)
    setter.join()
    assert (caught, watch.missed) == (3, 0)


def test_notifications_must_be_on_at_every_node(url: str, redis_cluster: Cluster) -> None:
    for node, flags in zip(redis_cluster.nodes, ("K$", "K$", ""), strict=True):
        with node.client() as one:
            one.config_set("notify-keyspace-events", flags)
    with pytest.raises(InputError, match="has keyspace notifications disabled"):
        list(Watch(url, TYPES, lambda: False).batches())


def test_recent_durations_and_workflows_are_kept_there(
    url: str, client: redis.RedisCluster
) -> None:
    seen = [Observation(f"task{n}_llm_process", LLM.name, 1.0, 6.0, (1.0,) * 4) for n in range(6)]
    with redis_client.connected(url) as user:
        assert history_backfill.backfill(user, seen, TYPES) == 6
        assert history_backfill.backfill(user, seen, TYPES) == 0
        assert history_backfill.known_functions(user) == {one.function for one in seen}
    for number in range(6):
        status = WorkflowStatus(str(UUID(int=number)), 1e9, 3, 1, 9.0, 5.0, 14.0)
        client.set(f"malearn:workflow:{status.run_id}", status.to_json())
    assert len(workflow_progress.in_progress(url)) == 6


def test_a_lock_is_held_by_one_until_it_is_released(url: str) -> None:
    with redis_client.connected(url) as user:
        one, other = (
            user.lock(f"{Names.find().locks}datasets", timeout=60.0, thread_local=False)
            for _ in range(2)
        )
        assert one.acquire(blocking=False)
        assert not other.acquire(blocking=False)
        one.reacquire()
        one.release()
        assert other.acquire(blocking=False)
        other.release()


def test_the_doctor_asks_every_node(
    home: Home, url: str, redis_cluster: Cluster, client: redis.RedisCluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MALEARN_REDIS_URL", url)

    def found() -> tuple[str, str]:
        (one,) = (one for one in doctor.examine(home) if one.subject == "Redis")
        return one.level, one.detail

    assert found()[0] == "ok", found()
    # One that takes no writes, and holds a stream that is not the first.
    keys = Names.find().streams(STREAMS)
    first = redis_cluster.node_of(keys[0])
    key = next(key for key in keys if redis_cluster.node_of(key) is not first)
    client.xadd(key, {b"e": "{}"})
    with redis_cluster.node_of(key).client() as one:
        one.config_set("maxmemory", 1)
        try:
            level, detail = found()
        finally:
            one.config_set("maxmemory", 0)
    assert level == "problem" and "is out of memory" in detail
