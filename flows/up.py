"""The whole platform on one machine, kept running until it is interrupted."""

from __future__ import annotations

import getpass
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from malearn import __version__
from malearn.data import stream
from malearn.flows import console
from malearn.flows.maze_gauges import MazeGauges
from malearn.flows.worker import Worker
from malearn.kernel.errors import MalearnError, PlatformError, without_password
from malearn.kernel.home import Home
from malearn.kernel.hosts import LOOPBACK, is_loopback
from malearn.operations.endpoint import Endpoint
from malearn.operations.metrics import PlatformMetrics, ServiceHealth
from malearn.operations.upgrade import upgrade
from malearn.platform import Platform, PrefectServer
from malearn.platform.port import find_free
from malearn.platform.server import MIN_FREE_BYTES, Server
from malearn.platform.supervisor import SupervisedServer, Supervisor

__all__ = ["up"]

POLL_SECONDS = 0.25  # between two polls of the supervisor
_ATTACHED = (
    "Another `malearn up` runs on this home. This one uses its servers and its worker, and takes "
    "over what ends; Ctrl-C here leaves them running."
)
PING_SECONDS = 5.0  # between two pings of the given servers
ANSWER_SECONDS = 2.0  # for one answer of Redis


def up(
    home: Home,
    *,
    host: str = LOOPBACK,
    ports: Mapping[str, int],
    maze: Sequence[Path] = (),
) -> None:
    """Redis, MLflow, Prefect, or those that the environment names, and a worker that runs the
    deployments of `prefect.yaml`, kept up until Ctrl-C or SIGTERM.

    `host` and `ports`, by service, are where embedded servers listen; `maze` are run stores of
    Maze that scheduled runs read. Raises `PlatformError`
    and `Unreachable` when something does not start; what ends later is started again.
    """
    with ExitStack() as stack:
        with console.progress() as shown:
            upgrade(home, __version__, notify=shown.step)
            platform = Platform(
                home,
                redis=True,
                mlflow=True,
                prefect=True,
                host=host,
                ports=ports,
                # On a slow machine a server that is late is better than a platform that ends.
                give_up=False,
                on_event=shown.server,
            )
            stack.enter_context(platform)
            worker = Worker(home, maze)
            # Leaves before the servers do (callbacks run in reverse): it needs Prefect to the end.
            stack.callback(worker.stop)
            supervisor = Supervisor(platform.embedded, to_start=[worker])
            _start_worker(supervisor, shown)
        # Not before: a start that is interrupted has failed, a platform that is stopped has not.
        stack.enter_context(suppress(KeyboardInterrupt, SystemExit))
        # Whatever it was: a shell script starts background jobs with SIGINT ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        gauges = _gauges(platform, maze)
        if gauges is not None:
            stack.callback(gauges.close)
        monitor = _Monitor(platform, supervisor, worker, gauges)
        stack.enter_context(monitor.endpoint(host, ports.get("Metrics")))
        with monitor.board:
            if worker.attached:
                monitor.board.say(_ATTACHED)
            if not is_loopback(host) and platform.embedded:
                monitor.board.say(_exposed(host), "yellow")
            stack.callback(monitor.board.say, "Stopping …")
            while True:
                monitor.poll()
                time.sleep(POLL_SECONDS)


def _start_worker(supervisor: Supervisor, shown: console.Progress) -> None:
    """Return once the worker, the last of those supervised, is up, however many tries it takes:
    Prefect may be slow to answer it, or be restarted meanwhile.
    """
    shown.step("Starting the worker, which creates the deployments …")
    began, worker = time.monotonic(), supervisor.supervised[-1]
    while worker.health != "up":
        for one in supervisor.poll():
            if one.health == "down" and one.reason:
                shown.step(_health_message(one))
        # A library may have swallowed Ctrl-C; this loop may run for long.
        shown.check()
        time.sleep(POLL_SECONDS)
    event = "attached" if worker.server.attached else "ready"
    shown.server(worker.server.name, event, time.monotonic() - began)


def _gauges(platform: Platform, stores: Sequence[Path]) -> MazeGauges | None:
    if not stores:
        return None
    return MazeGauges(platform.home, stores, platform.redis_url, platform.tracking_uri)


