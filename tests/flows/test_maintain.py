"""The flow that maintains the datasets, and the commands for those who operate them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from malearn.data.dataset import Dataset
from malearn.kernel.errors import InputError, Unreachable
from malearn.kernel.home import Home
from malearn.kernel.tool_types import declared
from tests.flows.conftest import Artifacts, Cli, Log

SPEECH = "task1_speech_process"


def speech(dice: random.Random) -> dict[str, Any]:
    return {"duration": dice.randint(1, 600), "audio_entropy": 3.0, "audio_energy": 5.0}


def test_a_night_of_maintenance_says_what_it_did(
    log: Log,
    home: Home,
    tracking_uri: str,
    prefect_api: str,
    artifacts: Artifacts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from malearn.flows.ingest import ingest
    from malearn.flows.maintain import maintain

    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("MALEARN_KEEP_ROWS", "speech_process=4")
    for seed in range(3):
        ingest([str(log(3, SPEECH, f"{seed}.jsonl", seed, speech))], str(home.root))
    done = {m.name: m for m in maintain(str(home.root), unused_hours=0.0)}
    assert list(done) == [*declared(), "_rejected", "_reports"]
    ours = done["speech_process"]
    assert (ours.rows, ours.rows_deleted, ours.files_compacted > 0, ours.files_vacuumed > 0) == (
        4,
        5,
        True,
        True,
    )
    assert (done["_rejected"].rows, done["_reports"].rows) == (9, 3)
    shown = artifacts("maintenance")[0].data
    assert (
        f"| speech_process | 4 | 5 | {ours.files_compacted} | {ours.files_vacuumed} | – |" in shown
    )
    assert Dataset.open(home, declared()["speech_process"]).rows == 4


def test_without_mlflow_nothing_is_touched(
    home: Home, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from malearn.flows.maintain import maintain

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match="MLflow is needed to know which versions"):
        maintain(str(home.root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(Unreachable, match=r"MLflow at .* cannot be reached"):
        maintain(str(home.root))
    with pytest.raises(InputError, match="MALEARN_KEEP_DAYS: there is no 'speech'"):
        monkeypatch.setenv("MALEARN_KEEP_DAYS", "speech=3")
        maintain(str(home.root))
    assert not home.data.exists()


def test_quarantine_is_looked_at_and_let_in_from_the_command_line(
    cli: Cli, log: Log, home: Home, tmp_path: Path, prefect_api: str
) -> None:
    """A bound that was too low, and a tool type that nobody had declared."""
    from malearn.flows.ingest import ingest

    files = [log(3, SPEECH, features=lambda dice: speech(dice) | {"duration": 90_000})]
    files += [log(2, "cut_film", "films.jsonl", 1, lambda dice: {"frames": dice.randint(1, 9)})]
    ingest([str(file) for file in files], str(home.root))

    where = ("--home", home.root)
    seen = json.loads(cli("data", "quarantine", "speech_process", "--json", *where).stdout)
    assert (seen["count"], seen["reasons"]) == (3, {"invalid_feature": 3})
    assert "duration" in str(seen["by"])
    assert seen["newest"][0]["function"] == SPEECH
    shown = cli("data", "quarantine", "--limit", 1, *where)
    assert "10 kept out" in shown.stdout and "unmapped_function" in shown.stdout
    wrong = cli("data", "quarantine", "--reason", "mood", *where)
    assert wrong.returncode == 2 and "is not a reason code" in wrong.stderr

    (tmp_path / "malearn.toml").write_text(
        "[speech_process.features]\nduration = { min = 0, max = 100000 }\n"
        "audio_entropy = { min = 0 }\naudio_energy = { min = 0 }\n\n"
        '[film]\nfunctions = ["cut_film"]\nfeatures.frames = {}\n'
    )
    done = cli("data", "quarantine", "--retry", "--json", *where)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["accepted"] == {"film": 2, "speech_process": 3}
    assert answer["still"] == {"no_features": 5}


def test_limits_that_cannot_be_meant_are_refused_before_any_server_starts(
    cli: Cli, home: Home
) -> None:
    done = cli("data", "maintain", "--keep-days", "speech=3", "--home", home.root)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--keep-days: there is no 'speech'" in done.stderr
    assert not home.state.exists()
