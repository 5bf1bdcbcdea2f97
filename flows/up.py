"""The whole platform on one machine, to look at and to leave running."""

from __future__ import annotations

import getpass
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress

from malearn.flows import console
from malearn.flows.worker import Worker
from malearn.kernel.errors import without_password
from malearn.kernel.home import Home
from malearn.platform import Platform
from malearn.platform.port import LOOPBACK, is_loopback
from malearn.platform.server import ROOM, Server
from malearn.platform.supervisor import Supervisor, Watched

__all__ = ["up"]

LOOKED = 0.25  # seconds between two looks at the servers
ASKED = 5.0  # seconds between two questions to the given ones


def up(home: Home, *, host: str = LOOPBACK, ports: Mapping[str, int]) -> None:
    """Redis, MLflow, Prefect, or those that the environment names, and a worker that runs the
    deployments of `prefect.yaml`, kept up until Ctrl-C or SIGTERM.

    `host` and `ports`, by service, are where embedded servers listen. Raises `PlatformError`
    and `Unreachable` when something does not start; what ends later is started again.
    """
    with ExitStack() as stack:
        with console.progress() as shown:
            platform = Platform(
                home,
                redis=True,
                mlflow=True,
                prefect=True,
                host=host,
                ports=ports,
                on_event=shown.server,
            )
            stack.enter_context(platform)
            shown.step("Starting the worker, which makes the deployments …")
            began = time.monotonic()
            worker = stack.enter_context(Worker(home))
            shown.server(worker.name, "ready", time.monotonic() - began)
        # Not before: a start that is interrupted has failed, a platform that is stopped has not.
        stack.enter_context(suppress(KeyboardInterrupt, SystemExit))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        watch = _Watch(platform, worker)
        with watch.board:
            if not is_loopback(host):
                watch.board.say(_exposed(host), "yellow")
            stack.callback(watch.board.say, "Stopping …")
            while True:
                watch.look()
                time.sleep(LOOKED)


class _Watch:
    """Looks after what runs, and keeps the board that shows what, where and how it is."""

    def __init__(self, platform: Platform, worker: Server) -> None:
        self._platform, self._worker = platform, worker
        self._supervisor = Supervisor([*platform.embedded, worker])
        self._silent: set[Server] = set()
        self._asked = time.monotonic()
        self._full = False
        self.board = console.Board(
            ("service", "address", "health", "restarts"),
            f"Logs in {platform.home.logs}. Ctrl-C stops everything.",
        )

    def look(self) -> None:
        """Look at everything, do what is due, and show what changed."""
        for one in self._supervisor.look():
            self.board.say(_news(one))
        if time.monotonic() - self._asked > ASKED:
            self._ask()
        self.board.show(self._rows())

    def _ask(self) -> None:
        """Ask the given servers whether they are there, and the disk whether it has room."""
        self._asked = time.monotonic()
        for server in set(self._platform.servers) - set(self._platform.embedded):
            silent = not _answers(server, self._platform.address(server))
            if silent != (server in self._silent):
                self._silent ^= {server}
                self.board.say(f"{server.name} {'does not answer' if silent else 'answers again'}")
        home = self._platform.home.root
        free = shutil.disk_usage(home).free
        if (free < ROOM) != self._full:
            self._full = not self._full
            now = "is nearly full" if self._full else "has room again"
            self.board.say(f"The disk {now}: {free // 2**20} MB are free below {home}")

    def _rows(self) -> Iterator[tuple[str, str, str, str]]:
        watched = {one.server: one for one in self._supervisor.watched}
        for server in (*self._platform.servers, self._worker):
            one = watched.get(server)
            health = one.health if one else "silent" if server in self._silent else "given"
            restarts = str(one.restarts or "") if one else ""
            yield server.name, self._address(server), health, restarts

    def _address(self, server: Server) -> str:
        """Where people look: Prefect's pages, not its API."""
        if server is self._worker:
            return "runs the deployments of prefect.yaml"
        return without_password(self._platform.address(server)).removesuffix("/api")


def _news(one: Watched) -> str:
    """What became of a server, in a sentence."""
    name, wait = one.server.name, max(one.due - time.monotonic(), 0.0)
    if one.health == "up":
        return f"{name} is up again"
    if one.health == "silent":
        return f"{name} does not answer, see {one.server.log}"
    if one.health == "starting":
        return f"{name} is started again"
    return f"{name} is down: {one.why.rstrip('.')}; next start in {wait:.0f} s"


def _exposed(host: str) -> str:
    return (
        f"Open to the network at {host}, and nobody is asked for a password. Whoever reaches "
        "these ports can read and delete what is in Redis, replace the models that schedulers "
        f"load from MLflow, and run commands as {getpass.getuser()} through Prefect. Let a "
        "firewall or a proxy with a login stand in front."
    )


def _answers(server: Server, url: str) -> bool:
    try:
        server.ping(url)
    except Exception:  # noqa: BLE001  each client has its own tree of them
        return False
    return True
