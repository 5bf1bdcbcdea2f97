"""Whatever the command is given, it answers with one sentence and an exit status."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import Cli, Log

NOWHERE = "http://127.0.0.1:1"


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a refusal, after a look that it is one."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("malearn: ")]
    assert (done.returncode, done.stdout, len(lines)) == (1, "", 1), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith(f"{lines[0]}\n")
    return lines[0]


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no JSONL": (
        lambda file: file.write_text("once upon\na time\n"),
        "is no task_exec_result.jsonl: not one of its 2 lines is a task's record",
    ),
    "binary": (lambda file: file.write_bytes(bytes(range(256))), "is no task_exec_result.jsonl"),
    "missing": (lambda file: None, "does not exist"),
    "a directory": (lambda file: file.mkdir(), "cannot be read (Is a directory)"),
    "empty": (lambda file: file.touch(), "there is no record in it"),
}


@pytest.mark.parametrize(
    ("command", "case"),
    [(("run", "--from"), case) for case in FILES]
    + [(("ingest",), "no JSONL"), (("data", "import"), "no JSONL")],
)
def test_a_file_that_is_no_run_log_is_refused_before_any_server_starts(
    command: tuple[str, ...], case: str, cli: Cli, tmp_path: Path
) -> None:
    make, sentence = FILES[case]
    file = tmp_path / "log.jsonl"
    make(file)
    answer = refused(cli(*command, file, "--home", tmp_path / "home"))
    assert answer.startswith(f"malearn: {file}: ")
    assert sentence in answer
    assert not (tmp_path / "home").exists()


TOOL = "malearn: There is no tool type 'nonsense'; declared are llm_fuse2In1, "
WORDS: dict[tuple[str, ...], str] = {
    ("train", "nonsense"): TOOL,
    ("promote", "nonsense", "1"): TOOL,
    ("rollback", "nonsense"): TOOL,
    ("data", "export", "nonsense"): TOOL,
    ("data", "history", "nonsense"): TOOL,
    ("data", "import", "table.csv", "--tool", "nonsense"): TOOL,
    ("data", "export", "llm_process"): "malearn: Dataset llm_process: ",
    (
        "data",
        "import",
        "llm.csv",
    ): "malearn: llm.csv: is named after no tool type ('llm'); say with",
    ("data", "import", "llm_process.csv"): "malearn: llm_process.csv: does not exist.",
}


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_a_name_that_nobody_declared_is_refused(
    words: tuple[str, ...], cli: Cli, tmp_path: Path
) -> None:
    assert refused(cli(*words, "--home", tmp_path / "home")).startswith(WORDS[words])


SETTINGS: dict[str, tuple[str, str]] = {
    "MALEARN_REDIS_URL": ("redis://127.0.0.1:1", "malearn: Redis at redis://127.0.0.1:1 cannot"),
    "MLFLOW_TRACKING_URI": (NOWHERE, f"malearn: MLflow at {NOWHERE} cannot be reached"),
    "PREFECT_API_URL": (f"{NOWHERE}/api", f"malearn: Prefect at {NOWHERE}/api cannot be reached"),
    "MALEARN_TOOL_TYPES": ("/nowhere.toml", "malearn: /nowhere.toml: cannot be read"),
    "MALEARN_DATA": ("ftp://somewhere/a", "malearn: MALEARN_DATA: must be a directory or begin"),
    "MALEARN_PREFIX": ("a b", "malearn: MALEARN_PREFIX: must begin with a letter"),
    "MALEARN_STREAMS": ("0", "malearn: MALEARN_STREAMS: must be a number of streams from 1"),
    "MALEARN_STREAM_LENGTH": ("-5", "malearn: MALEARN_STREAM_LENGTH: must be a number of entries"),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_that_leads_nowhere_is_named_before_anything_starts(
    setting: str, cli: Cli, log: Log, tmp_path: Path
) -> None:
    value, sentence = SETTINGS[setting]
    words = ("run", "--from", log(), "--home", tmp_path / "home", "--json")
    answer = refused(cli(*words, **{setting: value}))
    assert answer.startswith(sentence)
    assert "TOOL_TYPES" in setting or setting in answer


def test_object_storage_without_a_redis_is_refused_before_anything_starts(
    cli: Cli, tmp_path: Path
) -> None:
    settings = {"MALEARN_DATA": "gs://bucket/a", "MALEARN_REDIS_URL": ""}
    home = tmp_path / "home"
    answer = refused(cli("train", "--home", home, **settings))
    assert answer.startswith("malearn: MALEARN_REDIS_URL: must be set where datasets are in object")
    assert not home.exists()


@pytest.mark.parametrize(
    "words", [("status",), ("rollback", "llm_process"), ("train",), ("promote", "llm_process", "1")]
)
def test_without_mlflow_nothing_about_versions_can_be_said(
    words: tuple[str, ...], cli: Cli, tmp_path: Path
) -> None:
    answer = refused(cli(*words, "--home", tmp_path / "home", MLFLOW_TRACKING_URI=NOWHERE))
    assert "MLflow at http://127.0.0.1:1 cannot be reached" in answer


def test_a_server_that_is_not_what_it_should_be_is_named(
    cli: Cli, log: Log, tmp_path: Path, tracking_uri: str
) -> None:
    """MLflow answers /health as Prefect does, and a notebook's server may do both."""
    words = ("ingest", log(), "--home", tmp_path / "home")
    answer = refused(cli(*words, PREFECT_API_URL=tracking_uri))
    assert answer.startswith(f"malearn: Prefect at {tracking_uri} cannot be reached")


