"""MLflow's database, created once and whole, and the server that opens it.

Processes that open a fresh database at once corrupt it for good, and so does a kill while
it is being created. So it is created aside, under a lock, and renamed into place complete.

Run by its path with `-P`, this is the embedded server: it has MLflow imported for the
creation already, and that import is most of a server's start.

    database.py DATABASE mlflow-server-arguments...
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

__all__ = ["create", "uri"]

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
        if not database.exists():
            fresh = database.with_suffix(".new")
            fresh.unlink(missing_ok=True)  # of a process killed while it created one
            _create_tables(fresh)
            fresh.replace(database)


def _create_tables(database: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(uri(database), ARTIFACTS)  # type: ignore[no-untyped-call]
    store.engine.dispose()


def main(arguments: list[str]) -> None:
    database, *rest = arguments
    create(Path(database))
    from mlflow.cli import cli

    try:
        cli(["server", "--backend-store-uri", uri(Path(database)), *rest])
    except SystemExit as ended:  # click always ends so
        sys.stderr.flush()
        # Taking MLflow's modules apart would cost a second or two at every stop.
        os._exit(ended.code if isinstance(ended.code, int) else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
