"""A given Redis that answers PING and cannot be used is named before anything is started."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from malearn.data import stream
from malearn.kernel.errors import InputError
from malearn.kernel.home import Home
from malearn.platform import Platform
from tests.serving.conftest import OwnRedis, free_port

SLOTS = (("0", "8191"), ("8192", "16383"))


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis Sentinel."""
    folder = tmp_path_factory.mktemp("sentinel")
    (folder / "sentinel.conf").touch()
    server = OwnRedis(folder, str(folder / "sentinel.conf"), "--sentinel")
    yield server.url
    server.kill()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The addresses of two nodes of a Redis Cluster, each with half of the slots."""
    with ExitStack() as stack:
        buses, servers = [str(free_port()) for _ in SLOTS], list[OwnRedis]()
        for bus in buses:
            folder = tmp_path_factory.mktemp("node")
            options = ("--cluster-enabled", "yes", "--cluster-port", bus)
            servers.append(OwnRedis(folder, *options))
            stack.callback(servers[-1].kill)
        clients = [stack.enter_context(server.client()) for server in servers]
        for epoch, (client, slots) in enumerate(zip(clients, SLOTS, strict=True), 1):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", str(epoch))
        meet = ("CLUSTER", "MEET", "127.0.0.1", str(servers[1].port), buses[1])
        clients[0].execute_command(*meet)
        until = time.monotonic() + 120
        while not all("state:ok" in str(c.execute_command("CLUSTER", "INFO")) for c in clients):
            assert time.monotonic() < until, "the nodes do not meet"
            time.sleep(0.05)
        yield [server.url for server in servers]


def refusal(url: str, monkeypatch: pytest.MonkeyPatch, home: Path) -> str:
    """The sentence with which `url` is refused, before anything is started."""
    monkeypatch.setenv("MALEARN_REDIS_URL", url)
    events: list[str] = []
    platform = Platform(Home(home), redis=True, on_event=lambda *event: events.append(event[0]))
    with pytest.raises(InputError) as refused, platform:
        pass
    assert not events and not home.exists()
    return str(refused.value)


def test_a_sentinel_is_called_by_its_name(
    sentinel: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sentence = refusal(sentinel, monkeypatch, tmp_path / "home")
    assert sentence.startswith(f"Redis at {sentinel}: is no Redis that holds data (")
    assert sentence.endswith("a Sentinel perhaps; give the primary's address.")


def test_each_node_of_a_cluster_is_called_by_its_name(
    nodes: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for node in nodes:
        assert "is a node of a Redis Cluster" in refusal(node, monkeypatch, tmp_path / "home")


def test_whoever_asks_a_node_of_a_cluster_for_a_strange_key_is_told_what_it_is(
    nodes: list[str],
) -> None:
    """MOVED, from whichever of the two does not hold the stream: redis-py hides that word."""
    for node in nodes:
        with pytest.raises(InputError, match="is a node of a Redis Cluster, which ingestion does"):
            stream.existing(node)
