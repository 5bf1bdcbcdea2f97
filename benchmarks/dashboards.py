"""The dashboards of deploy/grafana over a live `malearn up`, a predictor and a real Prometheus.

Executions are ingested, kept out and lost, a model is trained, promoted and monitored, a server
and the worker are killed: after that every query of the dashboards must return data. Where there
is no Grafana, `MALEARN_PICTURES=docs/images` has Chromium draw the panels from what the queries
returned.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from benchmarks import panels
from benchmarks.figure import Figure, at_least, at_most
from benchmarks.prometheus import Prometheus, boards

__all__ = ["figures"]

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
TOOL = "llm_process"
PATIENCE = 600.0  # seconds for one thing to happen
_SERVICES = ("redis", "mlflow", "prefect", "metrics", "predictor")


def figures() -> Iterator[Figure]:
    """How many queries return data, and how many alerts are evaluated without an error."""
    if not shutil.which("prometheus"):
        print("not run: prometheus is not installed here")
        return
    with tempfile.TemporaryDirectory() as folder, Installation(Path(folder)) as here:
        targets = {
            "malearn": here.address("metrics"),
            "malearn-predictor": here.address("predictor"),
        }
        with Prometheus(Path(folder) / "prometheus", targets) as prometheus:
            live(here)
            time.sleep(15.0)  # until all of it has been scraped
            empty = prometheus.empty()
            broken = prometheus.broken_rules()
            pictures(prometheus)
    count = sum(len(board.queries) for board in boards())
    for query in empty:
        print(f"empty: {query}")
    yield at_least("queries that return data", count - len(empty), "", count)
    yield at_most("alert rules that cannot be evaluated", len(broken), "", 0)


def live(here: Installation) -> None:
    """All that the dashboards show, once."""
    here.until("executions are in the stream", lambda: here.entries() > 1_500)
    here.malearn("ingest")
    here.malearn("train", TOOL, "--family", "linear", "--promote")
    here.malearn("promote", TOOL, "1")
    here.break_records()
    here.until("executions are in the stream", lambda: here.entries() > 1_500)
    here.malearn("ingest")
    here.malearn("monitor", TOOL)
    here.lose_entries()
    here.malearn("ingest")
    here.flow("retrain", "COMPLETED", tool_type=TOOL, trigger="dashboards")
    here.kill("mlflow")
    here.flow("lifecycle", "CRASHED", kill="worker")


class Installation:
    """`malearn up` on a home of its own below `place`, and a scheduler that asks and reports."""

    def __init__(self, place: Path) -> None:
        self.home = place / "home"
        self._log = place / "log"
        self._ports = {name: _free_port() for name in _SERVICES}
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Installation:
        self.home.mkdir()
        ports = [f"--{n}-port={self._ports[n]}" for n in _SERVICES if n != "predictor"]
        try:
            self._spawn(BIN / "malearn", "up", "--home", self.home, *ports)
            self.until("malearn up answers", lambda: self._get("metrics", "/health") is not None)
            mlflow, port = f"http://{self.address('mlflow')}", self._ports["predictor"]
            load = [self._redis_url(), mlflow, self.home / "cache", "60", port]
            self._spawn(sys.executable, "-m", "benchmarks.soak_load", *load)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._running):
            if process.stdin is not None:
                process.stdin.close()  # the load ends with its input
            process.send_signal(signal.SIGINT)
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def address(self, service: str) -> str:
        return f"127.0.0.1:{self._ports[service]}"

    def malearn(self, *words: str) -> None:
        """A command on this home; some refuse, as `train` does where the gate does."""
        command = [str(BIN / "malearn"), *words, "--home", str(self.home)]
        with self._log.open("ab") as log:
            subprocess.run(command, stdout=log, stderr=log, cwd=ROOT, check=False)

    def entries(self) -> int:
        with redis.Redis.from_url(self._redis_url()) as client:
            return int(client.xlen("malearn:executions"))

    def break_records(self) -> None:
        """Records that nobody can learn from."""
        with redis.Redis.from_url(self._redis_url()) as client:
            for n in range(5):
                client.set(f"result:broken-{n}-task_{TOOL}", "{")
                client.set(f"result:timeless-{n}-task_{TOOL}", '{"status": "success"}')

    def lose_entries(self) -> None:
        """Somebody trims the stream before it has been read."""
        self.until("there is something to lose", lambda: self.entries() > 300)
        with redis.Redis.from_url(self._redis_url()) as client:
            client.xtrim("malearn:executions", maxlen=100, approximate=False)

    def kill(self, service: str) -> None:
        state = json.loads((self.home / ".malearn" / "run" / f"{service}.json").read_text())
        os.kill(int(state["pid"]), signal.SIGKILL)

    def flow(self, name: str, end: str, *, kill: str = "", **parameters: str) -> None:
        """Run a flow until its state is `end`; `kill` a service once it runs."""
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

        secret = (self.home / ".malearn" / "secrets" / "prefect").read_text().strip()
        url = f"http://{self.address('prefect')}/api"
        with (
            temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: secret}),
            get_client(sync_client=True) as client,
        ):
            (which,) = (
                d
                for d in client.read_deployments()
                if d.entrypoint and d.entrypoint.endswith(f".{name}")
            )
            run = client.create_flow_run_from_deployment(which.id, parameters=parameters)

            def state() -> str:
                found = client.read_flow_run(run.id).state
                return found.type.value if found else ""

            if kill:
                self.until(f"{name} runs", lambda: state() == "RUNNING")
                self.kill(kill)
            self.until(f"{name} has ended", lambda: state() == end)

    def until(self, what: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            ended = [p for p in self._running if p.poll() is not None]
            if ended or time.monotonic() > deadline:
                said = self._log.read_text("utf-8", "replace")[-2000:]
                raise RuntimeError(f"waiting until {what}:\n{said}")
            time.sleep(0.5)

    def _redis_url(self) -> str:
        secret = (self.home / ".malearn" / "secrets" / "redis").read_text().strip()
        return f"redis://:{secret}@{self.address('redis')}/0"

    def _spawn(self, *command: object) -> None:
        with self._log.open("ab") as log:
            words = [str(word) for word in command]
            self._running.append(
                subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log)
            )

    def _get(self, service: str, path: str) -> bytes | None:
        try:
            with urllib.request.urlopen(f"http://{self.address(service)}{path}", timeout=15) as got:
                content: bytes = got.read()
                return content
        except OSError:
            return None


def pictures(prometheus: Prometheus) -> None:
    """A picture of each dashboard, where `$MALEARN_PICTURES` says."""
    place = os.environ.get("MALEARN_PICTURES")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not place or not browser:
        return
    for board in boards():
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "page.html"
            page.write_text(panels.page(board, prometheus), "utf-8")
            picture = Path(place).absolute() / f"dashboard-{board.name}.png"
            subprocess.run(
                [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                 "--disable-background-networking", f"--user-data-dir={folder}/profile",
                 f"--window-size={panels.WIDTH},{panels.height(board)}",
                 f"--screenshot={picture}", page.as_uri()],
                check=True, capture_output=True, timeout=120,
            )  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