def test_a_home_below_a_regular_file_is_refused(cli: Cli, log: Log, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = refused(cli("run", "--from", log(), "--home", tmp_path / "file" / "home"))
    assert "Not a directory" in answer


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[video_process\n", "is not valid TOML"),
        ("[video_process]\n", "[video_process] declares no features"),
        ("[v]\nfeatures = {x = {mni = 0}}\n", "[v] feature x has unknown keys: mni"),
        ("[v]\nfunctions = ['llm_process']\nfeatures = {x = {}}\n", "already belongs to"),
    ],
)
def test_a_declaration_that_does_not_hold_together_is_refused(
    text: str, problem: str, cli: Cli, log: Log, tmp_path: Path
) -> None:
    (tmp_path / "malearn.toml").write_text(text)
    answer = refused(cli("run", "--from", log(), "--home", tmp_path / "home"))
    assert problem in answer
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("run", "--nonsense"),
        ("promote", "llm_process", "one"),
        ("predict",),
        ("data", "maintain", "--unused-hours", "nan"),
        ("data", "maintain", "--keep-rows", "1.5"),
        ("train", "--family", "forest"),
        ("train", "--family", "linear", "--family", "linear"),
        ("tuned", "llm_process", "--family", "forest"),
    ],
)
def test_wrong_usage_has_an_exit_status_of_its_own(words: tuple[str, ...], cli: Cli) -> None:
    done = cli(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert "Input should be" not in done.stderr  # the words of a library


#: What somebody wrote into one record.
ODD: dict[str, dict[str, Any]] = {
    "times are strings": {"start_time": "yesterday", "end_time": "today"},
    "time goes backwards": {"start_time": 2e9, "end_time": 1e9},
    "time is infinite": {"end_time": float("inf")},
    "a feature is NaN": {"curr_task_feat": {"text_length": float("nan")}},
    "a feature is huge": {"curr_task_feat": {"text_length": 1e300}},
    "a feature is negative": {"curr_task_feat": {"text_length": -5}},
    "a feature is text": {"curr_task_feat": {"text_length": "long"}},
}


def test_every_odd_record_is_kept_with_its_reason(
    cli: Cli, log: Log, tmp_path: Path, prefect_api: str
) -> None:
    """One import of all of them, among enough good ones that the batch is not refused."""
    good = log(20)
    odd = [log(1, name=f"{i}.jsonl", seed=i, **ODD[case]) for i, case in enumerate(ODD, 1)]
    with odd[-1].open("a") as file:
        file.write('{"dag_id": "48f62c6e", "task_id": "48f62c6e-b136-41cb-8')  # cut short
    words = ("ingest", good, *odd, "--home", tmp_path / "home", "--json")
    done = cli(*words, PREFECT_API_URL=prefect_api)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    counts = result["tool_types"]["llm_process"]
    assert result["records"] == 2 * (20 + len(ODD)) + 1
    assert result["rejected"] == {
        "bad_times": 3,
        "invalid_feature": 2,
        "invalid_json": 1,
        "no_features": 20 + len(ODD),
    }
    assert (counts["accepted"], counts["quarantined"], counts["outliers"]) == (20, 2, 0)


def test_a_batch_that_is_mostly_bad_teaches_nothing_and_says_so(
    cli: Cli, log: Log, tmp_path: Path, prefect_api: str
) -> None:
    bad = log(40, curr_task_feat={"text_length": -5}, succ_task_feat=None)
    done = cli("ingest", bad, "--home", tmp_path / "home", "--json", PREFECT_API_URL=prefect_api)
    assert done.returncode == 1
    assert json.loads(done.stdout)["tool_types"]["llm_process"]["quarantined"] == 40
    assert "malearn: 40 of 40 llm_process rows break their contract" in done.stderr


def test_a_replay_is_printed_though_mlflow_is_away(cli: Cli, log: Log) -> None:
    words = ("evaluate", "--from", log(12), "--json")
    done = cli(*words, MLFLOW_TRACKING_URI=NOWHERE)
    assert done.returncode == 1
    assert "MLflow at http://127.0.0.1:1 cannot be reached" in done.stderr
    assert json.loads(done.stdout)["n"] > 0
    assert cli(*words, "--no-mlflow", MLFLOW_TRACKING_URI=NOWHERE).returncode == 0
