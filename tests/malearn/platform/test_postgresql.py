"""MLflow and Prefect keep what they know in PostgreSQL, as docs/scale.md has it set up.

By the drivers of the extra `postgres`, with users that may do no more than the page gives them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgresql

PAGE = (Path(__file__).parents[3] / "docs" / "scale.md").read_text("utf-8")


@pytest.fixture(scope="module")
def socket() -> Iterator[Path]:
    (sql,) = re.findall(r"```sql\n(.*?)```", PAGE, re.S)
    with postgresql.serving(sql) as folder:
        yield folder


def _address(scheme: str, socket: Path) -> str:
    """The page's address of `scheme`, on the socket of the tests' server."""
    (found,) = re.findall(rf"{re.escape(scheme)}://[^\s`]*", PAGE)
    return str(found).replace("@db.example.com", "@") + f"?host={socket}"


# In processes of their own, as the servers are: each library reads its address when it is imported.
_MLFLOW = """
import json, sys
from malearn.lifecycle import mlflow_connection
with mlflow_connection.connected(sys.argv[1]):
    import mlflow
    client = mlflow.MlflowClient()
    client.create_registered_model("malearn-t")
    version = client.create_model_version("malearn-t", "/nowhere").version
    client.set_registered_model_alias("malearn-t", "Production", version)
    found = client.get_model_version_by_alias("malearn-t", "Production")
    print(json.dumps([found.name, int(found.version)]))
"""
_PREFECT = """
import asyncio, json
from prefect.server.database import provide_database_interface
from prefect.server.models import flows
from prefect.server.schemas.core import Flow

async def main():
    database = provide_database_interface()
    await database.create_db()
    async with database.session_context(begin_transaction=True) as session:
        await flows.create_flow(session, Flow(name="lifecycle"))
    async with database.session_context() as session:
        return [database.dialect.name, await flows.count_flows(session)]

print(json.dumps(asyncio.run(main())))
"""


def _answer(script: str, *words: str, **environment: str) -> object:
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_mlflow_keeps_versions_and_aliases_in_it(socket: Path) -> None:
    assert _answer(_MLFLOW, _address("postgresql", socket)) == ["malearn-t", 1]


def test_prefect_keeps_its_flows_in_it(socket: Path, tmp_path: Path) -> None:
    found = _answer(
        _PREFECT,
        PREFECT_HOME=str(tmp_path),
        PREFECT_API_DATABASE_CONNECTION_URL=_address("postgresql+asyncpg", socket),
    )
    assert found == ["postgresql", 1]
