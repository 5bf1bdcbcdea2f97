"""`malearn up`: one platform, started once here, looked at, used, hurt, and started again."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from malearn.data import locks
from malearn.flows import deployments
from malearn.kernel.home import Home
from malearn.kernel.tool_types import declared
from tests.flows import conftest
from tests.flows.conftest import Running, processes

TOOL = "up_process"
DECLARATION = f"""
[{TOOL}]
resource = "cpu"
retrain_after = 60
[{TOOL}.features]
length = {{ min = 0, max = 100000, monotone = 1 }}
"""
SERVICES = ("Redis", "MLflow", "Prefect")
ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

pytestmark = pytest.mark.timeout(3600)  # the whole platform on a machine that may have two cores


class Up:
    """`malearn up` on one home, which a test may end and start again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, Home(folder / "a home? #1")
        (folder / "malearn.toml").write_text(DECLARATION)
        for place in (folder, self.home.root):  # a project of the user's, which ours must not meet
            for name in ("flows", "expectations", "serving"):
                (place / name).mkdir(parents=True)
                (place / name / "__init__.py").write_text("raise ImportError('not malearn')")
        self.running: Running

    def start(self) -> None:
        """As on a machine behind proxies, which do not answer here."""
        nowhere = "http://127.0.0.1:1"
        surroundings = {
            "HTTP_PROXY": nowhere,
            "https_proxy": nowhere,
            "ALL_PROXY": "socks5://127.0.0.1:1",
            "no_proxy": "example.com",
            "PYTHONPATH": ".",
        }
        self.running = Running(self.folder, "up", "--home", self.home.root, **surroundings)
        self.running.wait_for("Ctrl-C stops everything")
        lines = [line.split() for line in self.running.said]
        self.addresses = {line[0]: line[1] for line in lines if line and line[0] in SERVICES}

    @property
    def redis_url(self) -> str:
        password = (self.home.state / "secrets" / "redis").read_text().strip()
        return self.addresses["Redis"].replace(":***@", f":{password}@")

    def ask(self, path: str, body: object = None, method: str | None = None) -> Any:
        """What Prefect answers; while its database is busy it says 503 and means: again, please."""
        secret = (self.home.state / "secrets" / "prefect").read_text().strip()
        headers = {
            "Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}",
            "Content-Type": "application/json",
        }
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.addresses['Prefect']}/api/{path}"
        for _ in range(20):
            asked = urllib.request.Request(url, data, headers, method=method)
            try:
                with urllib.request.urlopen(asked, timeout=120) as answer:
                    content = answer.read()
                    return json.loads(content) if content else None
            except urllib.error.HTTPError as error:
                if error.code != 503:
                    raise
                error.close()
                time.sleep(1)
        raise TimeoutError(f"{path} stayed busy")

    def pid(self, service: str) -> int:
        state = json.loads((self.home.state / "run" / f"{service.lower()}.json").read_text())
        return int(state["pid"])

    def deployment(self, flow: str) -> dict[str, Any]:
        every = self.ask("deployments/filter", {})
        (found,) = (d for d in every if d["entrypoint"] == f"malearn.flows.unattended.{flow}")
        kept: dict[str, Any] = found
        return kept

    def begin(self, flow: str) -> str:
        """The id of a run of `flow`, asked for now."""
        asked = {"state": {"type": "SCHEDULED"}}
        made = self.ask(f"deployments/{self.deployment(flow)['id']}/create_flow_run", asked)
        return str(made["id"])

    def await_run(self, run: str, *states: str, seconds: float = 900.0) -> str:
        """The state of `run`, once it is among `states`; or whatever it is in the end."""
        for _ in within(seconds):
            state = str(self.ask(f"flow_runs/{run}")["state_type"])
            if state in states:
                break
        return state

    def await_runs(
        self, flow: str, *states: str, seconds: float = 900.0, **wanted: Any
    ) -> list[dict[str, Any]]:
        """The runs of the deployment of `flow` in one of `states`; waits for one."""
        which = {
            "deployments": {"id": {"any_": [self.deployment(flow)["id"]]}},
            "flow_runs": {"state": {"type": {"any_": states}}},
        }
        for _ in within(seconds):
            runs = [
                run
                for run in self.ask("flow_runs/filter", which)
                if all(run[key] == value for key, value in wanted.items())
            ]
            if runs:
                break
        return runs

    def production(self) -> str:
        """The version that serves; HTTPError while there is none."""
        asked = f"name=malearn-{TOOL}&alias=Production"
        url = f"{self.addresses['MLflow']}/api/2.0/mlflow/registered-models/alias?{asked}"
        with urllib.request.urlopen(url, timeout=120) as answer:
            return str(json.load(answer)["model_version"]["version"])


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    platform = Up(tmp_path_factory.mktemp("up"))
    try:
        platform.start()
        yield platform
    finally:
        if platform.running.process.poll() is None:
            platform.running.process.kill()
            platform.running.end()


