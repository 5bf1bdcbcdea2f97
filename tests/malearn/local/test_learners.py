"""What a scheduler that learns by itself keeps of tasks that no function's name claims."""

from __future__ import annotations

import csv
from pathlib import Path

import redis

from malearn import DAGTaskPredictor
from malearn.kernel.tool_types import declared, parse

RUN = "18e5d7d8-f37a-4a88-8eb1-074882395c8b"


def test_tasks_that_are_claimed_by_what_they_run_on_are_kept(tmp_path: Path) -> None:
    text = '[local]\nkinds = ["gpu"]\nbackends = ["vllm*"]\nfeatures.pages = {}\n'
    types = declared().with_added(parse(text, "a test")[0])
    known = {"pages": 3, "backend": "vllm-0.11"}
    with DAGTaskPredictor("", model_dir=tmp_path, tool_types=types) as predictor:
        for number in range(3):
            task_id = f"{RUN}-answer_{number}"
            predictor.estimate(f"answer_{number}", "gpu", features=known, task_id=task_id)
            said = {"start_time": 1.7e9, "end_time": 1.7e9 + 4, "curr_task_feat": known}
            predictor.collect_data_for_task(task_id, f"answer_{number}", said)
        predictor.close(60)
        stats = predictor.stats()
        assert (stats.internal_errors, stats.queued, stats.dropped) == (0, 0, 0)
    with (tmp_path / "local" / "data" / "local_data.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["execution_time"] for row in rows] == ["4.0"] * 3


def test_a_predictor_may_learn_by_itself_and_write_nothing_to_redis(
    tmp_path: Path, redis_url: str, redis_client: redis.Redis
) -> None:
    said = {"start_time": 1.7e9, "end_time": 1.7e9 + 4, "curr_task_feat": {"text_length": 9}}
    with DAGTaskPredictor(redis_url, model_dir=tmp_path, shares=False) as predictor:
        assert predictor.wait_until_ready(120)
        for number in range(3):
            task_id = f"{RUN}-{number}_llm_process"
            predictor.collect_data_for_task(task_id, "llm_process", said)
        predictor.close(60)
        stats = predictor.stats()
        assert (stats.sent, stats.queued, stats.dropped) == (0, 0, 0)
    with (tmp_path / "llm_process" / "data" / "llm_process_data.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3
    assert redis_client.keys("malearn:*") == []
