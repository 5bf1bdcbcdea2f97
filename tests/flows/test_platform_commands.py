"""Commands that stay for a while: `malearn up`, and Ctrl-C in the middle of things."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from malearn.home import Home
from tests.flows.conftest import MALEARN, Log, clean, processes


class Running:
    """A `malearn` process, with what it has said so far on stderr."""

    def __init__(self, folder: Path, *words: object) -> None:
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [str(MALEARN), *map(str, words)],
            cwd=folder,
            env=clean(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a terminal of its own, so to speak
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, words: str, seconds: float = 120.0) -> str:
        """The line that holds `words`, once it has been said."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (self._reader.is_alive() or self.said):
            for line in list(self.said):
                if words in line:
                    return line
            time.sleep(0.05)
        raise AssertionError("".join(self.said))

    def ctrl_c(self) -> tuple[int, str]:
        """Ctrl-C, which reaches all of a terminal's processes; status and stdout."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.end()

    def end(self) -> tuple[int, str]:
        status = self.process.wait(60)
        self._reader.join(10)
        assert self.process.stdout is not None
        with self.process.stdout as out:
            return status, out.read()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.said.append(line)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[list[Running]]:
    """What a test started; ended, should the test have failed to."""
    started: list[Running] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.end()


def test_up_serves_everything_until_ctrl_c(
    running: list[Running], tmp_path: Path, home: Home
) -> None:
    up = Running(tmp_path, "up", "--home", home.root)
    running.append(up)
    mlflow = up.wait_for("MLflow   http").split()[-1]
    prefect = up.wait_for("Prefect  http").split()[-1]
    up.wait_for("Ctrl-C stops everything")
    for address in (f"{mlflow}/health", f"{prefect}/api/health", mlflow, prefect):
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert answer.status == 200
    names: set[str] = set()
    deadline = time.monotonic() + 30
    while len(names) < 4 and time.monotonic() < deadline:
        names = {d["entrypoint"] for d in deployments(f"{prefect}/api")}
        time.sleep(0.2)
    assert names == {f"flows.{name}.{name}" for name in ("ingest", "train", "promote", "lifecycle")}
    assert completes(f"{prefect}/api", "flows.ingest.ingest")
    assert up.ctrl_c() == (0, "")
    assert processes(home) == set()
    assert not [line for line in up.said if "Traceback" in line], up.said


def test_ctrl_c_stops_a_run_and_leaves_nothing_running(
    running: list[Running], log: Log, tmp_path: Path, home: Home
) -> None:
    run = Running(tmp_path, "run", "--from", log(80), "--home", home.root, "--json")
    running.append(run)
    run.wait_for("Fitting")
    assert run.ctrl_c() == (130, "")
    assert run.said[-1] == "malearn: stopped\n"
    assert not [line for line in run.said if "Traceback" in line], run.said
    assert processes(home) == set()


def deployments(api: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = post(f"{api}/deployments/filter", {})
    return found


def completes(api: str, entrypoint: str, seconds: float = 90.0) -> bool:
    """Whether a run of that deployment, asked for now, is executed and ends well."""
    (chosen,) = (d for d in deployments(api) if d["entrypoint"] == entrypoint)
    asked = {"state": {"type": "SCHEDULED"}}
    run = post(f"{api}/deployments/{chosen['id']}/create_flow_run", asked)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = ask(f"{api}/flow_runs/{run['id']}")["state_type"]
        if state in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}:
            return bool(state == "COMPLETED")
        time.sleep(0.5)
    return False


def post(url: str, body: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    return ask(urllib.request.Request(url, json.dumps(body).encode(), headers))


def ask(what: str | urllib.request.Request, tries: int = 20) -> Any:
    """What Prefect answers; while its database is busy it says 503 and means: again, please."""
    for _ in range(tries):
        try:
            with urllib.request.urlopen(what, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            error.close()
            time.sleep(1)
    raise TimeoutError(f"{what} stayed busy")
