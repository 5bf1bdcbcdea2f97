"""docs/tour.py, as a data scientist runs it: on a real MLflow, after a retraining."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from malearn.data.dataset import Dataset
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolTypes, declared
from malearn.learning import matrix
from malearn.lifecycle import promotion, training

TOUR = Path(__file__).parents[2] / "docs" / "tour.py"


@pytest.fixture
def types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "types.toml"
    file.write_text("[toured_process.features]\nwords = { min = 0, max = 5000 }\n")
    monkeypatch.setenv("MALEARN_TOOL_TYPES", str(file))
    return file


def test_the_tour_ends_well_and_shows_what_it_promises(
    types: Path, connected: str, synthetic, home: Home, tmp_path: Path
) -> None:
    tool_type = declared()["toured_process"]
    dataset = Dataset.open(home, tool_type)
    dataset.append(synthetic(tool_type, 160, noise=0.02))
    rows = matrix.build(tool_type, dataset.read())
    source = training.DatasetVersion(str(dataset.path), dataset.version)
    trained = training.train(rows, ToolTypes([tool_type]), source, families=("linear",))
    assert promotion.promote(rows, trained.version, bypass_gate=True).promoted

    environment = {"MALEARN_HOME": str(home.root), "MLFLOW_TRACKING_URI": connected}
    environment["MLFLOW_REGISTRY_URI"] = connected  # another test may have left its own
    done = subprocess.run(
        [sys.executable, TOUR, "toured_process"],
        env=os.environ | environment,
        cwd=tmp_path,  # from any directory
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for shown in (
        "retraining on data v",
        "plots/all_candidates.png",
        "explanations/worst_1.png",
        "Version 1",
        "s predicted,",
        "function_median",
    ):
        assert shown in done.stdout
