"""A user's `malearn.toml`, and nothing else, takes a new tool type all the way to an answer."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from malearn.kernel.home import Home
from tests.flows.conftest import Cli, Log, processes

DECLARATION = """
[video_process]
functions = ["video_process"]         # patterns
resource = "gpu"
[video_process.features]
duration    = { unit = "s", min = 0, max = 86400, monotone = 1 }
frame_count = { unit = "frames", min = 1 }
batch_size  = { unit = "items", min = 1, default = 1 }
"""


def film(dice: Random) -> dict[str, Any]:
    seconds = dice.randint(10, 3600)
    return {"duration": seconds, "frame_count": 24 * seconds, "batch_size": dice.randint(1, 4)}


def endless(dice: Random) -> dict[str, Any]:
    return film(dice) | {"duration": 90_000}


def test_one_declaration_is_all_that_a_tool_type_needs(
    cli: Cli, log: Log, tmp_path: Path, home: Home, tracking_uri: str, prefect_api: str
) -> None:
    (tmp_path / "malearn.toml").write_text(DECLARATION)
    servers = {"MLFLOW_TRACKING_URI": tracking_uri, "PREFECT_API_URL": prefect_api}
    good = log(80, "task2_video_process", features=film)
    bad = log(1, "task2_video_process", name="bad.jsonl", seed=1, features=endless)

    done = cli("run", "--from", good, bad, "--home", home.root, "--json", **servers)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    video = result["tool_types"]["video_process"]
    assert (video["accepted"], video["quarantined"], video["outliers"]) == (80, 1, 0)
    assert video["production"]["version"] == 1, video["why"]

    task = ("predict", "task2_video_process", "--home", home.root, "--json")
    done = cli(*task, "-f", "duration=600", "-f", "frame_count=14400", **servers)
    answer = json.loads(done.stdout)
    assert (answer["source"], answer["model_version"]) == ("model", 1)
    assert 2.0 < answer["seconds"] < 40.0

    done = cli("data", "export", "video_process", "--home", home.root, "--json")
    assert json.loads(done.stdout)["rows"] == 80
    header = (tmp_path / "video_process.csv").read_text().splitlines()[0]
    assert header.startswith("task_id,timestamp,duration,frame_count,batch_size,execution_time")

    done = cli("status", "--home", home.root, **servers)
    assert "video_process" in done.stdout
    assert processes(home) == set()