class _Monitor:
    """Supervises the servers and shows their addresses and health on a board."""

    def __init__(
        self,
        platform: Platform,
        supervisor: Supervisor,
        worker: Server,
        gauges: MazeGauges | None,
    ) -> None:
        self._gauges = gauges
        self._platform, self._supervisor, self._worker = platform, supervisor, worker
        self._unresponsive: set[Server] = set()  # among the given ones
        self._last_ping = time.monotonic()
        self._disk_full = False
        self._metrics = ""  # where they are served
        self._warned: dict[str, str] = {}  # about Redis, by kind
        self.board = console.StatusTable(
            ("service", "address", "health", "restarts"),
            f"{_logins(platform)}Logs in {platform.home.logs}. Ctrl-C stops everything.",
        )

    def poll(self) -> None:
        """Check everything once, restart what is due, and show what changed."""
        for one in self._supervisor.poll():
            self.board.say(_health_message(one))
        if time.monotonic() - self._last_ping > PING_SECONDS:
            self._ping_given()
            self._check_redis()
        self.board.show(self._rows())

    @contextmanager
    def endpoint(self, host: str, port: int | None) -> Iterator[None]:
        """Serve `/metrics` and `/health` of what is supervised here."""
        home = self._platform.home
        # The same at each start where possible: Prometheus has it in its configuration.
        chosen = port or find_free(f"{home.root}/metrics", host)
        try:
            endpoint = Endpoint(PlatformMetrics(home, self._services, self._gauges), chosen, host)
        except OSError as error:
            problem = f"cannot listen on {host}:{chosen} ({error.strerror}); choose another port"
            raise PlatformError("Metrics", problem) from error
        with endpoint:
            self._metrics = f"{endpoint.url}/metrics"
            yield

    def _services(self) -> list[ServiceHealth]:
        supervised = {one.server: one for one in self._supervisor.supervised}
        found = []
        for server in (*self._platform.servers, self._worker):
            one = supervised.get(server)
            up = one.health == "up" if one else server not in self._unresponsive
            # Restarts are -1 before the first start.
            found.append(ServiceHealth(server.name, up, max(one.restarts, 0) if one else 0))
        return found

    def _ping_given(self) -> None:
        """Ping the servers that were given, and check that the disk has room."""
        self._last_ping = time.monotonic()
        for server in set(self._platform.servers) - set(self._platform.embedded):
            failed = not _answers(server, self._platform.address(server))
            if failed != (server in self._unresponsive):
                self._unresponsive ^= {server}
                self.board.say(f"{server.name} {'does not answer' if failed else 'answers again'}")
        home = self._platform.home.root
        free = shutil.disk_usage(home).free
        if (free < MIN_FREE_BYTES) != self._disk_full:
            self._disk_full = not self._disk_full
            now = "is nearly full" if self._disk_full else "has room again"
            self.board.say(f"The disk {now}: {free // 2**20} MB are free below {home}")

    def _check_redis(self) -> None:
        """Say once what is wrong with a Redis that answers, and once that it is over."""
        try:
            found = stream.warnings(self._platform.redis_url, ANSWER_SECONDS)
        except MalearnError:
            return  # away, which the board shows
        for kind, sentence in found.items():
            if kind not in self._warned:
                self.board.say(sentence, "yellow")
        if "writes" in self._warned and "writes" not in found:
            self.board.say("Redis takes writes again")
        self._warned = found

    def _rows(self) -> Iterator[tuple[str, str, str, str]]:
        supervised = {one.server: one for one in self._supervisor.supervised}
        for server in (*self._platform.servers, self._worker):
            one = supervised.get(server)
            given = "unresponsive" if server in self._unresponsive else "given"
            health = one.health if one else given
            restarts = str(one.restarts or "") if one else ""
            yield server.name, self._address(server), health, restarts
        # Served by this process, hence up for as long as the table is shown.
        yield "Metrics", self._metrics, "up", ""

    def _address(self, server: Server) -> str:
        """Where people look: Prefect's pages, not its API."""
        if server is self._worker:
            return "runs the deployments of prefect.yaml"
        return without_password(self._platform.address(server)).removesuffix("/api")


def _health_message(one: SupervisedServer) -> str:
    """A sentence about a change of a server's health."""
    name, wait = one.server.name, max(one.next_start - time.monotonic(), 0.0)
    if one.health == "up":
        return f"{name} is up again"
    if one.health == "unresponsive":
        return f"{name} does not answer, see {one.server.log}"
    if one.health == "starting":
        return f"{name} is restarting"
    return f"{name} is down: {one.reason.rstrip('.')}; next start in {wait:.0f} s"


def _logins(platform: Platform) -> str:
    """Where the passwords of embedded servers are; on a terminal, that of Prefect's pages too.

    What does not go to a terminal goes to a journal, which others may read.
    """
    asking = [server for server in platform.embedded if server.secret_file.exists()]
    if not asking:
        return ""
    names = " and ".join(server.name for server in asking)
    shown = f"Passwords of {names} are in {asking[0].secret_file.parent}.\n"
    for server in asking:
        if isinstance(server, PrefectServer) and sys.stderr.isatty():
            shown += f"Prefect's pages ask for {server.login()}\n"
    return shown


def _exposed(host: str) -> str:
    return (
        f"Open to the network at {host}. MLflow asks nobody for a password: whoever reaches its "
        "port can replace the models that schedulers load. Redis and Prefect ask for those of "
        f"this home, over connections that are not encrypted; with Prefect's, commands run as "
        f"{getpass.getuser()}. Let a firewall, or a proxy with TLS and a login, stand in front."
    )


def _answers(server: Server, url: str) -> bool:
    try:
        server.ping(url)
    except Exception:  # noqa: BLE001  each client has its own tree of them
        return False
    return True
