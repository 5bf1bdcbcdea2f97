"""The embedded Redis, as its users see it."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest
import redis

from malearn.kernel.errors import PlatformError
from malearn.kernel.home import Home
from malearn.platform import EmbeddedRedis
from malearn.platform.file_lock import FileLock


def state(home: Home) -> dict[str, int]:
    content: dict[str, int] = json.loads((home.state / "run" / "redis.json").read_text())
    return content


def gone(home: Home) -> bool:
    """Whether neither server nor reaper of this home runs."""
    lock = FileLock.try_exclusive(home.state / "run" / "redis.lock")
    if lock is not None:
        lock.release()
    return lock is not None


def test_answers_on_loopback_alone(redis_client: redis.Redis) -> None:
    assert redis_client.ping()
    assert redis_client.config_get("bind") == {"bind": "127.0.0.1"}
    assert redis_client.config_get("protected-mode") == {"protected-mode": "yes"}


def test_every_test_finds_it_empty(redis_client: redis.Redis) -> None:
    assert redis_client.dbsize() == 0
    redis_client.set("left", "behind")


def test_every_test_finds_it_empty_again(redis_client: redis.Redis) -> None:
    assert redis_client.dbsize() == 0


def test_keeps_keys_and_address_over_a_restart(home: Home) -> None:
    server = EmbeddedRedis(home)
    with server, redis.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
        first = server.url
    assert not server.alive()
    with server, redis.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"
        assert server.url == first


def test_keeps_whatever_it_acknowledged_when_it_is_killed(home: Home) -> None:
    server = EmbeddedRedis(home)
    with server, redis.Redis.from_url(server.url) as client:
        for n in range(500):
            last = client.xadd("stream", {"n": n})
        os.kill(state(home)["pid"], signal.SIGKILL)
    with server, redis.Redis.from_url(server.url) as client:
        assert client.xlen("stream") == 500
        assert client.xrevrange("stream", count=1)[0][0] == last


def test_a_killed_one_starts_again_at_its_address(home: Home) -> None:
    with EmbeddedRedis(home) as server:
        first = server.url
        os.kill(state(home)["pid"], signal.SIGKILL)
        server.start()
        assert server.alive() and server.url == first
    assert gone(home)


def test_dies_with_its_reaper(home: Home) -> None:
    """Even the process that watches over it may be killed: the server does not stay."""
    server = EmbeddedRedis(home)
    with server:
        os.kill(state(home)["reaper"], signal.SIGKILL)
    assert not server.alive()
    assert gone(home)


def test_a_second_one_on_the_same_home_attaches(home: Home) -> None:
    first, second = EmbeddedRedis(home), EmbeddedRedis(home)
    with first:
        with second:
            assert second.attached and not first.attached
            assert second.url == first.url
        assert first.alive()
    assert not first.alive()


def test_the_last_user_takes_the_server_with_it(home: Home) -> None:
    first, second = EmbeddedRedis(home), EmbeddedRedis(home)
    first.start()
    with second:
        first.stop()
        assert second.alive()
    assert gone(home)


def test_an_old_state_file_means_nothing(home: Home) -> None:
    run = home.state / "run"
    run.mkdir(parents=True)
    (run / "redis.json").write_text(json.dumps({"url": "redis://127.0.0.1:1/0", "pid": 1}))
    with EmbeddedRedis(home) as server:
        assert server.alive() and not server.attached


def test_a_home_may_be_named_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with EmbeddedRedis(Home(Path("near"))) as server:
        assert server.alive()
    assert (tmp_path / "near" / ".malearn" / "redis" / "appendonlydir").is_dir()


def test_refuses_an_occupied_port(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PlatformError) as refusal:
            EmbeddedRedis(home, port).start()
    assert str(refusal.value) == (
        f"Redis cannot listen on 127.0.0.1:{port} because the port is in use; "
        "end what uses it or choose another port."
    )


def test_lets_other_machines_in_when_told_to(home: Home) -> None:
    with EmbeddedRedis(home, host="0.0.0.0") as server, redis.Redis.from_url(server.url) as client:
        assert server.address.startswith("redis://127.0.0.1:")
        assert client.config_get("bind") == {"bind": "0.0.0.0"}
        assert client.config_get("protected-mode") == {"protected-mode": "no"}


def test_does_not_pretend_to_let_other_machines_in(home: Home) -> None:
    with EmbeddedRedis(home), pytest.raises(PlatformError, match="already listens on 127"):
        EmbeddedRedis(home, host="0.0.0.0").start()


def test_refuses_a_home_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlatformError) as refusal:
        EmbeddedRedis(Home(tmp_path / "file" / "home")).start()
    assert str(refusal.value).startswith(f"Redis cannot use {tmp_path}/file/home")
    assert str(refusal.value).endswith("(Not a directory).")


def test_says_why_it_ended_and_where_to_read_on(home: Home) -> None:
    (home.state / "redis").mkdir(parents=True)
    (home.state / "redis" / "appendonlydir").write_text("not a directory")
    server = EmbeddedRedis(home)
    with pytest.raises(PlatformError) as refusal:
        server.start()
    assert str(refusal.value).startswith("Redis ended while it started (")
    assert str(refusal.value).endswith(f"; see {server.log}.")
    assert gone(home)
