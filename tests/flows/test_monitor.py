"""The monitor as a flow and as a command, on a real Prefect and a real MLflow."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from malearn.kernel.errors import UnknownToolType
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolType, declared
from malearn.lifecycle import mlflow_connection, registry
from malearn.lifecycle.monitoring import Action
from malearn.lifecycle.registry import PRODUCTION
from tests.flows.conftest import Cli, Log

TOOL = "watched_process"
FUNCTION = f"task2_{TOOL}"
DECLARATION = f"""
[{TOOL}]
resource = "cpu"
[{TOOL}.features]
length = {{ min = 0, max = 100000, monotone = 1 }}
"""


@pytest.fixture(scope="module")
def servers(
    tracking_uri: str, prefect_api: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """A tool type of this module's own, and where the servers are."""
    file = tmp_path_factory.mktemp("declared") / "types.toml"
    file.write_text(DECLARATION)
    settings = {"MALEARN_TOOL_TYPES": str(file), "MLFLOW_TRACKING_URI": tracking_uri}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MALEARN_REDIS_URL", raising=False)
        for name, value in settings.items():
            patch.setenv(name, value)
        yield {**settings, "PREFECT_API_URL": prefect_api}


@pytest.fixture
def tool_type(servers: dict[str, str]) -> ToolType:
    return declared()[TOOL]


@pytest.fixture
def serving(log: Log, home: Home, tool_type: ToolType, tracking_uri: str) -> int:
    """A linear model that serves, promoted by hand."""
    from malearn.flows.ingest import ingest
    from malearn.flows.promote import promote
    from malearn.flows.train import train

    ingest([str(log(80, FUNCTION, features=anything))], str(home.root))
    with mlflow_connection.connected(tracking_uri):
        if registry.by_alias(tool_type, PRODUCTION):  # of another test, on other rows
            registry.unpublish(tool_type)
    trained = train(TOOL, str(home.root), ["linear"])
    assert trained.version is not None
    return promote(TOOL, trained.version, str(home.root), bypass_gate=True).version


def anything(dice: Random) -> dict[str, Any]:
    return {"length": dice.randint(100, 5000)}


def long(dice: Random) -> dict[str, Any]:
    return {"length": dice.randint(4000, 5000)}


@pytest.fixture
def events(prefect_api: str) -> Callable[[], list[dict[str, Any]]]:
    """Those by which retrainings of our tool type were asked for; waits for the first."""
    import httpx

    wanted = {
        "event": {"name": ["malearn.drift.found"]},
        "resource": {"id": [f"malearn.tool-type.{TOOL}"]},
    }

    def find() -> list[dict[str, Any]]:
        until = time.monotonic() + 300.0
        while True:
            answer = httpx.post(
                f"{prefect_api}/events/filter",
                json={"filter": wanted},
                auth=(*os.environ["PREFECT_API_AUTH_STRING"].split(":", 1),),
            )
            found: list[dict[str, Any]] = answer.raise_for_status().json()["events"]
            if found or time.monotonic() > until:
                return found
            time.sleep(0.1)

    return find


def test_a_drift_that_stays_asks_for_a_retraining(
    serving: int, log: Log, home: Home, events: Callable[[], list[dict[str, Any]]]
) -> None:
    """Outside a deployment, where perhaps nobody listens, the retraining is made as well."""
    from malearn.flows.ingest import ingest
    from malearn.flows.monitor import monitor

    looks = []
    for seed in (1, 2):
        ingest([str(log(40, FUNCTION, seed=seed, features=long))], str(home.root))
        looks.append(monitor([TOOL], str(home.root))[TOOL])
    first, second = looks
    assert (first.report.decision.action, first.retrained) == (Action.WARN, None)
    assert second.report.decision.retrain
    assert second.retrained
    (event,) = events()
    assert event["payload"]["version"] == serving
    assert "length drifted" in event["payload"]["why"]


def test_an_alias_given_to_what_cannot_serve_goes_back_and_everybody_is_told(
    serving: int, home: Home, tool_type: ToolType
) -> None:
    import mlflow

    from malearn.flows.monitor import monitor

    client, name = mlflow.MlflowClient(), tool_type.registered_model
    run_id = registry.version(tool_type, serving).run_id
    nothing = client.create_model_version(name, f"runs:/{run_id}/nothing", run_id=run_id)
    client.set_registered_model_alias(name, PRODUCTION, nothing.version)
    watched = monitor([TOOL], str(home.root))[TOOL]
    assert watched.production == serving
    assert (watched.manual.moved_to, watched.manual.production) == (
        int(nothing.version),
        serving,
    )
    assert client.get_model_version_by_alias(name, PRODUCTION).version == str(serving)
    assert "malearn.refused" in client.get_model_version(name, nothing.version).tags


def test_commands_tell_how_what_serves_does(
    serving: int, home: Home, cli: Cli, servers: dict[str, str]
) -> None:
    done = cli("monitor", TOOL, "--home", home.root, "--json", **servers)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)[TOOL]
    assert (seen["production"], seen["action"], seen["rows"]) == (serving, "nothing", 0)
    assert seen["reasons"] == ["0 new executions; a check needs 30"]

    done = cli("status", "--home", home.root, "--json", **servers)
    status = json.loads(done.stdout)[TOOL]
    assert (status["rows"], status["rows_since"]) == (80, 0)
    assert status["production"]["version"] == serving
    assert status["production"]["age"] >= 0.0
    assert (status["live"], status["fallback_share"]) == (None, None)

    done = cli("monitor", "nonsense", **servers)
    assert (done.returncode, done.stdout) == (1, "")
    assert "There is no tool type 'nonsense'" in done.stderr


def test_a_tool_type_nobody_declared_is_an_error(servers: dict[str, str], home: Home) -> None:
    from malearn.flows.monitor import monitor

    with pytest.raises(UnknownToolType):
        monitor(["nonsense"], str(home.root))
