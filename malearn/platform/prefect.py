"""The embedded Prefect server: API, scheduler and UI on SQLite below the home."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from malearn.kernel.hosts import LOOPBACK, is_loopback
from malearn.platform import http, private
from malearn.platform.environment import QUIET, for_server, reachable_directly, without
from malearn.platform.port import client_host
from malearn.platform.server import PING_TIMEOUT, Server

__all__ = ["PrefectServer"]

LEASES = "prefect.server.concurrency.lease_storage.filesystem"


class PrefectServer(Server):
    """A Prefect server with its UI for one home, on loopback.

    Whoever may use its API can run commands through its worker, and a web page in the
    operator's browser reaches loopback. So the API asks for the secret of the home, and answers
    scripts of its own pages alone.
    """

    name = "Prefect"
    setting = "PREFECT_API_URL"

    def url_at(self, port: int) -> str:
        return f"http://{client_host(self.host)}:{port}/api"

    def directory(self) -> Path:
        """`PREFECT_HOME`, for the server and for who talks to it."""
        return self.home.state / "prefect"

    def command(self, port: int) -> Sequence[str | os.PathLike[str]]:
        address = ["--host", self.host, "--port", str(port)]
        # -P: else `-m` puts the working directory first on the path, before the libraries.
        return [sys.executable, "-P", "-m", "prefect", "server", "start", *address]

    def environment(self, port: int) -> Mapping[str, str]:
        ours = {
            "PREFECT_HOME": str(self.directory()),
            # Relative to where the server runs: a `?` of the path would end it in a URL.
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///prefect.db",
            "PREFECT_SERVER_API_AUTH_STRING": self.login(),
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(self._origins(port)),
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",  # into our log file, where it helps
            # Links in notifications begin with it.
            "PREFECT_UI_URL": os.environ.get("PREFECT_UI_URL")
            or self.url_at(port).removesuffix("/api"),
            # The UI asks its settings where the API is; `--port` alone leaves 4200 there. From
            # other machines it is where the page came from.
            "PREFECT_SERVER_UI_API_URL": self.url_at(port) if is_loopback(self.host) else "/api",
            # In memory, a restarted server would hold the slots of runs that died with the last.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
            # By default the UI's files are copied into the installed package.
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(self.directory() / "ui"),
        }
        # What a user has set for another Prefect, such as Prefect Cloud, is not for this one.
        replaced = (
            "PREFECT_API_",
            "PREFECT_PROFILE",
            "PREFECT_SERVER_API_",
            "PREFECT_SERVER_CORS_",
            "PREFECT_SERVER_DATABASE_",
        )
        # Notifications are sent by the server; without any, it talks to nobody outside.
        outside = bool(os.environ.get("MALEARN_NOTIFY", "").strip())
        direct = reachable_directly([LOOPBACK, "localhost"]) if outside else {}
        return without(for_server(proxies=outside), *replaced) | QUIET | ours | direct

    def client(self) -> dict[str, str]:
        """Prefect's clients keep their profiles and results here, not in the user's HOME."""
        return {
            "PREFECT_HOME": str(self.directory()),
            "PREFECT_API_AUTH_STRING": self.login(),
        }

    def login(self) -> str:
        """What its API and its pages ask for, in the form user:password."""
        return private.secret(self.secret_file, "malearn:")

    def _origins(self, port: int) -> list[str]:
        """The origins of its own pages, however this machine's browser names it."""
        names = (client_host(self.host), "localhost")
        return [f"http://{name}:{port}" for name in dict.fromkeys(names)]

    @staticmethod
    def ping(url: str, seconds: float = PING_TIMEOUT) -> None:
        http.check_answers(f"{url.rstrip('/')}/health", seconds)
