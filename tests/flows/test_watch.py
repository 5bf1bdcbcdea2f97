"""`malearn ingest --watch`: nothing that is set slips through, and Ctrl-C keeps what was caught."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import redis

from malearn.data.dataset import Dataset
from malearn.kernel.home import Home
from malearn.kernel.tool_types import declared
from tests.flows.conftest import MALEARN, Cli, Log, clean

NOTIFY = "notify-keyspace-events"


def test_results_are_taken_as_they_are_set_until_ctrl_c(
    log: Log, home: Home, tmp_path: Path, redis_url: str, redis_client: redis.Redis
) -> None:
    redis_client.config_set(NOTIFY, "")
    command = [MALEARN, "ingest", "--watch", "--set-notifications", "--json", "--home", home.root]
    watching = subprocess.Popen(
        list(map(str, command)),
        cwd=tmp_path,
        env=clean(tmp_path, MALEARN_REDIS_URL=redis_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 300
        while redis_client.pubsub_numpat() == 0:
            assert watching.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        for line in log(4).read_text("utf-8").splitlines():
            task = json.loads(line)
            redis_client.set(f"result:{task['task_id']}", json.dumps(task["data"]))
        assert watching.stderr is not None
        assert any("8 records, 4 accepted" in line for line in watching.stderr)
        redis_client.delete(*redis_client.keys("result:*"))
        watching.send_signal(signal.SIGINT)
        told, progress = watching.communicate(timeout=300)
    finally:
        watching.kill()
        redis_client.config_set(NOTIFY, "")
    assert watching.returncode == 0, progress
    answer = json.loads(told)
    assert answer["records"] == 8
    assert answer["tool_types"]["llm_process"]["accepted"] == 4
    assert Dataset.open(home, declared()["llm_process"]).rows == 4


def test_a_redis_that_is_not_ours_is_not_touched_unasked(
    cli: Cli, log: Log, home: Home, redis_url: str, redis_client: redis.Redis
) -> None:
    redis_client.config_set(NOTIFY, "")
    done = cli("ingest", "--watch", "--home", home.root, MALEARN_REDIS_URL=redis_url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].endswith(
        f"has keyspace notifications disabled; run CONFIG SET {NOTIFY} K$, or pass "
        "--set-notifications."
    )
    assert redis_client.config_get(NOTIFY) == {NOTIFY: ""}
    assert cli("ingest", log(1), "--watch", "--home", home.root).returncode == 2
