"""Datasets, rejections and reports in object storage: nothing lost, nothing doubled, no files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from malearn.data import conditional_writes, locks, storage, stream, validation_pages
from malearn.data.dataset import Dataset
from malearn.data.ingest import Ingest
from malearn.data.rejections import Rejections
from malearn.data.stream import Stream
from malearn.kernel.errors import InputError, Unreachable
from malearn.kernel.home import Home
from malearn.kernel.names import Names
from malearn.kernel.reading.stream_entries import encode
from malearn.kernel.records import Execution, Rejected, RejectReason
from malearn.kernel.tool_types import declared
from tests import object_storage

TYPES = declared()
LLM = TYPES["llm_process"]


def executions(first: int, count: int) -> list[Execution]:
    given = (100.0, 20.0, 1.0, 0.0)
    name = "llm_process"
    return [
        Execution(f"run{n}-{name}", name, name, 1e9 + n, 1e9 + n + 2, given, given)
        for n in range(first, first + count)
    ]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with object_storage.serving(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture
def place(endpoint: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of its own in the store, to which the environment points."""
    for name, value in object_storage.variables(endpoint).items():
        monkeypatch.setenv(name, value)
    url = f"s3://bucket/{uuid4().hex}"
    monkeypatch.setenv(storage.DATA_SETTING, url)
    monkeypatch.setenv("MALEARN_REDIS_URL", redis_url)
    return url


def test_tables_and_pages_are_in_the_store_and_nothing_is_in_the_home(
    place: str, home: Home
) -> None:
    ingest = Ingest(home, TYPES)
    bad = Rejected("x-llm_process", "llm_process", RejectReason.NOT_AN_OBJECT, "it failed", "{}")
    first = ingest.take([*executions(0, 5), bad], "a file")
    again = Ingest(home, TYPES).take(executions(3, 4), "another")
    assert (first.accepted, again.accepted, again.rejected) == (5, 2, {"duplicate": 2})
    assert str(ingest.datasets[LLM.name].path) == f"{place}/{LLM.name}"
    assert [e.task_id for e in Dataset.open(home, LLM).newest(2)] == [
        "run5-llm_process",
        "run6-llm_process",
    ]
    assert [row.rejected.detail for row in Rejections.open(home).read()] == ["it failed"]
    assert str(validation_pages.write(home, "validation-1.html", "<p>")).startswith(place)
    assert list(validation_pages.written(home)) == ["validation-1.html"]
    validation_pages.delete(home, "validation-1.html")
    assert validation_pages.written(home) == {}
    dataset = Dataset.open(home, LLM)
    assert dataset.compact() >= 0
    assert dataset.vacuum([], 0.0) >= 0
    assert len(dataset.read()) == 7
    assert not home.root.exists()


def test_two_writers_of_one_table_lose_nothing(place: str, home: Home) -> None:
    def write(first: int) -> None:
        dataset = Dataset.open(home, LLM)
        for n in range(4):
            dataset.append(executions(first + 10 * n, 10))

    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [e.task_id for e in Dataset.open(home, LLM).read()]
    assert len(found) == len(set(found)) == 60


_INGESTER = """
import sys
from malearn.data.ingest import Ingest
from malearn.data.stream import Stream, existing
from malearn.kernel.home import Home
from malearn.kernel.tool_types import declared
types = declared()
print("ready", flush=True)
ingestion = Ingest(Home.find(sys.argv[1]), types)
for key in existing(sys.argv[2]):
    with Stream(sys.argv[2], types, key) as stream:
        for report in ingestion.drain(stream, 10):
            print(report.accepted, flush=True)
"""


