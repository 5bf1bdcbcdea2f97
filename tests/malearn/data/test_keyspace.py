"""Results are caught as they are set, however short they live."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
import redis

from malearn.data.keyspace import Watch
from malearn.kernel.errors import InputError, Unreachable
from malearn.kernel.home import Home
from malearn.kernel.records import Execution, Rejected
from malearn.kernel.tool_types import declared
from malearn.platform import EmbeddedRedis

TYPES = declared()
NOTIFY = "notify-keyspace-events"


def set_result(client: redis.Redis, run: int, function: str, end: float, **said: object) -> str:
    task_id = f"{UUID(int=run)}-{function}"
    record = {"start_time": end - 1.0, "end_time": end, **said}
    client.set(f"result:{task_id}", json.dumps(record))
    return task_id


class Watcher:
    """A watch on a thread of its own, and all that it caught."""

    def __init__(self, url: str, **options: object) -> None:
        self.said: list[str] = []
        self.sizes: list[int] = []
        self.caught: list[Execution | Rejected] = []
        self.stop = threading.Event()
        options = {"quiet": 0.1, "notify": self.said.append, "enable": True} | options
        self.watch = Watch(url, TYPES, self.stop.is_set, **options)  # type: ignore[arg-type]

    def run(self) -> None:
        for batch in self.watch.batches():
            self.sizes.append(len(batch))
            self.caught += [one for one in batch if isinstance(one, Execution | Rejected)]

    def ids(self) -> set[str]:
        return {one.task_id for one in self.caught}


@contextmanager
def watching(url: str, client: redis.Redis, **options: object) -> Iterator[Watcher]:
    watcher = Watcher(url, **options)
    thread = threading.Thread(target=watcher.run)
    thread.start()
    try:
        until(lambda: client.pubsub_numpat() == 1)
        yield watcher
    finally:
        watcher.stop.set()
        thread.join(300)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def quiet_redis(redis_client: redis.Redis) -> Iterator[redis.Redis]:
    """The session's Redis, which notifies nobody, before and after."""
    redis_client.config_set(NOTIFY, "")
    yield redis_client
    redis_client.config_set(NOTIFY, "")


def test_what_is_deleted_after_a_moment_is_caught_with_what_was_known_of_it(
    redis_url: str, quiet_redis: redis.Redis
) -> None:
    """Its predecessor went in an earlier batch, and is remembered."""
    with watching(redis_url, quiet_redis) as watcher:
        said = {"task2_speech_process": {"duration": 40}}
        first = set_result(quiet_redis, 1, "load", 10.0, succ_task_feat=said)
        until(lambda: watcher.ids() == {first})
        own = {"duration": 41}
        second = set_result(quiet_redis, 1, "task2_speech_process", 20.0, curr_task_feat=own)
        quiet_redis.set("other:key", "1")
        until(lambda: second in watcher.ids())
        quiet_redis.flushdb()
    assert len(watcher.caught) == 2
    execution = watcher.caught[1]
    assert isinstance(execution, Execution)
    assert (execution.serve[0], execution.ran[0]) == (40.0, 41.0)


def test_what_was_there_before_is_read_too_and_the_last_is_not_left_behind(
    redis_url: str, quiet_redis: redis.Redis
) -> None:
    before = set_result(quiet_redis, 1, "load", 10.0)
    with watching(redis_url, quiet_redis, quiet=60.0) as watcher:
        until(lambda: watcher.ids() == {before})
        later = {set_result(quiet_redis, 2, f"step{n}", 20.0 + n) for n in range(30)}
    assert watcher.ids() == {before, *later}
    assert watcher.watch.missed == 0
    assert sum(watcher.sizes) == 31


def test_a_batch_is_no_larger_than_it_has_to_be(redis_url: str, quiet_redis: redis.Redis) -> None:
    with watching(redis_url, quiet_redis, size=10, quiet=60.0) as watcher:
        for number in range(50):
            set_result(quiet_redis, number, "load", 10.0)
        until(lambda: len(watcher.caught) >= 10)
    assert len(watcher.ids()) == 50


def test_a_redis_that_goes_away_is_waited_for_and_caught_up_on(tmp_path: Path) -> None:
    home = Home(tmp_path / "redis")
    watcher = None
    with EmbeddedRedis(home) as server, redis.Redis.from_url(server.url) as client:
        url = server.url
        watcher = Watcher(url)
        thread = threading.Thread(target=watcher.run)
        thread.start()
        until(lambda: client.pubsub_numpat() == 1)
        known = {set_result(client, 1, "load", 10.0)}
        until(lambda: watcher.ids() == known)
    until(lambda: any("Waiting for Redis" in sentence for sentence in watcher.said))
    with EmbeddedRedis(home) as server, redis.Redis.from_url(server.url) as client:
        assert server.url == url
        known.add(set_result(client, 2, "load", 20.0))
        until(lambda: client.pubsub_numpat() == 1)
        known.add(set_result(client, 3, "load", 30.0))
        until(lambda: watcher.ids() == known)
        watcher.stop.set()
        thread.join(300)
    assert "Redis is back; catching up" in watcher.said


def test_a_redis_that_tells_nothing_is_left_as_it_is(
    redis_url: str, quiet_redis: redis.Redis
) -> None:
    quiet_redis.config_set(NOTIFY, "x")
    watcher = Watcher(redis_url, enable=False)
    with pytest.raises(InputError, match="disabled; run CONFIG SET notify"):
        watcher.run()
    assert quiet_redis.config_get(NOTIFY) == {NOTIFY: "x"}
    with watching(redis_url, quiet_redis):
        assert set(quiet_redis.config_get(NOTIFY)[NOTIFY]) == set("xK$")


def test_no_redis_at_all_is_an_error() -> None:
    with pytest.raises(Unreachable, match="cannot be reached"):
        Watcher("redis://127.0.0.1:1").run()
