"""A given Redis that answers PING and cannot be used is named before anything is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from malearn.data import stream
from malearn.kernel.errors import InputError
from malearn.kernel.home import Home
from malearn.platform import Platform
from tests.own_redis import OwnRedis
from tests.redis_cluster import Cluster


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis Sentinel."""
    folder = tmp_path_factory.mktemp("sentinel")
    (folder / "sentinel.conf").touch()
    server = OwnRedis(folder, str(folder / "sentinel.conf"), "--sentinel")
    yield server.url
    server.kill()


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


def test_each_node_of_a_cluster_stands_for_all_of_it(
    redis_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for node in redis_cluster.nodes:
        monkeypatch.setenv("MALEARN_REDIS_URL", node.url)
        with Platform(Home(tmp_path / "home"), redis=True) as platform:
            assert stream.existing(platform.redis_url) == ["malearn:executions"]


def test_a_database_that_a_cluster_does_not_have_is_refused(
    redis_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = redis_cluster.url.replace("/0", "/3")
    sentence = "is a Redis Cluster, which has no database 3; leave it out of the URL."
    assert refusal(url, monkeypatch, tmp_path / "home").endswith(sentence)
    with pytest.raises(InputError, match="is a Redis Cluster, which has no database 3"):
        stream.existing(url)
