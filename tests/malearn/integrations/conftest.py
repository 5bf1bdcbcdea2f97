"""A small stand-in for Maze with the names and signatures of its head process, and no others."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from malearn import maze

_FILES = {
    "maze/__init__.py": "",
    "maze/core/__init__.py": "",
    "maze/core/scheduler/__init__.py": "",
    "maze/core/path/__init__.py": "",
    "maze/cli/__init__.py": "",
    "maze/core/scheduler/runtime_estimator.py": """
from dataclasses import dataclass

DEFAULTS = {"gpu": 60.0, "cpu": 30.0, "io": 10.0}


@dataclass(frozen=True)
class RuntimePrediction:
    predicted_duration: float
    prediction_source: str
    confidence: float
    sample_count: int
    task_kind: str
    code_hash: str | None = None


class RuntimeEstimator:
    def __init__(self, *, defaults=None, alpha=0.2):
        self.defaults, self.alpha = dict(defaults or DEFAULTS), alpha
        self.averages = {}
        self.broken = None

    def predict(self, task):
        if isinstance(self.broken, Exception):
            raise self.broken
        kind = task.task_kind
        seconds, source = self.defaults[kind], "task_kind_default"
        if kind in self.averages:
            seconds, source = self.averages[kind], "task_kind_ema"
        if self.broken is not None:
            seconds = self.broken
        return RuntimePrediction(seconds, source, 0.0, 0, kind, "hash")

    def observe_task(self, task, seconds, *, success=True):
        if success:
            before = self.averages.get(task.task_kind, seconds)
            self.averages[task.task_kind] = self.alpha * seconds + (1 - self.alpha) * before
""",
    "maze/core/path/path.py": """
from maze.core.scheduler.runtime_estimator import RuntimeEstimator


class MaPath:
    def __init__(self):
        self.runtime_estimator = RuntimeEstimator()
        self.static_runs = {}

    def _static_scheduling_context(self, workflow, task_id, submit_id):
        return self._context(workflow.tasks[task_id])

    def _dynamic_scheduling_context(self, dynamic_run, task):
        return self._context(task)

    def _context(self, task):
        found = self.runtime_estimator.predict(task)
        return {
            "predicted_duration": found.predicted_duration,
            "prediction_source": found.prediction_source,
            "prediction_confidence": found.confidence,
            "prediction_sample_count": found.sample_count,
            "code_hash": found.code_hash,
        }

    def _observe_task_runtime(self, task, message_data, *, success):
        seconds = message_data["finished_at"] - message_data["started_at"]
        self.runtime_estimator.observe_task(task, seconds, success=success)
""",
    "maze/core/server.py": """
from maze.core.path.path import MaPath

mapath = MaPath()
""",
    "maze/cli/cli.py": """
import subprocess
import sys


def main():
    if "--detach" in sys.argv:
        rest = [word for word in sys.argv[1:] if word != "--detach"]
        process = subprocess.Popen([sys.executable, "-m", "maze.cli.cli", *rest])
        sys.exit(process.wait())
    from maze.core.server import mapath

    print(type(mapath.runtime_estimator).__name__, *sys.argv[1:])


if __name__ == "__main__":
    main()
""",
}


@pytest.fixture
def maze_files(tmp_path: Path) -> Path:
    """A directory that holds the package `maze`."""
    place = tmp_path / "site"
    for name, text in _FILES.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return place


@pytest.fixture
def head(maze_files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Any]]:
    """Starts a head process's `MaPath`, importing Maze as a head does."""
    monkeypatch.syspath_prepend(maze_files)

    def start() -> Any:
        return importlib.import_module("maze.core.server").mapath

    yield start
    maze.uninstall()
    for name in [name for name in sys.modules if name.partition(".")[0] == "maze"]:
        del sys.modules[name]
