"""Looking back at a dataset, and taking it out, need no server."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from malearn.data.dataset import Dataset
from malearn.data.ingest_report import IngestReport
from malearn.flows import report
from malearn.flows.commands import app
from malearn.kernel.home import Home
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import declared
from tests.flows.conftest import Cli

RUN = "0f0f0f0f-0000-4000-8000-000000000001"


@pytest.fixture
def stored(home: Home) -> Home:
    """A home with two executions, brought in one after the other."""
    dataset = Dataset.open(home, declared()["speech_process"])
    for number in (1, 2):
        view = (30.0 * number, 12.0, 100.0)
        task_id = f"{RUN}-task{number}_speech_process"
        dataset.append(
            [
                Execution(
                    task_id,
                    f"task{number}_speech_process",
                    "speech_process",
                    1e9,
                    1e9 + number,
                    view,
                    view,
                )
            ]
        )
    return home


def test_history_tells_each_version_and_its_rows(cli: Cli, stored: Home) -> None:
    shown = cli("data", "history", "speech_process", "--home", stored.root)
    assert shown.returncode == 0, shown.stderr
    assert "rows added" in shown.stdout and "version" in shown.stdout
    told = json.loads(
        cli("data", "history", "speech_process", "--home", stored.root, "--json").stdout
    )
    assert sum(commit["rows_added"] for commit in told) == 2


def test_a_version_can_be_taken_out_as_csv(cli: Cli, stored: Home, tmp_path: Path) -> None:
    file = tmp_path / "speech.csv"
    done = cli("data", "export", "speech_process", "-o", file, "--home", stored.root, "--json")
    assert json.loads(done.stdout) == {
        "tool_type": "speech_process",
        "rows": 2,
        "file": str(file),
    }
    with file.open() as text:
        rows = list(csv.DictReader(text))
    assert [float(row["execution_time"]) for row in rows] == [1.0, 2.0]
    assert {"task_id", "timestamp", "duration", "audio_entropy", "audio_energy"} <= set(rows[0])


def test_a_version_that_is_not_there_is_named(stored: Home, cli: Cli) -> None:
    words = ("data", "export", "speech_process", "--home", stored.root)
    done = cli(*words, "--version", 99)
    assert (done.returncode, done.stdout) == (1, "")
    assert "it has no version 99; the newest is " in done.stderr
    assert cli(*words, "--version", -1).returncode == 2


def test_a_terminal_without_utf8_gets_what_it_can_show(stored: Home, cli: Cli) -> None:
    words = ("data", "export", "speech_process", "--home", stored.root, "-o", "to – файл.csv")
    done = cli(*words, PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("- ????.csv\n")
    done = cli(*words, "--json", PYTHONIOENCODING="latin-1")
    assert json.loads(done.stdout)["file"] == "to – файл.csv"


def test_one_of_a_kind_is_no_plural(
    stored: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = Dataset.open(stored, declared()["speech_process"])
    words = ["data", "export", "speech_process", "--home", str(stored.root)]
    for version, rows in ((dataset.version - 1, "1 row"), (dataset.version, "2 rows")):
        file = tmp_path / f"{version}.csv"
        done = CliRunner().invoke(app, [*words, "-o", str(file), "--version", str(version)])
        assert done.stdout == f"Wrote {rows} of speech_process to {file}\n"
    report.show_ingested(IngestReport(1, {"duplicate": 1}))
    assert capsys.readouterr().out.startswith("1 record\n")
