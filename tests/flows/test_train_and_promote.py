"""From trained to served: `malearn train --promote`, and `malearn promote` without a version."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

from malearn.flows.commands import app
from malearn.kernel.home import Home
from tests.flows.conftest import Log

TOOL = "promoted_process"


def malearn(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def _length(source: Random) -> dict[str, Any]:
    return {"length": source.randint(10, 100_000)}


def test_training_says_what_to_do_next_and_promotion_finds_what_passed(
    tmp_path: Path,
    home: Home,
    log: Log,
    tracking_uri: str,
    prefect_api: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from malearn.flows.ingest import ingest

    file = tmp_path / "types.toml"
    file.write_text(f'[{TOOL}]\nresource = "cpu"\n[{TOOL}.features]\nlength = {{ min = 0 }}\n')
    monkeypatch.setenv("MALEARN_TOOL_TYPES", str(file))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    train = ("train", TOOL, "--family", "linear", "--home", home.root)

    early = malearn(*train)
    assert early.exit_code == 0
    assert f"Next: ingest more logs of {TOOL}" in early.stdout
    refused = malearn("promote", TOOL, "--home", home.root)
    assert refused.exit_code == 1
    assert "no version has passed the promotion gate" in " ".join(refused.stderr.split())

    ingest([str(log(80, f"task2_{TOOL}", features=_length))], str(home.root))
    trained = malearn(*train)
    assert f"`malearn promote {TOOL}` puts version 1 into Production" in trained.stdout
    promoted = json.loads(malearn("promote", TOOL, "--home", home.root, "--json").stdout)
    assert (promoted["version"], promoted["promoted"]) == (1, True)
    assert "by hand" not in {reason["check"] for reason in promoted["reasons"]}

    again = json.loads(malearn(*train, "--promote", "--json").stdout)[TOOL]
    # The same rows again: whether it beats itself is the gate's to say.
    assert again["promoted"] == again["promote"]
