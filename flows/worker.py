"""The worker of a home: a process that runs the flows when they are due, each in one of its own.

    python -m malearn.flows.worker NAME

first cleans up after a worker of that name that was killed and creates the deployments, in the
working directory; then it becomes Prefect's process worker.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from malearn.data.maze.store import MAZE_SETTING
from malearn.kernel.home import Home
from malearn.kernel.hosts import LOOPBACK
from malearn.platform import http
from malearn.platform.environment import for_server, without
from malearn.platform.server import PING_TIMEOUT, Server

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.objects import FlowRun

__all__ = ["Worker", "clean_up", "crash_below"]

MAX_RUNS = 4  # at once; retrainings run one at a time
#: Prefect's default is 10, which a person who starts a flow by hand would wait for.
POLL_SECONDS = 3  # between two queries for runs that are due
OVERDUE = timedelta(minutes=1)  # a run that is this late was due while no worker was there
WORKER_DIED = "Its worker ended while it ran."

_IN_PROGRESS: Mapping[str, Any] = {
    "state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}
}


class Worker(Server):
    """Prefect's process worker for one home. Start it where the environment names the servers.

    Its runs read the Maze stores `maze` as well. It dies with whatever it runs: its runs are in
    its process group, which its reaper ends. What such a run leaves behind in Prefect is tidied
    up when the worker starts again.
    """

    name = "Worker"
    setting = ""  # nobody gives us one: others may poll the same pool

    def __init__(self, home: Home, maze: Sequence[Path] = ()) -> None:
        super().__init__(home)
        self._maze = maze

    def url_at(self, port: int) -> str:
        return f"http://{LOOPBACK}:{port}/health"

    def directory(self) -> Path:
        """An empty one. Prefect imports flows with the working directory first on the path, where
        any module of a user's project would stand before the library of that name.
        """
        return self.home.state / "worker"

    def _prepare(self) -> None:
        super()._prepare()
        declaration = self.directory() / "malearn.toml"
        if not declaration.is_symlink():  # runs read it here; it may be written later
            declaration.symlink_to(self.home.root / "malearn.toml")

    def command(self, port: int) -> Sequence[str | os.PathLike[str]]:
        # Several homes, on several machines, may work for one Prefect server.
        home = crc32(os.fsencode(self.home.root))
        return [
            sys.executable,
            # Else `-m` puts the working directory first on the path.
            "-P",
            "-m",
            "malearn.flows.worker",
            f"{socket.gethostname()}-{home:08x}",
        ]

    def environment(self, port: int) -> Mapping[str, str]:
        ours = {
            "MALEARN_HOME": str(self.home.root),
            "PREFECT_WORKER_QUERY_SECONDS": str(POLL_SECONDS),
            "PREFECT_WORKER_WEBSERVER_HOST": LOOPBACK,
            "PREFECT_WORKER_WEBSERVER_PORT": str(port),
            "PREFECT_LOGGING_COLORS": "false",
        }
        if self._maze:
            ours[MAZE_SETTING] = os.pathsep.join(str(store.absolute()) for store in self._maze)
        declaration = Path(os.environ.get("MALEARN_TOOL_TYPES") or "malearn.toml")
        if declaration.is_file():  # as this process sees it; the flows run elsewhere
            ours["MALEARN_TOOL_TYPES"] = str(declaration.absolute())
        # Set for our own command line, which prints failures itself; here they belong in the log.
        console = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"
        return without(for_server(proxies=True), console) | ours

    @staticmethod
    def ping(url: str, seconds: float = PING_TIMEOUT) -> None:
        http.check_answers(url, seconds)


def clean_up(client: SyncPrefectClient, worker: str, pool: str) -> None:
    """Mark runs of a dead worker as crashed and delete scheduled runs that nobody executed.

    The runs that were in progress under this worker name, and those they had started, become
    crashed. Scheduled runs that were due while no worker was there, which may be hundreds, are
    deleted: the next one does the work of all.
    """
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import Crashed

    found = _runs(client, FlowRunFilter.model_validate(dict(_IN_PROGRESS)))
    ended = [run for run in found if run.labels.get("prefect.worker.name") == worker]
    for run in ended:
        # force: Prefect refuses to move a run that it believes to be in progress.
        client.set_flow_run_state(run.id, Crashed(message=WORKER_DIED), force=True)
    crash_below(client, [run.id for run in ended], WORKER_DIED)
    overdue = {
        "state": {"type": {"any_": ["SCHEDULED"]}},
        "next_scheduled_start_time": {"before_": datetime.now(UTC) - OVERDUE},
    }
    while missed := [
        run
        for run in _runs(client, FlowRunFilter.model_validate(overdue), pool=pool)
        # A run that was started by hand, or that waits for its next attempt, is still wanted.
        if run.auto_scheduled and not run.run_count
    ]:
        for run in missed:
            client.delete_flow_run(run.id)


def crash_below(client: SyncPrefectClient, parents: Sequence[UUID], message: str) -> None:
    """Mark as crashed what is in progress below the flow runs `parents`, down to the last."""
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import Crashed

    # Level by level: a flow's subflows have no label of a worker, only their parent.
    while parents:
        below = {"parent_flow_run_id": {"any_": list(parents)}}
        found = _runs(client, FlowRunFilter.model_validate({**_IN_PROGRESS, **below}))
        for run in found:
            client.set_flow_run_state(run.id, Crashed(message=message), force=True)
        parents = [run.id for run in found]


def _runs(client: SyncPrefectClient, which: FlowRunFilter, pool: str = "") -> list[FlowRun]:
    """The runs that `which` names; of more than 200 the first, so ask again."""
    from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName

    pools = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])) if pool else None
    return client.read_flow_runs(flow_run_filter=which, work_pool_filter=pools)


def main(arguments: Sequence[str]) -> None:
    from prefect.client.orchestration import get_client

    from malearn.flows import deployments

    (worker,) = arguments
    with get_client(sync_client=True) as client:
        # Before the worker polls: the dead runs hold concurrency slots that new ones wait for.
        clean_up(client, worker, deployments.pool())
        deployments.deploy(client, Path.cwd())
    options = {"--pool": deployments.pool(), "--type": "process", "--name": worker}
    words = [word for option in options.items() for word in option]
    words += ["--limit", str(MAX_RUNS), "--with-healthcheck", "--no-create-pool-if-not-found"]
    # exec drops what Python has buffered.
    sys.stdout.flush()
    # exec, not a child: the reaper knows this process, and its end is the worker's.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "prefect", "worker", "start", *words])


if __name__ == "__main__":
    main(sys.argv[1:])