@pytest.mark.parametrize("kind", ["disk", "store"])
def test_two_ingesters_one_of_them_killed_take_in_each_entry_of_every_stream_once(
    kind: str,
    request: pytest.FixtureRequest,
    home: Home,
    redis_url: str,
    redis_client: redis.Redis,
) -> None:
    if kind == "store":
        request.getfixturevalue("place")
    keys = Names().streams(3)
    for n, one in enumerate(executions(0, 90)):
        redis_client.xadd(keys[n % 3], {b"e": encode(one, LLM)})

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _INGESTER, str(home.root), redis_url]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    victim, other = begin(), begin()
    assert victim.stdout is not None
    victim.stdout.readline()
    victim.stdout.readline()  # its first batch is in, or the other one's were all of them
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    other.communicate()
    victim.stdout.close()
    assert other.returncode == 0
    for key in stream.existing(redis_url):
        with Stream(redis_url, TYPES, key) as left:
            for _ in Ingest(home, TYPES).drain(left):
                pass
            assert left.state().length == 0
    found = [e.task_id for e in Dataset.open(home, LLM).read()]
    assert len(found) == len(set(found)) == 90


def test_the_lock_of_a_store_is_in_redis_and_is_waited_for(
    place: str, home: Home, redis_client: redis.Redis
) -> None:
    waited = threading.Event()
    with locks.retrain_lock(home, LLM):
        assert redis_client.exists(f"malearn:lock:retrain:{LLM.name}")

        def enter() -> None:
            with locks.retrain_lock(home, LLM, waited.set):
                pass

        second = threading.Thread(target=enter)
        second.start()
        assert waited.wait(60)
    second.join(60)
    assert not second.is_alive()
    assert not redis_client.keys("malearn:lock:*")


def test_without_redis_a_store_is_refused(
    place: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MALEARN_REDIS_URL")
    with pytest.raises(InputError, match="must be set where datasets are in object storage"):
        Ingest(home, TYPES).take(executions(0, 1), "a file")


def test_a_store_that_does_not_answer_is_no_damage(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_storage.variables("http://127.0.0.1:1").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(storage.DATA_SETTING, "s3://bucket/nowhere")
    with pytest.raises(Unreachable, match=r"Object storage at http://127\.0\.0\.1:1 cannot be"):
        Dataset.open(home, LLM)


def test_a_store_without_credentials_says_which_are_missing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv(storage.DATA_SETTING, "az://container/nowhere")
    with pytest.raises(
        Unreachable, match=r"Account must be specified\); check its credentials \(AZURE_STORAGE_"
    ):
        assert Dataset.open(home, LLM).version


class _Forgetful(BaseHTTPRequestHandler):
    """An S3 server that accepts every write, whatever its conditions."""

    def do_PUT(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_DELETE(self) -> None:
        self.do_PUT()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_store_that_ignores_conditions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Forgetful)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    for name, value in object_storage.variables(address).items():
        monkeypatch.setenv(name, value)
    try:
        with pytest.raises(InputError, match=r"ignores conditional writes \(If-None-Match\)"):
            conditional_writes.require("s3://bucket/forgetful", "MALEARN_DATA")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("address", ["http://x/y", "ftp://bucket", "s3:/bucket"])
def test_an_address_of_no_object_store_is_refused(
    address: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(storage.DATA_SETTING, address)
    with pytest.raises(InputError, match="MALEARN_DATA: must be a directory or begin with s3://"):
        storage.root(home)


@pytest.mark.parametrize("address", ["s3://bucket/home", "s3:/bucket/home", "gs://b"])
def test_a_home_is_a_directory(address: str) -> None:
    with pytest.raises(InputError, match="home: must be a directory of this machine"):
        Home.find(address)


def test_unsafe_renames_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")
    with pytest.raises(InputError, match="lets two writers overwrite each other's commits"):
        conditional_writes.require("s3://bucket/unsafe", "MALEARN_DATA")


def test_a_directory_may_be_named_too(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(storage.DATA_SETTING, str(tmp_path / "elsewhere"))
    Dataset.open(home, LLM).append(executions(0, 1))
    assert (tmp_path / "elsewhere" / LLM.name).is_dir()
