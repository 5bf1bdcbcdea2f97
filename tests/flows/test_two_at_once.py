"""Two of everything at once, as two schedulers' cron jobs would have it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from malearn.data import locks
from malearn.data.dataset import Dataset
from malearn.kernel.home import Home
from malearn.kernel.tool_types import declared
from malearn.lifecycle import mlflow_connection, registry
from tests.flows.conftest import MALEARN, Log, clean

TOOL = "twin_process"
DECLARATION = f"""
[{TOOL}]
resource = "cpu"
[{TOOL}.features]
length = {{ min = 0, max = 100000, monotone = 1 }}
"""
HOLDER = """
import sys, time
from malearn.kernel.home import Home
from malearn.kernel.tool_types import declared
from malearn.data import locks
with locks.retrain_lock(Home.find(sys.argv[1]), declared()["llm_process"]):
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.mark.timeout(3600)  # two of the main job on a machine that may have two cores
def test_two_lifecycles_at_once_double_and_corrupt_nothing(
    log: Log,
    home: Home,
    tmp_path: Path,
    redis_url: str,
    tracking_uri: str,
    prefect_api: str,
) -> None:
    (tmp_path / "malearn.toml").write_text(DECLARATION)
    logs = [
        log(40, f"task2_{TOOL}", f"{n}.jsonl", n, lambda dice: {"length": dice.randint(100, 5000)})
        for n in range(3)
    ]
    servers = {
        "MALEARN_REDIS_URL": redis_url,
        "MLFLOW_TRACKING_URI": tracking_uri,
        "PREFECT_API_URL": prefect_api,
    }
    twins = [
        subprocess.Popen(
            [MALEARN, "run", "--home", home.root, "--json", "--from", *files],
            cwd=tmp_path,
            env=clean(tmp_path, **servers),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for files in (logs, logs[::-1])
    ]
    try:
        said = [twin.communicate(timeout=1800) for twin in twins]
    finally:
        for twin in twins:
            twin.kill()
    assert [twin.returncode for twin in twins] == [0, 0], said
    results = [json.loads(out) for out, _ in said]

    ours = declared(tmp_path / "malearn.toml")[TOOL]
    rows = Counter(execution.task_id for execution in Dataset.open(home, ours).read())
    wanted = (json.loads(line) for file in logs for line in file.read_text().splitlines())
    assert rows == Counter(line["task_id"] for line in wanted if line["func_name"].endswith(TOOL))
    assert sum(result["tool_types"][TOOL]["accepted"] for result in results) == len(rows) == 120
    assert [r["tool_types"][TOOL]["production"]["version"] for r in results] == [1, 1]
    mlflow_connection.connect(tracking_uri)
    (version,) = registry.versions(ours)
    serving = registry.by_alias(ours, registry.PRODUCTION)
    assert serving is not None and serving.number == version.number


def test_nobody_waits_for_a_retraining_that_was_killed(home: Home) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, home.root], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    with holder.stdout as said:
        assert said.readline() == "held\n"

    def kill() -> None:
        holder.send_signal(signal.SIGKILL)
        holder.wait()

    with locks.retrain_lock(home, declared()["llm_process"], waiting=kill):
        assert holder.returncode == -signal.SIGKILL
