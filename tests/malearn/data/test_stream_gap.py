"""What left the stream unread is counted and said; whoever may not ask is told in a sentence."""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from malearn.data import stream
from malearn.data.ingest import Ingest
from malearn.data.ingest_report import IngestReport
from malearn.data.stream import Stream
from malearn.kernel.errors import InputError
from malearn.kernel.home import Home
from malearn.kernel.reading import stream_entries
from malearn.kernel.reading.stream_entries import STREAM
from malearn.kernel.tool_types import declared

TYPES = declared()


def add(client: redis.Redis, numbers: Iterable[int], limit: int | None = None) -> None:
    for number in numbers:
        entry = {"task_id": f"run{number}-llm_process", "function": "llm_process"}
        entry |= {"tool_type": "llm_process", "start": 1.0, "end": 6.0}
        entry |= {"serve": {"text_length": number}, "ran": {}}
        client.xadd(STREAM, {b"e": json.dumps(entry)}, maxlen=limit, approximate=False)


@contextlib.contextmanager
def old_redis(url: str) -> Iterator[str]:
    """The Redis at `url` as one before version 7, which says nothing of entries ever added."""
    there = urlsplit(url)

    class Older(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((there.hostname or "", there.port or 0)) as server:
                ends = {self.request: server, server: self.request}
                while True:
                    for source in select.select([*ends], [], [])[0]:
                        if not (data := source.recv(65_536)):
                            return
                        ends[source].sendall(data.replace(b"entries-added", b"entries-other"))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Older) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield url.replace(f":{there.port}/", f":{server.server_address[1]}/")
        server.shutdown()


def drain(home: Home, url: str) -> IngestReport:
    with Stream(url, TYPES) as found:
        return sum(Ingest(home, TYPES).drain(found), IngestReport())


