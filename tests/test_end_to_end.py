"""The main job on the real logs, as a user runs it: every record is accounted for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from malearn.kernel.home import Home
from tests.flows.conftest import MALEARN, clean, processes

ACCEPTED = {"vlm_process": 1218, "llm_process": 644, "llm_fuse2In1": 229, "speech_process": 16}
REJECTED = {
    "no_features": 2003,
    "no_times": 9,
    "skipped": 30,
    "soft_failed": 217,
    "unmapped_function": 900,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("acceptance run") / "home")


@pytest.fixture(scope="module")
def done(home: Home, traces: Path) -> subprocess.CompletedProcess[str]:
    """One run over all the logs, with a fresh home and an empty HOME."""
    files = [str(file) for file in sorted((traces / "maze").glob("run*.jsonl"))]
    return subprocess.run(
        [str(MALEARN), "run", "--home", str(home.root), "--json", "--from", *files],
        cwd=home.root.parent,
        env=clean(home.root.parent),
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )


@pytest.fixture(scope="module")
def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What it printed: JSON and nothing else."""
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_record_is_accounted_for(result: dict[str, Any]) -> None:
    counts = [
        counts[key]
        for counts in result["tool_types"].values()
        for key in ("accepted", "quarantined", "outliers")
    ]
    assert result["records"] == sum(counts) + sum(result["rejected"].values()) == 5266
    assert result["rejected"] == REJECTED
    assert {name: t["accepted"] for name, t in result["tool_types"].items()} == ACCEPTED


def test_a_tool_type_has_a_production_version_or_a_reason_why_not(result: dict[str, Any]) -> None:
    types = result["tool_types"]
    assert all(t["why"] for t in types.values())
    assert types["vlm_process"]["production"]["version"] == 1
    assert types["llm_process"]["production"]["version"] == 1
    assert types["speech_process"]["production"] is None
    assert "16 rows" in types["speech_process"]["why"]


def test_progress_was_shown_calmly(done: subprocess.CompletedProcess[str]) -> None:
    lines = done.stderr.splitlines()
    assert "✓ Ingested 5,266 records: 2,107 accepted, 3,159 kept out" in lines
    assert "✓ vlm_process: version 1 is in Production" in lines
    assert all(line.startswith(("✓ ", "  ")) for line in lines), done.stderr


def test_nothing_is_left_running(done: subprocess.CompletedProcess[str], home: Home) -> None:
    assert processes(home) == set()


def test_all_it_wrote_lies_below_its_home(
    done: subprocess.CompletedProcess[str], home: Home
) -> None:
    """Neither the working directory nor the user's HOME got anything to keep."""
    assert {path.name for path in home.root.parent.iterdir()} == {"home", "user"}
    written = {path.name for path in (home.root.parent / "user").iterdir()}
    assert written <= {".cache", ".config"}
