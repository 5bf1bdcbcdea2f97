"""The number at the end of a Redis URL names the database that everything reads and writes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import redis
from typer.testing import CliRunner

from malearn.data import redis_client, redis_scan, stream
from malearn.data.ingest import Ingest
from malearn.data.ingest_report import IngestReport
from malearn.data.keyspace import Watch
from malearn.data.stream import Stream
from malearn.flows import doctor
from malearn.flows.commands import app
from malearn.kernel.home import Home
from malearn.kernel.names import Names
from malearn.kernel.tool_types import declared
from malearn.kernel.workflows.workflow_status import WorkflowStatus

TYPES = declared()
RECORD = '{"start_time": 1, "end_time": 5, "curr_task_feat": {"text_length": 9}}'


@pytest.fixture
def url(redis_url: str) -> str:
    assert redis_url.endswith("/0")
    return f"{redis_url[:-1]}2"


@pytest.fixture
def other(redis_url: str) -> Iterator[redis.Redis]:
    """Database 0, which holds what nobody who names database 2 may see."""
    with redis.Redis.from_url(redis_url) as client:
        fill(client, "elsewhere", 7)
        yield client


@pytest.fixture
def named(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url) as client:
        yield client


def fill(client: redis.Redis, run_id: str, number: int) -> str:
    """A record, and a workflow in progress; returns the record's task id."""
    task_id = f"{UUID(int=number)}-task1_llm_process"
    client.set(f"result:{task_id}", RECORD)
    status = WorkflowStatus(run_id, time.time(), 3, 1, 9.0, 5.0, 14.0)
    client.set(f"{Names.find().workflow}{run_id}", status.to_json())
    return task_id


def test_a_client_stays_in_its_database_when_it_connects_anew(
    url: str, other: redis.Redis, named: redis.Redis
) -> None:
    with redis_client.connected(url) as client:
        for _ in range(2):
            client.set("mark", 1)
            assert (named.get("mark"), other.get("mark")) == (b"1", None)
            named.delete("mark")
            client.connection_pool.disconnect()


def test_records_of_that_database_alone_are_ingested(
    home: Home, url: str, other: redis.Redis, named: redis.Redis
) -> None:
    assert list(redis_scan.scan(url, TYPES)) == []
    fill(named, "here", 1)
    fill(named, "there", 2)
    ingestion = Ingest(home, TYPES)
    (batch,) = redis_scan.scan(url, TYPES, ends=ingestion.ends)
    assert ingestion.take(batch, "redis").accepted == 2


def test_the_stream_of_that_database_is_read(
    home: Home, url: str, other: redis.Redis, named: redis.Redis
) -> None:
    key, ingestion = Names.find().stream, Ingest(home, TYPES)
    for client, count in ((other, 1), (named, 2)):
        for _ in range(count):
            client.xadd(key, {b"e": "{}"})
    with Stream(url, TYPES, key) as source:
        assert stream.state_of(url, key).length == 2
        assert sum(ingestion.drain(source), IngestReport()).records == 2


def test_results_set_in_that_database_are_watched(
    url: str, other: redis.Redis, named: redis.Redis
) -> None:
    until, caught = time.monotonic() + 300, set[str]()
    before = named.config_get("notify-keyspace-events")["notify-keyspace-events"]
    watch = Watch(
        url, TYPES, lambda: bool(caught) or time.monotonic() > until, quiet=0.1, enable=True
    )

    def set_once_watched() -> None:
        while not named.pubsub_numpat() and time.monotonic() < until:
            time.sleep(0.02)
        fill(other, "elsewhere", 8)
        fill(named, "here", 1)

    setter = threading.Thread(target=set_once_watched)
    setter.start()
    try:
        for batch in watch.batches():
            caught |= {one.task_id for one in batch}
    finally:
        setter.join()
        named.config_set("notify-keyspace-events", before)
    assert caught == {f"{UUID(int=1)}-task1_llm_process"}


def test_commands_show_the_workflows_of_that_database(
    url: str,
    other: redis.Redis,
    named: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("MALEARN_REDIS_URL", url)
    monkeypatch.setenv("MALEARN_HOME", str(tmp_path))
    fill(named, "here", 1)
    listed = CliRunner().invoke(app, ["status", "--workflows", "--json"])
    assert [one["run_id"] for one in json.loads(listed.stdout)] == ["here"]
    assert CliRunner().invoke(app, ["eta", "here"]).exit_code == 0
    assert CliRunner().invoke(app, ["eta", "elsewhere"]).exit_code == 1


def test_the_doctor_looks_at_the_streams_of_that_database(
    home: Home,
    url: str,
    other: redis.Redis,
    named: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MALEARN_REDIS_URL", url)
    monkeypatch.setenv("MALEARN_STREAM_LENGTH", "4")

    def level() -> str:
        (one,) = (one for one in doctor.examine(home) if one.subject == "Redis")
        return one.level

    for _ in range(4):
        other.xadd(Names.find().stream, {b"e": "{}"})
    assert level() == "ok"
    for _ in range(4):
        named.xadd(Names.find().stream, {b"e": "{}"})
    assert level() == "warning"
