"""`malearn serve`, as a user starts it, with the servers of the session."""

from __future__ import annotations

import json
import stat
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.flows.conftest import Cli, Running

RUN = "19725120-6620-445b-9f40-7ceccb20bae2"
FUNCTION = "task2_llm_process"


def _ask(port: int, method: str, path: str, token: str, body: object = None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    connection.request(method, path, json.dumps(body), headers)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def test_a_scheduler_of_another_language_predicts_and_reports(
    tmp_path: Path, redis_url: str, redis_client: redis.Redis, tracking_uri: str
) -> None:
    home = tmp_path / "a home"
    servers = {"MALEARN_REDIS_URL": redis_url, "MLFLOW_TRACKING_URI": tracking_uri}
    running = Running(tmp_path, "serve", "--home", home, "--port", 0, **servers)
    line = running.wait_for("answers at http://")
    port = int(line.partition("http://")[2].partition(";")[0].rpartition(":")[2])
    file = home / ".malearn" / "http" / "token"
    running.wait_for(f"its token is in {file}")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = file.read_text().strip()

    first = {"start_time": 1.0, "end_time": 2.0, "succ_task_feat": {FUNCTION: {"token_count": 9}}}
    redis_client.set(f"result:{RUN}-task1_read", json.dumps(first))
    done = {"task_name": FUNCTION, "features": {"token_count": 9}, "execution_time": 21}
    assert _ask(port, "POST", "/collect_data", token, done) == (200, {"status": "success"})
    asked = {"task_name": FUNCTION, "predecessors": [f"{RUN}-task1_read"]}
    status, answer = _ask(port, "POST", "/predict", token, asked)
    assert (status, answer["prediction_source"]) == (200, "function_history")
    assert answer["predict_time"] == pytest.approx(21.0)
    assert _ask(port, "POST", "/predict", "nonsense", asked)[0] == 401

    status, output = running.ctrl_c()
    assert (status, output) == (0, "")
    assert redis_client.xlen("malearn:executions") == 1  # for ingestion, sent before the end


def test_it_opens_to_the_network_only_with_a_token(cli: Cli) -> None:
    done = cli("serve", "--host", "0.0.0.0", "--no-token")
    assert done.returncode == 2
    assert "--no-token needs a loopback address, not 0.0.0.0" in done.stderr
    done = cli("serve", MALEARN_HTTP_TOKEN="short")
    assert done.returncode == 1
    assert "malearn: MALEARN_HTTP_TOKEN: must be at least 16 characters" in done.stderr


def test_a_port_that_is_taken_is_named_before_any_server_starts(cli: Cli, redis_url: str) -> None:
    port = redis_url.rpartition(":")[2].partition("/")[0]
    done = cli("serve", "--port", port)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}: cannot be listened at" in done.stderr
