"""Finished tasks reach Redis: other schedulers' histories, and ingestion, live off them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import redis

from malearn import DAGTaskPredictor
from malearn.kernel.reading import stream_entries
from malearn.kernel.records import Execution, Rejected, RejectReason
from malearn.kernel.tool_types import ToolTypes
from malearn.serving import stream_format
from malearn.serving.collector import Collector
from malearn.serving.refusals import Refusals

RUN = "19725120-6620-445b-9f40-7ceccb20bae2"
Build = Callable[..., DAGTaskPredictor]


def entries(client: redis.Redis) -> list[Any]:
    return [json.loads(fields[b"e"]) for _, fields in client.xrange(stream_format.STREAM)]  # type: ignore[union-attr]


def test_a_report_becomes_one_entry_with_what_was_used_to_predict(
    predictor: Build, record: Any, redis_url: str, redis_client: redis.Redis, tool_type: Any
) -> None:
    with predictor(redis_url) as p:
        said = {"toy_process": {"size": 20, "leak": 1}}
        p.collect_data_for_task(f"{RUN}-first", "first", record(successors=said))
        predicted = p.predict("toy_process", "cpu", [f"{RUN}-first"])
        ran = record(7.0, features={"size": 25, "words": 2, "output_tokens": 900})
        p.collect_data_for_task(f"{RUN}-toy_process", "toy_process", ran)
    entry = entries(redis_client)[-1]
    assert entry == {
        "task_id": f"{RUN}-toy_process",
        "function": "toy_process",
        "tool_type": tool_type.name,
        "start": 1_754_000_093.0,
        "end": 1_754_000_100.0,
        "serve": {"size": 20, "words": 1},
        "ran": {"size": 25, "words": 2},
        "query": "query-1",
        "predicted": predicted,
        "model_version": None,
        "predecessors": [f"{RUN}-first"],
        "resource": "cpu",
    }


def test_ingestion_reads_what_a_scheduler_wrote(
    predictor: Build, record: Any, redis_url: str, redis_client: redis.Redis, tool_types: ToolTypes
) -> None:
    with predictor(redis_url) as p:
        ran = record(7.0, features={"size": 25})
        p.collect_data_for_task(f"{RUN}-toy_process", "toy_process", ran)
        numpys = {**json.loads(ran), "curr_task_feat": {"size": np.int64(25)}}
        p.collect_data_for_task(f"{RUN}-n", "toy_process", numpys)
        numpys["curr_task_feat"]["size"] = np.int64(99)  # whose it is may go on with it
        p.collect_data_for_task(f"{RUN}-a", "toy_process", record(status="failed"))
        p.collect_data_for_task(f"{RUN}-b", "toy_process", "{no json")
        p.collect_data_for_task(f"{RUN}-c", "untyped", record(features={"rows": 3}))
        p.collect_data_for_task(f"{RUN}-d", "toy_process", record(features={"size": "much"}))
    raws = [fields[b"e"] for _, fields in redis_client.xrange(stream_format.STREAM)]  # type: ignore[union-attr]
    first, second, *others = [stream_entries.read(raw, tool_types) for raw in raws]
    assert isinstance(first, Execution)
    assert isinstance(second, Execution)
    assert (first.seconds, first.ran) == (second.seconds, second.ran) == (7.0, (25.0, 1.0))
    assert [other.reason for other in others if isinstance(other, Rejected)] == [
        RejectReason.SOFT_FAILED,
        RejectReason.INVALID_JSON,
        RejectReason.UNMAPPED_FUNCTION,
        RejectReason.INVALID_FEATURE,
    ]


def test_a_task_only_named_is_read_in_the_background(
    predictor: Build, record: Any, redis_url: str, redis_client: redis.Redis, eventually: Any
) -> None:
    redis_client.set(f"result:{RUN}-step", record(4.0))
    p = predictor(redis_url)
    p.collect_data_for_task(f"{RUN}-step", "step")
    p.collect_data_for_task(f"{RUN}-gone", "step")
    eventually(lambda: p.estimate("step", "gpu").source == "function_history")
    eventually(lambda: len(entries(redis_client)) == 1)
    assert p.stats().expired_before_read == 1


def test_another_scheduler_learns_of_it(
    predictor: Build, record: Any, redis_url: str, eventually: Any
) -> None:
    here, there = predictor(redis_url), predictor(redis_url)
    assert here.wait_until_ready(120) is there.wait_until_ready(120)
    here.collect_data_for_task(f"{RUN}-step", "step", record(4.0))
    eventually(lambda: there.estimate("step", "gpu").source == "function_history")
    assert there.predict("step", "gpu", []) == pytest.approx(4.0)


def test_times_that_nobody_believes_teach_nobody_and_still_reach_ingestion(
    predictor: Build, record: Any, redis_url: str, redis_client: redis.Redis, eventually: Any
) -> None:
    now = 1e9
    tomorrow, milliseconds = now + 86_400, 1000 * now
    # As 0.1.0 wrote them into the list that schedulers share.
    for end in (tomorrow, milliseconds, now):
        entry = json.dumps({"start": end - (4 if end == now else 400), "end": end, "serve": {}})
        redis_client.lpush(f"{stream_format.HISTORY}step", entry)
    p = predictor(redis_url, clock=lambda: now)
    assert p.wait_until_ready()
    for number, end in enumerate((tomorrow, milliseconds, now)):
        seconds = 4.0 if end == now else 400.0
        p.collect_data_for_task(f"{RUN}-{number}", "step", record(seconds, end=end))
    assert p.predict("step", "gpu", []) == pytest.approx(4.0)
    assert p.stats().rejected == p.stats().ignored == {"future_times": 2}
    p.close()
    assert len(entries(redis_client)) == 3
    again = predictor(redis_url, clock=lambda: now)
    assert again.wait_until_ready()
    assert again.predict("step", "gpu", []) == pytest.approx(4.0)
    assert again.stats().ignored == {"future_times": 2}


def test_a_task_with_a_feature_out_of_bounds_teaches_nobody(
    predictor: Build, record: Any, redis_url: str, redis_client: redis.Redis
) -> None:
    with predictor(redis_url) as p:
        ran = record(400.0, features={"size": -1})
        p.collect_data_for_task(f"{RUN}-toy_process", "toy_process", ran)
        assert p.estimate("toy_process", "cpu").source == "heuristic"
        assert p.stats().rejected == {"invalid_feature": 1}
    assert len(entries(redis_client)) == 1
    assert not redis_client.exists(f"{stream_format.HISTORY}toy_process")


def test_a_restart_remembers_the_last_observations_of_each_function(
    predictor: Build, record: Any, redis_url: str, redis_client: redis.Redis, eventually: Any
) -> None:
    with predictor(redis_url) as p:
        for number in range(200):
            task = f"{RUN}-{number}"
            p.collect_data_for_task(task, "step", record(1.0 + number, end=1e9 + number))
    assert redis_client.llen(f"{stream_format.HISTORY}step") == 64
    again = predictor(redis_url)
    again.wait_until_ready(120)
    assert again.predict("step", "gpu", []) > 150.0


def test_garbage_in_our_own_keys_is_passed_over(
    predictor: Build, record: Any, redis_url: str, redis_client: redis.Redis, eventually: Any
) -> None:
    good = b'{"start":1e9,"end":1000000004.0,"serve":{}}'
    for garbage in (b"\xff", b"[]", b"{}", b'{"start":"x"}', good):
        redis_client.lpush(f"{stream_format.HISTORY}step", garbage)
    redis_client.set(f"{stream_format.HISTORY}other", "no list")
    p = predictor(redis_url)
    p.wait_until_ready(120)
    assert p.predict("step", "gpu", []) == pytest.approx(4.0)
    for garbage in (b"\xff", b"[]", b'{"task_id":1}'):
        redis_client.xadd(stream_format.STREAM, {b"e": garbage})
        redis_client.xadd(stream_format.STREAM, {b"other": garbage})
    fine = {"task_id": "t", "function": "late", "start": 1e9, "end": 1e9 + 6}
    redis_client.xadd(stream_format.STREAM, {"e": json.dumps(fine)})
    eventually(lambda: p.estimate("late", "gpu").source == "function_history")


def test_what_finds_no_room_is_dropped_and_counted(record: Any) -> None:
    rejected = stream_format.CompletedTask(Rejected("t", "f", RejectReason.SKIPPED, ""))
    collector = Collector(Refusals("redis://nowhere"), capacity=10)
    for _ in range(15):
        collector.put(rejected)
    assert (len(collector), collector.dropped) == (10, 5)
    collector.encode()
    for _ in range(7):
        collector.put(rejected)
    collector.encode()
    assert (len(collector), collector.dropped) == (10, 12)


def test_what_cannot_be_sent_before_the_end_is_counted(predictor: Build, record: Any) -> None:
    p = predictor("redis://127.0.0.1:1")
    for number in range(10):
        p.collect_data_for_task(f"{RUN}-{number}", "step", record())
    p.close()
    assert (p.stats().dropped, p.stats().queued) == (10, 0)


def test_what_was_reported_before_a_declaration_is_learnt_as_it_was(
    predictor: Build, record: Any, redis_url: str, redis_client: redis.Redis, tool_type: Any
) -> None:
    with predictor(redis_url) as p:
        p.collect_data_for_task(f"{RUN}-toy_process", "toy_process", record(features={"size": 5}))
        p.func_name_to_tool_type["toy_process"] = "another"
        p.collect_data_for_task(f"{RUN}-2", "toy_process", record(features={"size": 5}))
    assert [entry["tool_type"] for entry in entries(redis_client)] == [tool_type.name, "another"]


def test_nothing_is_lost_while_redis_restarts(
    predictor: Build, record: Any, own_redis: Any, eventually: Any
) -> None:
    p = predictor(own_redis.url)
    p.wait_until_ready(120)
    own_redis.kill()
    for number in range(500):
        p.collect_data_for_task(f"{RUN}-{number}", "step", record(end=1e9 + number))
    eventually(lambda: not p.stats().redis_up)
    own_redis.start()
    with own_redis.client() as client:
        eventually(lambda: client.xlen(stream_format.STREAM) == 500)
        eventually(lambda: p.stats().sent == 500)
    assert p.stats().dropped == 0


def test_a_stream_key_of_another_kind_is_reported_and_hurts_nobody(
    predictor: Build, record: Any, redis_url: str, redis_client: redis.Redis, eventually: Any
) -> None:
    redis_client.set(stream_format.STREAM, "not a stream")
    p = predictor(redis_url)
    p.collect_data_for_task(f"{RUN}-step", "step", record(4.0))
    eventually(lambda: p.stats().refused_writes > 0)
    assert p.predict("step", "gpu", []) == pytest.approx(4.0)
    p.close()
    assert p.stats().dropped == 1


def test_names_and_values_that_utf8_cannot_carry_reach_the_stream_escaped(
    predictor: Build, redis_url: str, redis_client: redis.Redis, eventually: Any
) -> None:
    p = predictor(redis_url)
    odd = '{"start_time": 1.0, "end_time": 2.0, "curr_task_feat": {"\\ud800": 1, "b": "\\udfff"}}'
    p.collect_data_for_task(f"{RUN}-nobody_claims_it", "nobody_claims_it", odd)
    eventually(lambda: p.stats().sent == 1)
    ((_, fields),) = redis_client.xrange(stream_format.STREAM)  # type: ignore[misc]
    assert json.loads(fields[b"e"])["ran"] == {"\\ud800": 1.0, "b": "\\udfff"}
