"""docs/data-scientists.md: its commands and snippets, run as they stand, by a person who has two
versions and only the documentation."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path

import mlflow
import pytest
from typer.testing import CliRunner

from malearn.data.dataset import Dataset
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolTypes, declared
from malearn.learning import matrix
from malearn.lifecycle import mlflow_connection, promotion, training
from tests.malearn.conftest import draw

PAGE = Path(__file__).parents[1] / "docs" / "data-scientists.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: A tool type of this module alone stands for the one of the page: the same server has others.
SHOWN, TOOL = "llm_process", "bench_process"
DECLARATION = f"""
[{TOOL}.features]
text_length = {{ min = 0, max = 100000 }}
token_count = {{ min = 0, max = 100000 }}
"""


@pytest.fixture(scope="module")
def worst(tracking_uri: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory):
    """A home with two versions, the environment that points at it, and the id of its worst task."""
    home = Home(tmp_path_factory.mktemp("bench"))
    types = home.root / "types.toml"
    types.write_text(DECLARATION)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MALEARN_TOOL_TYPES", str(types))
        patch.setenv("MALEARN_HOME", str(home.root))
        patch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
        patch.setenv("MALEARN_REDIS_URL", redis_url)
        patch.chdir(home.root)
        mlflow_connection.connect(tracking_uri)
        tool_type = declared()[TOOL]
        dataset = Dataset.open(home, tool_type)
        drawn = draw(tool_type, 240)
        for count, family in ((120, "linear"), (240, "xgboost")):
            dataset.append(drawn[:count])
            rows = matrix.build(tool_type, dataset.read())
            source = training.DatasetVersion(str(dataset.path), dataset.version or 0)
            trained = training.train(rows, ToolTypes([tool_type]), source, families=(family,))
            promotion.promote(rows, trained.version or 0, bypass_gate=True)
        table = mlflow.load_table("explanations.json", [trained.run_id])
        yield table[table["which"] == "worst 1"]["task"].iloc[0]


def commands() -> list[str]:
    """The lines that a reader types."""
    blocks = [text for language, text in BLOCK.findall(PAGE.read_text("utf-8")) if not language]
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture(scope="module")
def printed(worst: str) -> list[str]:
    """What each of them prints."""
    from malearn.flows.commands import app

    said = []
    for line in commands():
        words = shlex.split(line.replace("TASK_ID", worst).replace(SHOWN, TOOL))
        assert words[0] == "malearn"
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, (line, done.output, done.exception)
        said.append(done.stdout)
    return said


def test_the_comparison_ends_in_a_verdict_and_a_page(printed: list[str]) -> None:
    assert "version 2" in printed[0]
    assert "steady" in printed[0]
    (run_id,) = re.findall(r"/runs/([0-9a-f]{32})", printed[0])
    page = mlflow.artifacts.load_text(f"runs:/{run_id}/comparison.html")
    assert "By function" in page


def test_a_prediction_is_explained_down_to_its_interval(printed: list[str]) -> None:
    assert "model: text_length" in printed[1]
    assert "the model version 2 answered" in printed[1]
    assert "Why this interval" in printed[1]


def test_the_worst_prediction_is_explained_against_its_outcome(printed: list[str]) -> None:
    assert "It took" in printed[2]
    assert "exact Shapley values" in printed[2]
    assert Path("why.png").stat().st_size > 10_000


def test_as_json_the_terms_sum_to_the_prediction(printed: list[str], worst: str) -> None:
    from malearn.flows.commands import app

    done = CliRunner().invoke(app, ["explain", "--task", worst, "--json"])
    found = json.loads(done.stdout)
    seconds = math.exp(sum(term["log_seconds"] for term in found["terms"]))
    assert seconds == pytest.approx(found["prediction"]["seconds"], rel=1e-4)
    assert found["task_id"] == worst
    unknown = CliRunner().invoke(app, ["explain", "--task", "nobody"])
    assert unknown.exit_code == 1


@pytest.mark.filterwarnings("ignore")  # MLflow calls pandas in ways that pandas deprecates
def test_the_snippets_run_as_they_stand(printed: list[str], capsys) -> None:
    snippets = [t for language, t in BLOCK.findall(PAGE.read_text("utf-8")) if language == "python"]
    assert len(snippets) == 2
    uri = mlflow.get_tracking_uri()
    names: dict[str, object] = {}
    for snippet in snippets:
        text = snippet.replace("http://127.0.0.1:5000", uri).replace(SHOWN, TOOL)
        exec(compile(text, str(PAGE), "exec"), names)
    assert "seconds" in capsys.readouterr().out
