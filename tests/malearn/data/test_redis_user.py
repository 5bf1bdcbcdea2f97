"""The Redis user that docs/operating.md describes may do all that ingestion does, and no more."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest
import redis

from malearn.data import locks, redis_scan, stream
from malearn.data.ingest import Ingest
from malearn.data.ingest_report import IngestReport
from malearn.data.keyspace import Watch
from malearn.data.stream import Stream
from malearn.flows import doctor, history_backfill
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.home import Home
from malearn.kernel.reading import stream_entries
from malearn.kernel.tool_types import declared

PAGE = Path(__file__).parents[3] / "docs" / "operating.md"
TYPES = declared()
RUN = "19725120-6620-445b-9f40-7ceccb20bae2"


@pytest.fixture
def url(redis_url: str, redis_client: redis.Redis) -> str:
    """The session's Redis for that user."""
    (line,) = re.findall(r"^ACL SETUSER (malearn-ingest .*)$", PAGE.read_text("utf-8"), re.M)
    user, *rules = line.split()
    redis_client.execute_command("ACL", "SETUSER", user, "reset", *rules)
    return f"redis://{user}:password@{redis_url.rpartition('@')[2]}"


def test_it_reads_the_stream_and_the_results(
    home: Home, url: str, redis_client: redis.Redis
) -> None:
    entry = '{"task_id": "run1-llm_process", "function": "llm_process", "start": 1.0, "end": 6.0, '
    entry += '"tool_type": "llm_process", "serve": {"text_length": 3}, "ran": {}}'
    redis_client.xadd(stream_entries.STREAM, {"e": entry})
    record = '{"start_time": 1, "end_time": 5, "curr_task_feat": {"text_length": 9}}'
    redis_client.set(f"result:{RUN}-task2_llm_process", record)
    ingestion = Ingest(home, TYPES)
    with Stream(url, TYPES) as source:
        report = sum(ingestion.drain(source), IngestReport())
    for batch in redis_scan.scan(url, TYPES, ends=ingestion.ends):
        report += ingestion.take(batch, "redis")
    assert (report.records, report.accepted) == (2, 2)
    assert redis_client.xlen(stream_entries.STREAM) == 0


def test_it_publishes_recent_durations(url: str, redis_client: redis.Redis) -> None:
    seen = Observation("task_llm_process", "llm_process", 1.0, 6.0, (1.0,) * 4)
    with redis.Redis.from_url(url) as client:
        assert history_backfill.backfill(client, [seen], TYPES) == 1
        assert history_backfill.known_functions(client) == {"task_llm_process"}
    assert redis_client.llen("malearn:history:task_llm_process") == 1


def test_it_is_told_what_is_wrong_with_the_server(
    home: Home, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stream.warnings(url) == {}
    monkeypatch.setenv("MALEARN_REDIS_URL", url)
    (found,) = (one for one in doctor.examine(home) if one.subject == "Redis")
    assert found.level == "ok", found


def test_it_watches_results_as_they_are_set(url: str, redis_client: redis.Redis) -> None:
    """A pattern is subscribed to only where the user's rule is the pattern itself."""
    before = redis_client.config_get("notify-keyspace-events")["notify-keyspace-events"]
    redis_client.config_set("notify-keyspace-events", "K$")
    try:
        until, caught = time.monotonic() + 120, 0
        watch = Watch(url, TYPES, lambda: caught > 0 or time.monotonic() > until, quiet=0.1)
        batches = watch.batches()
        setter = threading.Thread(target=_set_once_watched, args=(redis_client, until))
        setter.start()
        for batch in batches:
            caught += len(batch)
        setter.join()
    finally:
        redis_client.config_set("notify-keyspace-events", before)
    assert caught == 1


def _set_once_watched(client: redis.Redis, until: float) -> None:
    while not client.pubsub_numpat() and time.monotonic() < until:
        time.sleep(0.02)
    record = '{"start_time": 1, "end_time": 5, "curr_task_feat": {"text_length": 9}}'
    client.set(f"result:{RUN}-task2_llm_process", record)


def test_with_what_scale_md_adds_it_takes_locks_for_object_storage(
    url: str, redis_client: redis.Redis, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    (more,) = re.findall(r"`(\+eval .*?)`", PAGE.with_name("scale.md").read_text("utf-8"))
    redis_client.execute_command("ACL", "SETUSER", "malearn-ingest", *more.split())
    # Nothing is asked for there; only S3's servers are tried before they are used.
    monkeypatch.setenv("MALEARN_DATA", "az://container/datasets")
    monkeypatch.setenv("MALEARN_REDIS_URL", url)
    with locks.dataset_lock(home):
        assert redis_client.exists("malearn:lock:datasets")
    assert not redis_client.exists("malearn:lock:datasets")


def test_it_may_touch_nothing_else(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        for command in ("FLUSHALL", "GET func:1", "SET result:x 1", "CONFIG SET save 1"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command.split())