def test_says_where_everything_is_and_it_is_there(up: Up) -> None:
    assert set(up.addresses) == set(SERVICES)
    assert all(
        address.startswith(("http://127.0.0.1:", "redis://:***@127.0.0.1:"))
        for address in up.addresses.values()
    )
    for service in ("MLflow", "Prefect"):
        with urllib.request.urlopen(up.addresses[service], timeout=120) as page:
            assert page.status == 200
    there = {d["entrypoint"] for d in up.ask("deployments/filter", {})}
    assert there == {one["entrypoint"] for one in deployments.declared()}


def test_scheduled_runs_bring_in_what_is_new_and_enough_of_it_starts_a_retraining(up: Up) -> None:
    lines = conftest.records(
        80, f"task2_{TOOL}", 0, lambda dice: {"length": dice.randint(100, 5000)}, {}
    )
    with redis.Redis.from_url(up.redis_url) as client:
        client.mset({f"result:{line['task_id']}": json.dumps(line["data"]) for line in lines})
    often = {"schedule": {"interval": 10}, "active": True}
    schedules = f"deployments/{up.deployment('ingest')['id']}/schedules"
    (extra,) = up.ask(schedules, [often])
    (first, *_) = up.await_runs("ingest", "RUNNING", "COMPLETED", auto_scheduled=True)
    up.ask(f"{schedules}/{extra['id']}", method="DELETE")
    assert up.await_run(first["id"], "COMPLETED", *ENDS) == "COMPLETED"
    (run, *_) = up.await_runs("retrain", "COMPLETED")
    assert run["parameters"]["tool_type"] == TOOL
    assert run["name"] == f"retrain {TOOL}: new executions"
    assert up.production() == "1"


def test_what_is_killed_comes_back_where_it_was_with_what_it_kept(up: Up) -> None:
    """And the run that died with its worker is not left running for ever."""
    tool_type = declared(up.folder / "malearn.toml")[TOOL]
    with locks.retrain_lock(up.home, tool_type):  # so that it cannot end before it is killed
        # One that meets a scheduled run is cancelled, as the deployment says: ask again.
        while up.await_run(run := up.begin("lifecycle"), "RUNNING", "CANCELLED") == "CANCELLED":
            pass
        with redis.Redis.from_url(up.redis_url) as client:
            client.set("acknowledged", "just now")
            for service in ("Redis", "MLflow", "Worker"):
                os.kill(up.pid(service), signal.SIGKILL)
    for service in ("Redis", "MLflow", "Worker"):
        up.running.wait_for(f"{service} is up again")
    with redis.Redis.from_url(up.redis_url) as client:
        assert client.get("acknowledged") == b"just now"
    assert up.production() == "1"
    assert up.await_run(run, "CRASHED") == "CRASHED"
    while (state := up.await_run(up.begin("ingest"), *ENDS)) == "CANCELLED":
        pass
    assert state == "COMPLETED"


def test_goes_on_after_it_was_killed_itself(up: Up) -> None:
    up.running.process.kill()
    up.running.end()
    before = up.addresses
    up.start()
    assert up.addresses == before
    assert up.production() == "1"


def test_a_second_one_says_that_it_attached_and_leaves_the_first_alone(up: Up) -> None:
    second = Running(up.folder, "up", "--home", up.home.root)
    second.wait_for("Another `malearn up` runs on this home")
    assert second.ctrl_c()[0] == 0
    assert up.running.process.poll() is None
    assert up.ask("deployments/filter", {})


def test_stops_everything_at_ctrl_c(up: Up) -> None:
    assert up.running.ctrl_c() == (0, "")
    assert processes(up.home) == set()
    assert not [line for line in up.running.said if "Traceback" in line], up.running.said


def within(seconds: float, pause: float = 0.5) -> Iterator[None]:
    """Turns of a loop, with a pause between two, for so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(pause)
