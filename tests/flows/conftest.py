"""The command as users start it, and small synthetic run logs to feed it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import pytest

from malearn.kernel.home import Home
from tests.conftest import WORKER

MALEARN = Path(sys.executable).with_name("malearn")
Log = Callable[..., Path]
#: The artifacts of a key, newest first.
Artifacts = Callable[[str], list[Any]]


class Cli(Protocol):
    """Runs `malearn` to its end; keywords are environment variables."""

    def __call__(
        self, *words: object, timeout: float = 600, **environment: object
    ) -> subprocess.CompletedProcess[str]: ...


def clean(folder: Path, **environment: object) -> dict[str, str]:
    """The environment of a user who set nothing, with a HOME in which nothing is."""
    ours = ("MALEARN_", "MLFLOW_", "PREFECT_", "GX_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    if "PREFECT_API_URL" in environment and "PREFECT_API_AUTH_STRING" in os.environ:
        kept["PREFECT_API_AUTH_STRING"] = os.environ["PREFECT_API_AUTH_STRING"]  # the session's
    place = folder / "user"
    place.mkdir(exist_ok=True)
    return kept | {"HOME": str(place)} | {key: str(value) for key, value in environment.items()}


class Running:
    """A `malearn` process, with what it has said so far on stderr."""

    def __init__(self, folder: Path, *words: object, **environment: object) -> None:
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [str(MALEARN), *map(str, words)],
            cwd=folder,
            env=clean(folder, **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a terminal of its own, so to speak
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, words: str, seconds: float = 600.0) -> str:
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
        status = self.process.wait(300)
        self._reader.join(120)
        assert self.process.stdout is not None
        with self.process.stdout as out:
            return status, out.read()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.said.append(line)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    def run(
        *words: object, timeout: float = 600, **environment: object
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(MALEARN), *map(str, words)],
            cwd=tmp_path,
            env=clean(tmp_path, **environment),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Writes a `task_exec_result.jsonl` of so many runs, each a first step and a typed task."""

    def write(
        runs: int = 5,
        function: str = "task2_llm_process",
        name: str = "run.jsonl",
        seed: int = 0,
        features: Callable[[random.Random], dict[str, Any]] | None = None,
        **record: Any,
    ) -> Path:
        file = tmp_path / name
        lines = list(records(runs, function, seed, features or _prompt, record))
        file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
        return file

    return write


@pytest.fixture
def artifacts(prefect_api: str) -> Artifacts:
    """The artifacts of a key that flow runs of this worker left, newest first."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterKey,
        FlowRunFilter,
        FlowRunFilterTags,
    )
    from prefect.client.schemas.sorting import ArtifactSort

    def find(key: str) -> list[Any]:
        with get_client(sync_client=True) as client:
            return client.read_artifacts(
                artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])),
                flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[WORKER])),
                sort=ArtifactSort.CREATED_DESC,
            )

    return find


def records(
    runs: int,
    function: str,
    seed: int,
    features: Callable[[random.Random], dict[str, Any]],
    changes: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """The lines of such a log. A task takes as long as its first feature makes it."""
    dice = random.Random(seed)
    clock = 1.7e9 + seed * 1e6
    for _ in range(runs):
        run = str(uuid.UUID(int=dice.getrandbits(128), version=4))
        known = features(dice)
        size = float(next(iter(known.values())))
        seconds = 1.0 + size / 100.0 * dice.uniform(0.95, 1.05)
        said = {"succ_task_feat": {function: known}, "status": "success"}
        yield _line(run, "task1_read_file", said, clock, clock + 0.1)
        task = {"curr_task_feat": known, "status": "success"} | changes
        yield _line(run, function, task, clock + 0.2, clock + 0.2 + seconds)
        clock += 60.0


def _line(
    run: str, function: str, data: dict[str, Any], start: float, end: float
) -> dict[str, Any]:
    return {
        "dag_id": run,
        "task_id": f"{run}-{function}",
        "func_name": function,
        "status": "finished",
        "data": {"start_time": start, "end_time": end, **data},
    }


def _prompt(dice: random.Random) -> dict[str, Any]:
    return {
        "text_length": dice.randint(100, 4000),
        "token_count": dice.randint(20, 900),
        "reason": dice.randint(0, 1),
    }


def processes(home: Home) -> set[str]:
    """The command lines of whatever still runs for `home`; empty is what we want."""
    listed = subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True)
    return {line for line in listed.stdout.splitlines() if str(home.root) in line}
