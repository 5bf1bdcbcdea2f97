"""Who may use the servers of a home: its owner, and no web page in the owner's browser."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
import redis

from malearn.flows import deployments
from malearn.kernel.home import Home
from malearn.platform import EmbeddedRedis, PrefectServer, private

FOREIGN = "http://attacker.example"


def ask(url: str, body: object = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (in lower case) and content of an answer; proxies are not asked."""
    data = None if body is None else json.dumps(body).encode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(url, data, {"Content-Type": "application/json", **headers})
    try:
        answer = build_opener(ProxyHandler({})).open(request, timeout=120)
    except HTTPError as error:
        answer = error
    with answer:
        return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()


def basic(login: str) -> str:
    return f"Basic {base64.b64encode(login.encode()).decode()}"


@pytest.fixture
def login(prefect_api: str) -> str:
    """What the session's Prefect asks for."""
    assert prefect_api
    return basic(os.environ["PREFECT_API_AUTH_STRING"])


def modes(root: Path) -> dict[str, int]:
    """What others than the owner may do, by path; only where that is anything."""
    places = [root, *root.rglob("*")]
    found = {str(place.relative_to(root)): place.lstat().st_mode for place in places}
    return {name: mode & 0o077 for name, mode in found.items() if not stat.S_ISLNK(mode)}


# ── Redis ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def server(home: Home) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(home) as server:
        yield server


def test_redis_refuses_who_has_no_password_or_another(server: EmbeddedRedis) -> None:
    for url in (server.address, server.address.replace("://", "://:guess@")):
        with redis.Redis.from_url(url) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
    assert server.alive()


def test_its_password_stands_in_no_command_line_and_no_file_for_others(
    server: EmbeddedRedis,
) -> None:
    password = private.secret(server.secret_file)
    assert password in server.url and password not in server.address
    shown = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True)
    assert str(server.home.root) in shown.stdout and password not in shown.stdout
    assert set(modes(server.home.root).values()) == {0}


def test_each_home_has_secrets_of_its_own_that_stay(tmp_path: Path) -> None:
    one, two = (private.secret(tmp_path / name / "secret") for name in "ab")
    assert one != two and len(one) >= 32
    assert private.secret(tmp_path / "a" / "secret") == one


def test_a_secret_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("cu")
    made = private.secret(tmp_path / "secret")
    assert len(made) >= 32
    assert (tmp_path / "secret").read_text() == f"{made}\n"
    assert (tmp_path / "secret").stat().st_mode & 0o077 == 0


# ── Prefect ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": FOREIGN},
        {"Host": "attacker.example"},
        {"Authorization": basic("malearn:guess")},
        {"Authorization": "Basic nonsense"},
    ],
)
def test_prefect_does_nothing_for_who_lacks_the_secret(
    prefect_api: str, headers: dict[str, str]
) -> None:
    for path in ("deployments/filter", "flow_runs/filter", "work_pools/filter", "flows/"):
        assert ask(f"{prefect_api}/{path}", {"name": "x"}, **headers)[0] == 401


def test_prefect_lets_no_foreign_page_read_an_answer(prefect_api: str, login: str) -> None:
    """Not even one that knows the secret; its own pages do, whichever name they are opened by."""
    asked = {"Authorization": login}
    _, headers, _ = ask(f"{prefect_api}/flows/filter", {}, Origin=FOREIGN, **asked)
    assert headers.get("access-control-allow-origin") is None
    own = prefect_api.removesuffix("/api")
    for origin in (own, own.replace("127.0.0.1", "localhost")):
        status, headers, _ = ask(f"{prefect_api}/flows/filter", {}, Origin=origin, **asked)
        assert (status, headers["access-control-allow-origin"]) == (200, origin)


@pytest.mark.parametrize(
    "variables",
    [
        {"command": "touch owned"},
        {"env": {"PYTHONPATH": "/tmp"}},
        {"env.PYTHONPATH": "/tmp"},
        {"working_dir": "/tmp"},
    ],
)
def test_a_flow_run_chooses_neither_command_nor_environment_nor_directory(
    prefect_api: str, login: str, tmp_path: Path, variables: dict[str, Any]
) -> None:
    """Who may start a run may start that run, and nothing else on this machine."""
    import asyncio

    from prefect.client.orchestration import get_client
    from prefect.workers.process import ProcessJobConfiguration

    with get_client(sync_client=True) as client:
        deployments.deploy(client, tmp_path)
        (deployment, *_) = client.read_deployments()
    url = f"{prefect_api}/deployments/{deployment.id}/create_flow_run"
    status, _, answer = ask(url, {"job_variables": variables}, Authorization=login)
    assert status in (409, 422), answer
    # Nor would the worker obey, had a run been made in another way.
    template = deployments.job_template(tmp_path)
    job = asyncio.run(ProcessJobConfiguration.from_template_and_values(template, variables))
    expected = template["job_configuration"]
    assert (job.command, str(job.working_dir)) == (expected["command"], expected["working_dir"])
    assert job.env == {}


def test_deployments_of_an_earlier_malearn_are_replaced(prefect_api: str, tmp_path: Path) -> None:
    """Else their schedules would go on beside those of the new ones."""
    from prefect.client.orchestration import get_client

    from malearn.flows.ingest import ingest

    with get_client(sync_client=True) as client:
        deployments.deploy(client, tmp_path)
        former = ingest.to_deployment("scheduled", cron="0 0 1 1 *")
        former.apply()
        deployments.deploy(client, tmp_path)
        names = {one.name for one in client.read_deployments()}
    assert {one["name"] for one in deployments.declared()} <= names
    assert "scheduled" not in names


def test_prefect_runs_a_flow_for_who_has_the_secret(prefect_api: str, login: str) -> None:
    assert ask(f"{prefect_api}/flows/filter", {}, Authorization=login)[0] == 200


def test_a_prefect_server_keeps_its_secret_from_other_users(home: Home) -> None:
    server = PrefectServer(home)
    assert server.login().startswith("malearn:")
    assert server.client()["PREFECT_API_AUTH_STRING"] == server.login()
    assert server.secret_file.stat().st_mode & 0o777 == 0o600
    assert server.login() not in " ".join(map(str, server.command(1)))


# ── MLflow ────────────────────────────────────────────────────────────────────────────


def test_mlflow_refuses_foreign_hosts_and_origins(tracking_uri: str) -> None:
    search = f"{tracking_uri}/api/2.0/mlflow/experiments/search"
    create = f"{tracking_uri}/api/2.0/mlflow/experiments/create"
    assert ask(search, {"max_results": 1})[0] == 200
    assert ask(search, {"max_results": 1}, Host="attacker.example")[0] == 403
    assert ask(create, {"name": "owned"}, Origin=FOREIGN)[0] == 403
    assert b"owned" not in ask(search, {"max_results": 1000})[2]
