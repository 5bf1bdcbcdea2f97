"""A predictor sent to another process, or used in an event loop, as docs/serving.md says."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest
import redis

from malearn import DAGTaskPredictor
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.serving.cache import ModelCache

RUN = "19725120-6620-445b-9f40-7ceccb20bae2"
SENT = {
    "pickle": (pickle.dumps, pickle.loads),
    "a copy": (lambda predictor: predictor, copy.copy),
    "Ray": (None, pickle.loads),  # its own pickler, as for the arguments of a task
}


@pytest.mark.parametrize("way", SENT)
def test_it_arrives_as_a_new_one_with_the_same_settings(
    way: str,
    predictor: Callable[..., DAGTaskPredictor],
    tool_types: ToolTypes,
    tool_type: ToolType,
    toy: Any,
    tmp_path: Path,
) -> None:
    address = "http://127.0.0.1:1"
    cache = ModelCache(tmp_path / "cache", address, "Trial")
    cache.write(tool_type.registered_model, 7, toy())
    here = predictor(tracking_uri=address, alias="Trial")
    here.func_name_to_tool_type["another_name"] = tool_type.name
    send, receive = SENT[way]
    send = send or pytest.importorskip("ray.cloudpickle").dumps
    with receive(send(here)) as there:
        assert there is not here
        answer = there.estimate("another_name", "cpu", features={"size": 2.0})
        assert (answer.source, answer.model_version, answer.seconds) == ("model", 7, 13.0)
        assert there.stats().calls == 1
    assert here.stats().calls == 0
    assert here.estimate("another_name", "cpu").model_version == 7  # closing one closes one


def test_a_spawned_process_answers_and_reports_as_its_parent_does(
    predictor: Callable[..., DAGTaskPredictor],
    record: Any,
    tool_type: ToolType,
    redis_url: str,
    redis_client: redis.Redis,
) -> None:
    here = predictor(redis_url, budget=5.0)
    redis_client.set(f"result:{RUN}-before", record(successors={"toy_process": {"size": 3}}))
    finished = {"start_time": 100.0, "end_time": 107.0, "curr_task_feat": {"size": 3.0}}
    calls = [
        methodcaller("collect_data_for_task", f"{RUN}-toy_process", "toy_process", finished),
        methodcaller("estimate", "toy_process", "cpu", [f"{RUN}-before"]),
        methodcaller("close"),
    ]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        # One argument, so that all three reach the predictor that arrived.
        answers = list(pool.submit(_each, calls, here).result(120))
    assert answers[1].source == "function_history"
    assert answers[1].seconds == pytest.approx(7.0)
    (entry,) = redis_client.xrange("malearn:executions")
    assert f"{RUN}-toy_process".encode() in entry[1][b"e"]


def _each(calls: list[Any], predictor: DAGTaskPredictor) -> list[Any]:
    return [call(predictor) for call in calls]


def test_what_the_page_says_of_event_loops_runs(
    redis_url: str, redis_client: redis.Redis, record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")
    chapter = page.split("## Other processes, Ray and asyncio")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", chapter, re.DOTALL)
    monkeypatch.setenv("MALEARN_REDIS_URL", redis_url)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/serving.md", "exec"), names)
    predictor, estimating = names["predictor"], names["estimating"]

    async def scheduler() -> list[Any]:
        await names["finished"](f"{RUN}-toy_process", "toy_process", record(seconds=6.0))
        return list(await names["estimates"]([("toy_process", "cpu", []), ("other", "io", [])]))

    with predictor, estimating:
        first, second = asyncio.run(scheduler())
    assert (first.source, round(first.seconds, 3)) == ("function_history", 6.0)
    assert second.seconds > 0.0
