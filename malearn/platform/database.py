"""MLflow's database, created once and whole, and the server that opens it.

Processes that open a fresh database at once corrupt it for good, and so does a kill while
it is being created. So it is created aside, under a lock, and renamed into place complete.

Run by its path with `-P`, this is the embedded server, in one process: importing MLflow is most
of a server's start, so it is done once, for the creation, the command line and the service.

    database.py DATABASE mlflow-server-arguments...
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from malearn.platform import mlflow_layout

__all__ = ["create", "upgrade", "uri"]

ARTIFACTS = "mlflow-artifacts:/"  # relative to whichever server is asked


def uri(database: Path) -> str:
    """The address of the database for SQLAlchemy.

    As a file URI, which can hold any path: of a plain one, a `?` would be the end.

    >>> uri(Path("/what?/mlflow.db"))
    'sqlite:///file:///what%3F/mlflow.db?uri=true'
    """
    return f"sqlite:///{database.absolute().as_uri()}?uri=true"


def create(database: Path) -> None:
    """Create `database` unless it is there; any number of processes may call this at once."""
    if database.exists():
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Looked at again: another process may have created it while this one waited for the lock.
        if not database.exists():
            fresh = database.with_suffix(".new")
            fresh.unlink(missing_ok=True)  # of a process killed while it created one
            _create_tables(fresh)
            fresh.replace(database)


def upgrade(database: Path) -> None:
    """Migrate `database` to the schema of the installed MLflow, if an older one wrote it.

    A copy of the old one is kept beside it, named after its schema.
    """
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine(uri(database))  # type: ignore[no-untyped-call]
    try:
        found = utils._get_schema_version(engine)  # type: ignore[no-untyped-call]
        if found == utils._get_latest_schema_revision():  # type: ignore[no-untyped-call]
            return
        copy = database.with_name(f"{database.name}.before-{found}")
        # SQLite's own backup: a copy of the file would miss what is still in a journal beside it.
        with closing(sqlite3.connect(database)) as old, closing(sqlite3.connect(copy)) as new:
            old.backup(new)
        utils._upgrade_db(engine)  # type: ignore[no-untyped-call]
    finally:
        engine.dispose()


def _create_tables(database: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(uri(database), ARTIFACTS)  # type: ignore[no-untyped-call]
    # Closed before the file is renamed: SQLite finds a journal by the name of its database.
    store.engine.dispose()


def main(arguments: list[str]) -> None:
    database, *rest = arguments
    create(Path(database))
    # MLflow refuses to serve an older schema, and asks for a command of its own instead.
    upgrade(Path(database))
    from mlflow import server
    from mlflow.cli import cli

    server._exec_cmd = _serve  # type: ignore[assignment,attr-defined]  # not another process
    mlflow_layout.install(server.app)
    try:
        cli(["server", "--backend-store-uri", uri(Path(database)), *rest])
    except SystemExit as ended:  # click always ends so
        # `os._exit` below flushes nothing, and the cause of a failed start is in these lines.
        sys.stderr.flush()
        # Taking MLflow's modules apart would cost a second or two at every stop.
        os._exit(ended.code if isinstance(ended.code, int) else 1)


def _serve(command: list[str], extra_env: dict[str, str], **_: object) -> None:
    """Do what `command`, `python -m uvicorn arguments...`, would do in a process of its own."""
    import uvicorn

    os.environ |= extra_env
    # The first three words are those that would start Python and the module.
    uvicorn.main([str(word) for word in command[3:]])


if __name__ == "__main__":
    main(sys.argv[1:])
