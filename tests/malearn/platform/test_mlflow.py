"""The embedded MLflow server, and the database it opens."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).parents[3]


def ask(url: str) -> bytes:
    with urlopen(url, timeout=120) as answer:
        content: bytes = answer.read()
    return content


def test_answers_and_names_artifacts_relative_to_itself(tracking_uri: str) -> None:
    found = ask(f"{tracking_uri}/api/2.0/mlflow/experiments/get?experiment_id=0")
    assert json.loads(found)["experiment"]["artifact_location"] == "mlflow-artifacts:/0"


def test_shows_its_pages(tracking_uri: str) -> None:
    assert b"<title>MLflow</title>" in ask(tracking_uri)


def test_stores_artifacts_below_a_home_of_any_name(tracking_uri: str, tmp_path: Path) -> None:
    import mlflow

    (tmp_path / "note.txt").write_text("kept")
    client = mlflow.MlflowClient(tracking_uri)
    run = client.create_run("0").info.run_id
    client.log_artifact(run, str(tmp_path / "note.txt"))
    (tmp_path / "back").mkdir()
    back = client.download_artifacts(run, "note.txt", str(tmp_path / "back"))
    assert Path(back).read_text() == "kept"


def test_two_processes_creating_a_database_at_once_leave_it_whole(tmp_path: Path) -> None:
    fresh = tmp_path / "new" / "mlflow.db"
    script = (
        "from pathlib import Path; from malearn.platform import database; "
        f"database.create(Path({str(fresh)!r}))"
    )
    twice = [subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) for _ in range(2)]
    assert [process.wait(600) for process in twice] == [0, 0]
    with closing(sqlite3.connect(fresh)) as connection:
        assert connection.execute("select count(*) from alembic_version").fetchone() == (1,)
        assert connection.execute("select count(*) from experiments").fetchone() == (1,)
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
