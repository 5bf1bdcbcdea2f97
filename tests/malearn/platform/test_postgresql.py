"""MLflow and Prefect keep what they know in PostgreSQL, by the drivers of the extra `postgres`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgresql


@pytest.fixture(scope="module")
def socket() -> Iterator[Path]:
    with postgresql.serving("mlflow", "prefect") as folder:
        yield folder


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
    address = f"postgresql://malearn@/mlflow?host={socket}"
    assert _answer(_MLFLOW, address) == ["malearn-t", 1]


def test_prefect_keeps_its_flows_in_it(socket: Path, tmp_path: Path) -> None:
    found = _answer(
        _PREFECT,
        PREFECT_HOME=str(tmp_path),
        PREFECT_API_DATABASE_CONNECTION_URL=f"postgresql+asyncpg://malearn@/prefect?host={socket}",
    )
    assert found == ["postgresql", 1]
