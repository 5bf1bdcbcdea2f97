"""A home says its format: a newer malearn migrates it, an older one refuses it by name."""

from __future__ import annotations

import json
import sqlite3
import stat
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from malearn.kernel import home_format
from malearn.kernel.errors import HomeTooNew, InputError
from malearn.kernel.home import Home
from malearn.operations.upgrade import upgrade

OLD = Path(__file__).parents[2] / "fixtures" / "home-0.1.0.tar.xz"


@pytest.fixture
def old(tmp_path: Path) -> Home:
    with tarfile.open(OLD) as packed:
        packed.extractall(tmp_path, filter="data")
    return Home(tmp_path)


def test_a_home_of_0_1_0_is_migrated_once_and_said_so(old: Home) -> None:
    said: list[str] = []
    for _ in range(2):
        upgrade(old, "0.2.0", notify=said.append)
    assert said == [f"Migrating {old.root} from format 1 to {home_format.FORMAT}"]
    assert home_format.read(old.root) == home_format.FORMAT
    kept = [p for top in (old.data, old.mlruns, old.state) for p in (top, *top.rglob("*"))]
    assert {p for p in kept if stat.S_IMODE(p.stat().st_mode) & 0o077} == set()


def test_a_fresh_home_gets_todays_format_without_a_word(tmp_path: Path) -> None:
    said: list[str] = []
    upgrade(Home(tmp_path / "new"), "0.2.0", notify=said.append)
    assert (said, home_format.read(tmp_path / "new")) == ([], home_format.FORMAT)


def test_a_home_of_a_newer_malearn_is_refused_by_name(old: Home) -> None:
    (old.state / "format.json").write_text(json.dumps({"format": 99, "malearn": "7.3.0"}))
    for use in (lambda: Home.find(old.root), lambda: upgrade(old, "0.2.0")):
        with pytest.raises(HomeTooNew, match=r"has format 99, of malearn 7\.3\.0; .* up to 2: "):
            use()


def test_a_format_file_that_is_none_is_named(old: Home) -> None:
    (old.state / "format.json").write_text("[]")
    with pytest.raises(InputError, match=r"format\.json: is not what malearn wrote"):
        Home.find(old.root)


def test_a_database_of_an_older_mlflow_is_migrated_and_the_old_one_kept(old: Home) -> None:
    """Its schema has one more table in the newest release; here it is taken back to before."""
    database = old.mlruns / "mlflow.db"
    script = f"""
from pathlib import Path
from alembic import command
from mlflow.store.db import utils
from malearn.platform import database
file = Path({str(database)!r})
engine = utils.create_sqlalchemy_engine(database.uri(file))
head = utils._get_schema_version(engine)
config = utils._get_alembic_config(str(engine.url))
before = utils.ScriptDirectory.from_config(config).get_revision(head).down_revision
with engine.begin() as connection:
    config.attributes["connection"] = connection
    command.downgrade(config, before)
assert utils._get_schema_version(engine) == before
database.upgrade(file)
assert utils._get_schema_version(engine) == head
print(before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (copy,) = old.mlruns.glob("mlflow.db.before-*")
    assert copy.name.removeprefix("mlflow.db.before-") == done.stdout.split()[-1]
    with closing(sqlite3.connect(copy)) as kept:
        assert kept.execute("select count(*) from model_versions").fetchone() > (0,)