def test_what_maxlen_pushed_out_is_counted_once(
    home: Home, redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(stream_entries.LENGTH_SETTING, "10")
    add(redis_client, range(30), limit=10)
    report = drain(home, redis_url)
    assert (report.records, report.accepted, report.lost) == (10, 10, 20)
    (why,) = report.gaps
    assert why.startswith("20 entries left the stream before they were read; it is full")
    add(redis_client, range(30, 35))
    assert (drain(home, redis_url).lost, drain(home, redis_url).gaps) == (0, ())
    add(redis_client, range(35, 39), limit=1)
    assert drain(home, redis_url).lost == 3


def test_another_home_that_reads_the_same_stream_is_named(
    home: Home, redis_url: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    other = Home(tmp_path / "other")
    add(redis_client, range(3))
    assert drain(home, redis_url).lost == 0
    add(redis_client, range(3, 8))
    assert drain(other, redis_url).accepted == 5
    report = drain(home, redis_url)
    assert (report.records, report.lost) == (0, 5)
    assert f"another home reads the same stream ({other.root}" in report.gaps[0]


@pytest.mark.parametrize("flush", [True, False])
def test_a_flush_is_said_and_what_comes_after_it_is_read(
    home: Home, redis_url: str, redis_client: redis.Redis, flush: bool
) -> None:
    add(redis_client, range(3))
    assert drain(home, redis_url).accepted == 3
    redis_client.flushall() if flush else redis_client.delete(STREAM)
    if not flush:
        assert "cannot be known" in drain(home, redis_url).gaps[0]
    add(redis_client, range(3, 7))
    report = drain(home, redis_url)
    assert (report.accepted, report.lost) == (4, 0)
    assert bool(report.gaps) == flush
    assert drain(home, redis_url).gaps == ()


def test_a_deletion_is_told_from_a_trim(
    home: Home, redis_url: str, redis_client: redis.Redis
) -> None:
    add(redis_client, range(2))
    drain(home, redis_url)
    add(redis_client, range(2, 6))
    redis_client.xdel(STREAM, *[i for i, _ in redis_client.xrange(STREAM, count=2)])
    assert "2 entries left the stream before they were read; somebody deleted them" in str(
        drain(home, redis_url).gaps
    )
    add(redis_client, range(6, 9))
    redis_client.xtrim(STREAM, maxlen=1, approximate=False)
    assert "somebody trimmed it" in drain(home, redis_url).gaps[0]
    add(redis_client, range(9, 11))
    redis_client.xtrim(STREAM, maxlen=1, approximate=False)
    assert "1 entry left the stream before it was read" in drain(home, redis_url).gaps[0]


def test_a_stream_four_fifths_full_is_a_warning(
    redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(stream_entries.LENGTH_SETTING, "10")
    add(redis_client, range(7))
    assert stream.warnings(redis_url) == {}
    add(redis_client, range(1))
    full = stream.warnings(redis_url)["full"]
    assert full.startswith("The stream holds 8 of about 10 entries")
    monkeypatch.setenv(stream_entries.LENGTH_SETTING, "many")
    with pytest.raises(InputError, match="MALEARN_STREAM_LENGTH: must be a number of entries"):
        stream.warnings(redis_url)


def test_a_user_without_dangerous_commands_ingests(
    home: Home, redis_url: str, redis_client: redis.Redis
) -> None:
    redis_client.acl_setuser(
        "app",
        True,
        passwords=["+x"],
        keys=["result:*", "malearn:*"],
        commands=["+@all"],
        categories=["-@dangerous"],
    )
    add(redis_client, range(3))
    url = f"redis://app:x@{redis_url.rpartition('@')[2].removeprefix('redis://')}"
    assert drain(home, url).accepted == 3
    redis_client.execute_command("ACL", "SETUSER", "app", "-@write")
    with pytest.raises(InputError, match="does not let its user do what ingestion needs"):
        drain(home, url)
    with pytest.raises(InputError, match="wants a user or password"):
        drain(home, url.replace("app:x", "app:wrong"))


def test_a_redis_that_refuses_writes_is_named_with_what_to_do(
    home: Home, redis_url: str, redis_client: redis.Redis
) -> None:
    redis_client.set(STREAM, "not a stream")
    with pytest.raises(InputError, match="something else under a key of malearn"):
        drain(home, redis_url)
    redis_client.delete(STREAM)
    redis_client.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(InputError, match="read-only replica; point MALEARN_REDIS_URL at"):
            drain(home, redis_url)
    finally:
        redis_client.replicaof("NO", "ONE")


def test_where_redis_does_not_count_that_is_said_each_time(
    home: Home, redis_url: str, redis_client: redis.Redis
) -> None:
    add(redis_client, range(3))
    with old_redis(redis_url) as url:
        first, second = drain(home, url), drain(home, url)
        add(redis_client, range(3, 5))
        third = drain(home, url)
        assert set(stream.warnings(url)) == {"uncounted"}
    assert [report.accepted for report in (first, second, third)] == [3, 0, 2]
    for report in (first, second, third):
        assert report.gaps == (stream.UNCOUNTED,) and report.lost == 0


@pytest.mark.parametrize(
    ("spoil", "mend", "sentence"),
    [
        (
            lambda client: client.replicaof("127.0.0.1", "1"),
            lambda client: client.replicaof("NO", "ONE"),
            "is a read-only replica; point MALEARN_REDIS_URL at the primary",
        ),
        (
            lambda client: _break_saving(client),
            lambda client: _mend_saving(client),
            "cannot save to its disk and so takes no writes; see its log, free some space",
        ),
        (
            lambda client: client.config_set("maxmemory", 1),
            lambda client: client.config_set("maxmemory", 0),
            "is out of memory (maxmemory); give it more, or ingest more often",
        ),
    ],
    ids=["a replica", "a full disk", "a full memory"],
)
def test_a_redis_that_takes_no_writes_is_not_taken_for_healthy(
    redis_url: str,
    redis_client: redis.Redis,
    spoil: Callable[[redis.Redis], object],
    mend: Callable[[redis.Redis], object],
    sentence: str,
) -> None:
    assert stream.warnings(redis_url) == {}
    spoil(redis_client)
    try:
        found = stream.warnings(redis_url)
    finally:
        mend(redis_client)
    assert sentence in found["writes"] and "no execution is recorded or ingested" in found["writes"]
    assert stream.warnings(redis_url) == {} and redis_client.dbsize() == 0


def _snapshots(client: redis.Redis) -> Path:
    return Path(client.config_get("dir")["dir"]) / client.config_get("dbfilename")["dbfilename"]


def _break_saving(client: redis.Redis) -> None:
    """Let the next snapshot fail, as on a full disk: a directory has its name."""
    (_snapshots(client) / "full").mkdir(parents=True)
    client.config_set("save", "3600 1")  # without a schedule, one that fails stops nothing
    client.bgsave()
    while client.info("persistence")["rdb_bgsave_in_progress"]:
        time.sleep(0.02)


def _mend_saving(client: redis.Redis) -> None:
    shutil.rmtree(_snapshots(client))
    client.config_set("save", "")
    client.config_set("stop-writes-on-bgsave-error", "no")
