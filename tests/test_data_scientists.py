"""docs/data-scientists.md: its commands and snippets, run as they stand, by a person who has two
versions and only the documentation. What `train`, `tuned`, `compare` and `explain` print."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run
from typer.testing import CliRunner

from malearn.data.dataset import Dataset
from malearn.kernel import tool_types
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolTypes, declared
from malearn.learning import matrix
from malearn.lifecycle import mlflow_connection, promotion, training
from tests.malearn.conftest import draw

DOCS = Path(__file__).parents[1] / "docs"
PAGE, FAMILY_PAGE = DOCS / "data-scientists.md", DOCS / "adding-a-family.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: A tool type of this module alone stands for the one of the page: the same server has others.
SHOWN, TOOL = "llm_process", "bench_process"
#: So does a module, which a process imports once.
SHOWN_MODULE, MODULE = "own_models", "bench_models"
DECLARATION = f"""
[{TOOL}.features]
text_length = {{ min = 0, max = 100000 }}
token_count = {{ min = 0, max = 100000 }}
# To be improved on:
[{TOOL}.hyperparameters.ridge]
alpha = 1000.0
"""


@pytest.fixture(scope="module")
def worst(
    tracking_uri: str, prefect_api: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
):
    """A home with two versions, the environment that points at it, and the id of its worst task."""
    home = Home(tmp_path_factory.mktemp("bench"))
    types = home.root / "types.toml"
    types.write_text(f"{block(PAGE, 'toml')}{DECLARATION}".replace(SHOWN_MODULE, MODULE))
    (home.root / f"{MODULE}.py").write_text(block(FAMILY_PAGE, "python"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MALEARN_TOOL_TYPES", str(types))
        patch.setenv("MALEARN_HOME", str(home.root))
        patch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
        patch.setenv("MALEARN_REDIS_URL", redis_url)
        patch.setenv("PREFECT_API_URL", prefect_api)
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


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a page that are in `language`."""
    return [text for kind, text in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def block(page: Path, language: str) -> str:
    return blocks(page, language)[0]


def commands() -> list[str]:
    """The lines that a reader types."""
    return [line for text in blocks(PAGE, "") for line in text.splitlines()]


@pytest.fixture(scope="module")
def printed(worst: str) -> dict[str, str]:
    """What each of them prints."""
    from malearn.flows.commands import app

    said = {}
    for line in commands():
        words = shlex.split(line.replace("TASK_ID", worst).replace(SHOWN, TOOL))
        assert words[0] == "malearn"
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, (line, done.output, done.exception)
        said[line] = done.stdout
    return said


def of(printed: dict[str, str], words: str) -> str:
    """What the one command printed that holds `words`."""
    (said,) = (text for line, text in printed.items() if words in line)
    return said


def newest_run(name: str) -> Run:
    """The newest run of the tool type whose name begins with `name`."""
    client = mlflow.MlflowClient()
    experiment = mlflow.get_experiment_by_name(declared()[TOOL].registered_model)
    return client.search_runs([experiment.experiment_id], f"attributes.run_name LIKE '{name}%'")[0]


def test_families_of_others_and_of_ones_own_are_candidates_like_any_other(
    printed: dict[str, str],
) -> None:
    assert "model families: xgboost, mlp, linear, lightgbm, ridge" in of(printed, "doctor")
    said = of(printed, "--family lightgbm --family ridge")
    for name in ("lightgbm", "ridge"):
        assert newest_run(f"{name} on data").data.metrics["test/mae"] > 0
    assert "function_median" in said


def test_what_a_search_found_is_shown_and_kept(printed: dict[str, str]) -> None:
    said = of(printed, "--tune")
    assert "ridge tuned" in said
    search = newest_run("search ridge")
    assert search.data.metrics["trial/count"] == 8
    assert search.data.metrics["validation/mae"] < search.data.metrics["validation/declared_mae"]
    assert "alpha" in of(printed, "tuned llm_process --keep")
    declaration = tool_types.declaration_file().read_text()
    assert "# To be improved on:" in declaration
    kept = declared()[TOOL].hyperparameters["ridge"]["alpha"]
    assert kept == pytest.approx(float(search.data.params["alpha"]))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--rows 200", "the newest 200 rows"),
        ("--since 2023-11-14", "since 2023-11-14 00:00 UTC"),
        ("--data-version 1", "dataset version 1"),
    ],
)
def test_a_part_of_the_data_is_an_experiment(
    printed: dict[str, str], option: str, words: str
) -> None:
    said = of(printed, option)
    assert words in said
    assert "only `malearn promote` may let it serve" in " ".join(said.split())
    run = newest_run("experiment on ")
    assert run.data.tags["malearn.promote"] == "false"


def test_the_comparison_ends_in_a_verdict_and_a_page(printed: dict[str, str]) -> None:
    said = of(printed, "compare llm_process 1 Production")
    assert "version 2" in said
    assert "steady" in said
    (run_id,) = re.findall(r"/runs/([0-9a-f]{32})", said)
    page = mlflow.artifacts.load_text(f"runs:/{run_id}/comparison.html")
    assert "By function" in page


@pytest.mark.parametrize(
    ("versions", "status", "sentence"),
    [
        ("2 Production", 1, "2 and Production: both are version 2."),
        ("Previous previous", 2, "give two different versions"),
        ("1 Staging", 2, "must be the number of a version or Production, Previous, Candidate"),
    ],
)
def test_what_cannot_be_compared_is_said(
    printed: dict[str, str], versions: str, status: int, sentence: str
) -> None:
    from malearn.flows.commands import app

    done = CliRunner().invoke(app, ["compare", TOOL, *versions.split()])
    assert done.exit_code == status
    assert sentence in " ".join(done.output.split())


def test_a_prediction_is_explained_down_to_its_interval(printed: dict[str, str]) -> None:
    said = of(printed, "text_length=1200")
    assert "model: text_length" in said
    assert "the model version 2 answered" in said
    assert "Why this interval" in said


def test_the_worst_prediction_is_explained_against_its_outcome(printed: dict[str, str]) -> None:
    said = of(printed, "--plot")
    assert "It took" in said
    assert "exact Shapley values" in said
    assert Path("why.png").stat().st_size > 10_000


def test_as_json_the_terms_sum_to_the_prediction(printed: dict[str, str], worst: str) -> None:
    from malearn.flows.commands import app

    done = CliRunner().invoke(app, ["explain", "--task", worst, "--json"])
    found = json.loads(done.stdout)
    seconds = math.exp(sum(term["log_seconds"] for term in found["terms"]))
    assert seconds == pytest.approx(found["prediction"]["seconds"], rel=1e-4)
    assert found["task_id"] == worst
    unknown = CliRunner().invoke(app, ["explain", "--task", "nobody"])
    assert unknown.exit_code == 1


@pytest.mark.filterwarnings("ignore")  # MLflow calls pandas in ways that pandas deprecates
def test_the_snippets_run_as_they_stand(printed: dict[str, str], capsys) -> None:
    snippets = blocks(PAGE, "python")
    assert len(snippets) == 2
    uri = mlflow.get_tracking_uri()
    names: dict[str, object] = {}
    for snippet in snippets:
        text = snippet.replace("http://127.0.0.1:5000", uri).replace(SHOWN, TOOL)
        exec(compile(text, str(PAGE), "exec"), names)
    assert "seconds" in capsys.readouterr().out
