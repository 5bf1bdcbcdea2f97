"""The embedded MLflow server: SQLite and a directory of artifacts below the home."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from malearn.kernel.errors import InputError
from malearn.kernel.hosts import is_loopback
from malearn.platform import http
from malearn.platform.environment import QUIET, for_server, without
from malearn.platform.port import client_host
from malearn.platform.server import PING_TIMEOUT, Server

__all__ = ["MLflowServer"]

#: Schemes of what MLflow itself opens, without a server, before a `+` and the name of a driver.
_STORES = frozenset({"", "file", "sqlite", "postgresql", "mysql", "mssql", "databricks"})


class MLflowServer(Server):
    """An MLflow tracking server with its UI for one home, on loopback.

    One process and no job execution: a third of the memory, and ready in a third of the time.
    What is left of its start is Python importing MLflow; see `database.py`.
    """

    name = "MLflow"
    setting = "MLFLOW_TRACKING_URI"

    @property
    def database(self) -> Path:
        return self.home.mlruns / "mlflow.db"

    def url_at(self, port: int) -> str:
        return f"http://{client_host(self.host)}:{port}"

    def directory(self) -> Path:
        return self.home.mlruns

    def command(self, port: int) -> Sequence[str | os.PathLike[str]]:
        options = {
            # As a URI: of a plain path, MLflow takes a `?` or a `#` for the end.
            "--artifacts-destination": (self.home.mlruns / "artifacts").as_uri(),
            "--host": self.host,
            "--port": str(port),
            "--workers": "1",
            # Every predictor polls for new versions: each poll would be a line of the log.
            "--uvicorn-opts": "--no-access-log",
        }
        script = Path(__file__).with_name("database.py")
        if not is_loopback(self.host):
            options["--allowed-hosts"] = "*"  # people reach it by names that we do not know
        words = [word for option in options.items() for word in option]
        # -P: else `import mlflow` finds this file, whose directory is the script's.
        return [sys.executable, "-P", script, self.database, *words]

    def environment(self, port: int) -> Mapping[str, str]:
        ours = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        # MLflow takes defaults of its options from these, and hands options on in `_MLFLOW_*`: what
        # the user has set is meant for another server.
        return without(for_server(), "MLFLOW_", "_MLFLOW_") | QUIET | ours

    @staticmethod
    def ping(url: str, seconds: float = PING_TIMEOUT) -> None:
        """Only HTTP can be pinged; a database or a directory is assumed to be usable.

        Raises `InputError` for what MLflow would refuse itself, once work has been done.
        """
        scheme = urlsplit(url).scheme
        if scheme in ("http", "https"):
            http.check_mlflow(url, seconds)
        elif scheme.partition("+")[0] not in _STORES:
            problem = f"must begin with http:// or https://, or with sqlite:///, not {scheme}://"
            raise InputError(MLflowServer.setting, problem)
