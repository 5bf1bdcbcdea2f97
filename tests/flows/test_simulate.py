"""`malearn simulate` prints what predictions would have gained; JSON is all that stdout carries."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from typer.testing import CliRunner

from malearn.data import run_logs
from malearn.data.ingest import Ingest
from malearn.flows.commands import app
from malearn.kernel.home import Home
from malearn.kernel.tool_types import declared
from tests.malearn.learning.test_simulation import DEFINITIONS, write_log


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    write_log(folder, 1, workflows=8)
    (folder / "workflows.json").write_text(json.dumps(DEFINITIONS))
    return folder


def run(place: Path, *options: str) -> tuple[int, str, str]:
    given = ["--from", str(place / "run1.jsonl"), "--workflows", str(place / "workflows.json")]
    done = CliRunner().invoke(app, ["simulate", *given, "--no-mlflow", *options])
    return done.exit_code, done.stdout, done.stderr


def test_the_result_has_every_policy_and_predictor(place: Path) -> None:
    code, out, _ = run(place, "--slots", "gpu=2,io=4", "--load", "recorded", "--seeds", "1",
                       "--json")  # fmt: skip
    assert code == 0
    found = json.loads(out)
    assert found["workflows"] == 8
    assert list(found) == ["workflows", "policies", "settings"]
    assert found["settings"] == {
        "slots": {"gpu": 2, "io": 4},
        "loads": ["recorded"],
        "seeds": 1,
        "deadlines": [2.0, 1.5, 3.0],
        "runs": ["run1.jsonl"],
    }
    assert set(found["policies"]) == {
        "fcfs", "arrival", "fewest_tasks", "daps", "hacs", "edf", "srw", "aged", "triage",
    }  # fmt: skip
    for predictors in found["policies"].values():
        assert set(predictors) == {
            "default", "function_ema", "malearn", "noise_limited", "oracle",
        }  # fmt: skip
        for row in predictors.values():
            assert set(row) == {"mean", "p95", "late", "gain"}
            assert set(row["gain"]) == {"mean", "low", "high"}
            # Of one run its workflows are drawn, and these take different times.
            assert row["gain"]["low"] <= row["gain"]["mean"] <= row["gain"]["high"]
            assert 0.0 <= row["late"] <= 1.0


def test_people_read_a_table(place: Path) -> None:
    code, out, _ = run(place, "--seeds", "1", "--slots", "gpu=2")
    assert code == 0
    assert "8 workflows, deadline 2 × path" in out
    assert "1 run, 1 seed, load 0.9; slots gpu=2" in out
    assert "malearn ←" in out
    assert "95 % interval over the workflows of one run" in " ".join(out.split())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--slots", "gpu"], "--slots must be like gpu=8,cpu=16, not 'gpu'"),
        (["--slots", "gpu=8,gpu=4"], "--slots names gpu twice"),
        (["--slots", "gpu=8,io=1,GPU=8"], "--slots names gpu twice"),
        (["--load", "much"], "--load must be a number of at least 0.01 or 'recorded', not 'much'"),
        (["--load", "0.9", "--load", "1.1", "--load", "0.90"], "--load names 0.90 twice"),
        (["--load", "recorded", "--load", "recorded"], "--load names recorded twice"),
        (["--load", "1e-300"], "--load must be a number of at least 0.01 or 'recorded'"),
        (["--seeds", "0"], "must be 1 or more"),
        (["--deadline", "nan"], "must be 0.1 or more, not nan"),
        (["--deadline", "inf"], "must be at most 1,000,000,000, not inf"),
    ],
)
def test_wrong_usage_is_said_in_a_sentence(place: Path, options: list[str], problem: str) -> None:
    code, _, error = run(place, *options)
    assert code == 2
    assert problem in " ".join(error.replace("│", " ").split())


@pytest.mark.parametrize("source", [["--dataset"], ["--maze", "."], ["--dataset", "--maze", "."]])
def test_definitions_of_workflows_are_refused_where_no_log_is_given(source: list[str]) -> None:
    done = CliRunner().invoke(app, ["simulate", *source, "--workflows", "/nonexistent.json"])
    assert done.exit_code == 2
    said = " ".join(done.stderr.replace("│", " ").split())
    assert "--workflows goes with --from" in said


@pytest.mark.parametrize("slots", ["gpuu=1", "gpu=1,cpuu=2", "cpu=1"])
def test_slots_that_no_task_waits_for_are_refused(place: Path, slots: str) -> None:
    code, out, error = run(place, "--slots", slots)
    unused = slots.rpartition(",")[2].partition("=")[0]
    assert (code, out) == (1, "")
    said = f"slots: no task of these workflows runs on {unused}; they run on gpu, io."
    assert said in " ".join(error.split())


def test_slots_of_processors_may_be_given_though_no_task_needs_one(place: Path) -> None:
    code, out, _ = run(place, "--slots", "gpu=2,cpu=16", "--json", "--seeds", "1")
    assert code == 0
    assert json.loads(out)["workflows"] == 8


def test_without_definitions_workflows_are_inferred_from_the_logs(place: Path) -> None:
    given = ["simulate", "--from", str(place / "run1.jsonl"), "--no-mlflow", "--json"]
    done = CliRunner().invoke(app, [*given, "--seeds", "1", "--slots", "gpu=2"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["workflows"] == 8


def test_the_datasets_of_a_home_are_simulated_without_any_log(place: Path, tmp_path: Path) -> None:
    ingest = Ingest(Home.find(tmp_path), declared())
    for batch in run_logs.read([place / "run1.jsonl"]):
        ingest.take(batch, "log")
    given = ["simulate", "--dataset", "--home", str(tmp_path), "--no-mlflow", "--json"]
    done = CliRunner().invoke(app, [*given, "--seeds", "1", "--slots", "gpu=2"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["workflows"] == 8


def test_people_read_why_there_are_no_intervals(place: Path, tmp_path: Path) -> None:
    other = write_log(tmp_path, 2, workflows=3)
    loads = ("--load", "0.7", "--load", "recorded")
    code, out, _ = run(place, str(other), "--seeds", "1", "--slots", "gpu=2", *loads)
    assert code == 0
    assert "2 runs, 1 seed, all loads together: 0.7, recorded; slots gpu=2" in out
    assert "no 95 % interval of fewer than 5 runs" in " ".join(out.split())


def test_one_workflow_is_spoken_of_as_one(tmp_path: Path) -> None:
    log = write_log(tmp_path, 1, workflows=1)
    other = {"task_id": f"{uuid.UUID(int=1)}-other", "func_name": "other"}
    times = {"start_time": 1.7e9, "end_time": 1.7e9 + 1.0}
    log.write_text(f"{log.read_text()}{json.dumps({**other, 'data': times})}\n")
    (tmp_path / "workflows.json").write_text(json.dumps(DEFINITIONS))
    code, out, error = run(tmp_path, "--seeds", "1", "--slots", "gpu=2")
    assert (code, out.splitlines()[0]) == (0, "1 workflow, deadline 2 × path")
    assert "Simulated 1 workflow\n" in error
    assert "1 logged workflow left out: its functions match no definition" in error


def test_the_default_of_the_load_is_shown_as_it_is_typed() -> None:
    shown = " ".join(CliRunner().invoke(app, ["simulate", "--help"]).stdout.split())
    assert "Repeat for several. [default: 0.9]" in shown


def test_a_log_and_the_dataset_that_it_was_ingested_into_count_once(
    place: Path, tmp_path: Path
) -> None:
    ingest = Ingest(Home.find(tmp_path), declared())
    for batch in run_logs.read([place / "run1.jsonl"]):
        ingest.take(batch, "log")
    code, out, error = run(place, "--dataset", "--home", str(tmp_path), "--json", "--seeds", "1")
    assert code == 0
    assert json.loads(out)["workflows"] == 8
    left_out = "8 logged workflows left out: the same run was read before"
    assert left_out in " ".join(error.split())
