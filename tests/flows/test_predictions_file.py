"""`malearn evaluate --predictions`: one row a scored task, for whoever wants to look closer."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from malearn.flows.commands import app


def run_log(path: Path, tasks: int = 30) -> Path:
    rows, clock = [], 1_754_000_000.0
    for number in range(tasks):
        end = clock + 10.0 + number % 3
        data = {
            "dag_id": "q",
            "status": "success",
            "start_time": clock,
            "end_time": end,
            "curr_task_feat": {"text_length": 100 + number, "token_count": 30, "reason": 0},
        }
        name = f"0f0f0f0f-0000-4000-8000-{number:012d}-task1_llm_process"
        rows.append(json.dumps({"task_id": name, "func_name": "task1_llm_process", "data": data}))
        clock = end + 1.0
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_file_holds_a_row_per_scored_task(tmp_path: Path, suffix: str) -> None:
    log, out = run_log(tmp_path / "run1.jsonl"), tmp_path / f"predictions{suffix}"
    command = ["evaluate", "--from", str(log), "--score-from", "10", "--cadence", "auto"]
    done = CliRunner().invoke(app, [*command, "--predictions", str(out), "--no-mlflow", "--json"])
    assert done.exit_code == 0, done.output
    if suffix == ".csv":
        rows = list(csv.DictReader(out.read_text("utf-8").splitlines()))
    else:
        import pyarrow.parquet as pq

        rows = pq.read_table(out).to_pylist()
    assert len(rows) == 20
    assert rows[0].keys() >= {"task_id", "malearn", "stack", "low", "high", "source", "state"}
    assert all(float(row["low"]) <= float(row["malearn"]) <= float(row["high"]) for row in rows)


@pytest.mark.parametrize(("name", "status"), [("a.txt", 2), ("nowhere/a.csv", 1)])
def test_a_file_that_cannot_be_written_is_refused_before_the_replay(
    tmp_path: Path, name: str, status: int
) -> None:
    log = run_log(tmp_path / "run1.jsonl")
    command = ["evaluate", "--from", str(log), "--predictions", str(tmp_path / name)]
    assert CliRunner().invoke(app, [*command, "--no-mlflow"]).exit_code == status
