"""Several installations on one Redis, several streams, many schedulers, more functions than fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import redis

from malearn.data import stream
from malearn.kernel.errors import InputError
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.names import Names
from malearn.serving.shared_history import SharedHistory, function_limit

Build = Callable[..., Any]


def run(number: int) -> str:
    return str(UUID(int=number))


def test_a_prefix_keeps_two_installations_apart(
    predictor: Build, record: Any, redis_url: str, redis_client: redis.Redis, eventually: Any
) -> None:
    ours, theirs = predictor(redis_url, prefix="ours"), predictor(redis_url, prefix="theirs")
    assert ours.wait_until_ready()
    assert theirs.wait_until_ready()
    ours.collect_data_for_task(f"{run(1)}-step", "step", record())
    eventually(lambda: ours.stats().sent == 1)
    keys = {key.decode() for key in redis_client.keys("*")}
    assert keys == {"ours:executions", "ours:history:step", "ours:functions"}
    assert predictor(redis_url, prefix="theirs").wait_until_ready()
    assert theirs.estimate("step", "cpu").source == "heuristic"
    again = predictor(redis_url, prefix="ours", budget=60.0)
    assert again.wait_until_ready()
    assert again.estimate("step", "cpu").source == "function_history"


@pytest.mark.parametrize("prefix", ["a b", "1x", "x:y", "*", "x" * 65])
def test_what_is_no_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(InputError, match="prefix: must begin with a letter"):
        Names.find(prefix)


def test_all_of_a_run_is_in_one_of_several_streams_and_others_follow_all(
    predictor: Build,
    record: Any,
    redis_url: str,
    redis_client: redis.Redis,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MALEARN_STREAMS", "4")
    one, other = (predictor(redis_url, budget=60.0) for _ in range(2))
    assert one.wait_until_ready()
    assert other.wait_until_ready()
    for number in range(12):
        for function in ("first", f"step{number}"):
            one.collect_data_for_task(f"{run(number)}-{function}", function, record())
    eventually(lambda: one.stats().sent == 24)
    keys = stream.existing(redis_url)
    assert len(keys) > 1
    of_run: dict[str, set[str]] = {}
    for key in keys:
        for _, fields in redis_client.xrange(key):  # type: ignore[union-attr]
            of_run.setdefault(json.loads(fields[b"e"])["task_id"][:36], set()).add(key)
    assert len(of_run) == 12
    assert all(len(places) == 1 for places in of_run.values())
    eventually(
        lambda: all(
            other.estimate(f"step{n}", "cpu").source == "function_history" for n in range(12)
        )
    )


def test_of_a_flood_the_newest_of_each_function_are_followed(
    predictor: Build, redis_url: str, redis_client: redis.Redis, eventually: Any
) -> None:
    p = predictor(redis_url)
    assert p.wait_until_ready()
    now = 1.7e9
    with redis_client.pipeline(transaction=False) as pipe:
        for number in range(4_000):
            seconds = 2.0 if number < 3_000 else 8.0
            entry = {
                "task_id": f"{run(number)}-f{number % 40}",
                "function": f"f{number % 40}",
                "start": now + number,
                "end": now + number + seconds,
            }
            pipe.xadd("malearn:executions", {b"e": json.dumps(entry)})
        pipe.execute()

    def follows() -> bool:
        found = [p.estimate(f"f{n}", "cpu").seconds for n in range(40)]
        return all(abs(seconds - 8.0) < 0.16 for seconds in found)

    eventually(follows, 90)
    assert p.stats().skipped > 0


def test_functions_beyond_the_limit_are_forgotten_and_counted() -> None:
    history = SharedHistory(functions=3)
    for number in range(5):
        history.observe(f"t{number}", Observation(f"f{number}", "tool", 0.0, 1.0 + number))
    assert history.functions == (3, 2)
    assert history.look_up("f0", "tool", (), ()).source == "tool_history"
    assert history.look_up("f4", "tool", (), ()).source == "function_history"


def test_a_restart_restores_the_functions_used_most(
    predictor: Build, record: Any, redis_url: str, eventually: Any
) -> None:
    p = predictor(redis_url)
    assert p.wait_until_ready()
    for number in range(30):
        function = "often" if number % 3 else f"rare{number}"
        p.collect_data_for_task(f"{run(number)}-{function}", function, record())
    eventually(lambda: p.stats().sent == 30)
    again = predictor(redis_url, functions=1, budget=60.0)
    assert again.wait_until_ready()
    assert again.estimate("often", "cpu").source == "function_history"
    assert again.stats().functions == 1


@pytest.mark.parametrize("given", ["0", "many", "-3"])
def test_what_is_no_number_of_functions_is_refused(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALEARN_FUNCTIONS", given)
    with pytest.raises(InputError, match="MALEARN_FUNCTIONS: must be a number of functions"):
        function_limit()
    with pytest.raises(InputError, match=r"^functions: must be a number of functions"):
        function_limit(-3)
