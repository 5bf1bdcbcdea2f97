"""`malearn doctor` says what is wrong, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

from malearn.kernel.errors import without_password
from malearn.kernel.home import Home
from tests.flows.conftest import Cli
from tests.flows.test_data_commands import stored as stored


def files(home: Home) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in home.root.rglob("*") if file.is_file()}


def test_a_sound_home_has_no_problem_and_is_left_as_it_is(
    stored: Home, cli: Cli, redis_url: str
) -> None:
    before = files(stored)
    done = cli("doctor", "--home", stored.root, "--json", MALEARN_REDIS_URL=redis_url)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {check["subject"]: check for check in json.loads(done.stdout)["checks"]}
    assert found["table speech_process"]["detail"] == "2 rows"
    assert found["model families"]["detail"] == "xgboost, mlp, linear"
    assert found["Redis"]["detail"] == without_password(redis_url)
    assert files(stored) == before


def test_what_is_damaged_or_away_is_named(stored: Home, cli: Cli) -> None:
    table = stored.data / "speech_process"
    for file in table.glob("*.parquet"):
        file.unlink()
    away = "redis://user:secret@127.0.0.1:1"
    done = cli("doctor", "--home", stored.root, MALEARN_REDIS_URL=away)
    assert done.returncode == 1
    assert "✗ table speech_process: Dataset speech_process: " in done.stdout
    assert "✗ Redis: redis://user:***@127.0.0.1:1 does not answer" in done.stdout
    assert "2 problems" in done.stdout
    assert "secret" not in done.stdout + done.stderr

    done = cli("doctor", "--repair", "--home", stored.root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 rows can be read, 2 lost" in done.stdout


def test_what_others_can_read_is_named_and_closed(stored: Home, cli: Cli) -> None:
    secret = stored.state / "secrets" / "redis"
    secret.parent.mkdir(0o700, parents=True)
    secret.write_text("password")
    secret.chmod(0o644)
    done = cli("doctor", "--home", stored.root)
    assert done.returncode == 1
    assert f"✗ rights: others can read {secret}" in done.stdout

    done = cli("doctor", "--repair", "--home", stored.root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert secret.stat().st_mode & 0o077 == 0


def test_a_damaged_database_and_an_interrupted_restoration_are_named(
    stored: Home, cli: Cli
) -> None:
    stored.mlruns.mkdir()
    (stored.mlruns / "mlflow.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    (stored.root / ".malearn-restoring").mkdir()
    types = stored.root / "types.toml"
    types.write_text('families = ["nowhere.at_all:MODEL"]\n')
    done = cli("doctor", "--home", stored.root, MALEARN_TOOL_TYPES=types)
    assert done.returncode == 1
    assert "✗ MLflow's database: " in done.stdout
    assert "✗ model families: " in done.stdout
    assert "nowhere.at_all" in done.stdout
    assert "✗ restore: a restoration was interrupted" in done.stdout
