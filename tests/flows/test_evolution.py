"""A declaration that gains and loses a feature: nothing is lost, nothing stops, all can see it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from malearn import DAGTaskPredictor
from malearn.data.dataset import Dataset
from malearn.kernel.home import Home
from malearn.kernel.tool_types import declared
from tests.flows.conftest import Artifacts, Log

TOOL = "evolving_process"
BEFORE = f"[{TOOL}.features]\nlength = {{}}\nwidth = {{}}\n"
AFTER = f"[{TOOL}.features]\nlength = {{}}\npages = {{}}\n"


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def write(text: str) -> None:
        (tmp_path / "types.toml").write_text(text)
        monkeypatch.setenv("MALEARN_TOOL_TYPES", str(tmp_path / "types.toml"))

    return write


def sheet(dice: random.Random) -> dict[str, Any]:
    numbers = (("length", 5000), ("width", 80), ("pages", 9))
    return {name: dice.randint(1, most) for name, most in numbers}


def test_a_feature_comes_and_another_goes(
    declare: Callable[[str], None],
    log: Log,
    home: Home,
    tracking_uri: str,
    prefect_api: str,
    artifacts: Artifacts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow

    from malearn.flows.ingest import ingest
    from malearn.flows.promote import promote
    from malearn.flows.train import train

    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    place = str(home.root)
    declare(BEFORE)
    ingest([str(log(80, TOOL, "before.jsonl", 0, sheet))], place)
    first = train(TOOL, place, ["linear"])
    assert (first.version, first.schema_changes) == (1, ())
    assert promote(TOOL, 1, place, bypass_gate=True).promoted

    declare(AFTER)
    with DAGTaskPredictor("redis://127.0.0.1:1", tracking_uri, cache_dir=home.cache) as predictor:
        predictor.wait_until_ready(120)
        answer = predictor.estimate(TOOL, "gpu", features={"length": 900, "pages": 3})
    assert (answer.source, answer.model_version) == ("model", 1)

    ingest([str(log(80, TOOL, "after.jsonl", 1, sheet))], place)
    dataset = Dataset.open(home, declared()[TOOL])
    rows = dataset.read()
    assert len(rows) == 160
    assert all(math.isnan(e.ran[1]) for e in rows[:80])
    assert not any(math.isnan(value) for e in rows[80:] for value in e.ran)

    second = train(TOOL, place, ["linear"])
    model = "the serving model (v1)"
    assert second.schema_changes == (
        f"pages was added in dataset version {dataset.version}; {model} was trained without it",
        f"width was removed; {model} treats it as missing for every task",
    )
    assert "incumbent v1" in (second.scores or {})
    run = mlflow.get_run(second.run_id)
    assert run.data.tags["malearn.features_added"] == f"pages (dataset v{dataset.version})"
    assert run.data.tags["malearn.features_removed"] == "width"
    assert "Pages was added in" in run.data.tags["mlflow.note.content"]
    assert second.schema_changes[0] in artifacts("training-evolving-process")[0].data
