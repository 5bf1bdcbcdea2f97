"""A Redis Cluster serves schedulers as a single server does, each key from its own node."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis

from malearn import DAGTaskPredictor
from malearn.kernel.names import Names
from malearn.serving import hash_slots
from tests.redis_cluster import Cluster

Build = Callable[..., DAGTaskPredictor]
RUN = "19725120-6620-445b-9f40-7ceccb20bae2"


def ready(predictor: Build, url: str, budget: float = 60.0, **options: Any) -> DAGTaskPredictor:
    p = predictor(url, budget=budget, **options)
    assert p.wait_until_ready(120)
    return p


def on_each(cluster: Cluster, record: Any, name: str = "a") -> list[str]:
    """Ids of tasks whose records are in Redis, one on each node."""
    ids = [key.removeprefix("result:") for key in cluster.keys_on_each(f"result:{RUN}-{name}{{}}")]
    with cluster.client() as client:
        for task_id in ids:
            client.set(f"result:{task_id}", record(successors={"toy_process": {"size": 7}}))
    return ids


def gets(server: Any) -> int:
    """How many GET commands a server has carried out."""
    with server.client() as client:
        stats: Any = client.info("commandstats")
    return int(stats.get("cmdstat_get", {"calls": 0})["calls"])


@pytest.mark.parametrize("key", ["", "a", "{}", "a{}b", "{a}{b}", "x{a", "x}a{b}", "{{a}}", "ü{ä}"])
def test_a_key_is_in_the_slot_that_redis_says(redis_cluster: Cluster, key: str) -> None:
    with redis_cluster.nodes[0].client() as client:
        assert hash_slots.slot_of(key) == client.execute_command("CLUSTER KEYSLOT", key)


def test_predecessors_on_all_nodes_are_read(
    predictor: Build, record: Any, redis_cluster: Cluster
) -> None:
    ids = on_each(redis_cluster, record)
    p = ready(predictor, redis_cluster.url)
    before = [gets(node) for node in redis_cluster.nodes]
    p.estimate("toy_process", "cpu", ids)
    assert p.stats().remembered == 3
    assert [gets(node) for node in redis_cluster.nodes] == [count + 1 for count in before]
    assert (p.stats().redis_outages, p.stats().internal_errors) == (0, 0)


def test_what_one_scheduler_reports_another_knows(
    predictor: Build, record: Any, redis_cluster: Cluster, eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MALEARN_STREAMS", "3")
    one, other = (ready(predictor, redis_cluster.url) for _ in range(2))
    for number in range(30):
        one.collect_data_for_task(f"{UUID(int=number)}-x", f"step{number % 3}", record())
    one.collect_data_for_task(on_each(redis_cluster, record)[1], "read")  # its record is in Redis
    eventually(lambda: one.stats().sent == 31)
    with redis_cluster.client() as client:
        lengths = [client.xlen(key) for key in Names.find().streams(3)]
    assert sum(lengths) == 31 and all(lengths)
    later = ready(predictor, redis_cluster.url)
    for p in (other, later):  # by following the streams, and from the lists
        eventually(lambda p=p: p.estimate("step2", "cpu").source == "function_history")
    for p in (one, other, later):
        assert (p.stats().refused_reads, p.stats().refused_writes) == (0, 0)
        assert (p.stats().redis_outages, p.stats().internal_errors) == (0, 0)


def test_a_slot_that_moves_is_followed(
    predictor: Build, record: Any, redis_cluster: Cluster, eventually: Any
) -> None:
    p = ready(predictor, redis_cluster.url)
    key = redis_cluster.keys_on_each(f"result:{RUN}-m{{}}")[0]
    slot = hash_slots.slot_of(key)
    old, new = redis_cluster.nodes[:2]
    redis_cluster.move(slot, new)
    try:
        with redis_cluster.client() as client:
            client.set(key, record(successors={"toy_process": {"size": 7}}))
        p.estimate("toy_process", "cpu", [key.removeprefix("result:")])
        assert p.stats().remembered == 1  # by the address in MOVED

        def asks_the_new_one() -> bool:
            before = gets(old)
            p.estimate(
                "toy_process", "cpu", [key.removeprefix("result:")[:-1] + "none{" + key + "}"]
            )
            return gets(old) == before

        eventually(asks_the_new_one)
        assert (p.stats().refused_reads, p.stats().redis_outages) == (0, 0)
    finally:
        with new.client() as client:
            client.delete(key)
        redis_cluster.move(slot, old)


def test_a_key_of_a_slot_that_is_just_moving_is_asked_for_where_it_is(
    predictor: Build, record: Any, redis_cluster: Cluster
) -> None:
    p = ready(predictor, redis_cluster.url)
    key = redis_cluster.keys_on_each(f"result:{RUN}-k{{}}")[0]
    slot = hash_slots.slot_of(key)
    old, new = redis_cluster.nodes[:2]
    redis_cluster.begin_moving(slot, old, new)
    try:
        with new.client() as client, client.pipeline(transaction=False) as pipe:
            pipe.execute_command("ASKING")
            pipe.set(key, record(successors={"toy_process": {"size": 7}}))
            pipe.execute()
        p.estimate("toy_process", "cpu", [key.removeprefix("result:")])
        assert p.stats().remembered == 1
    finally:
        redis_cluster.move(slot, new)
        with new.client() as client:
            client.delete(key)
        redis_cluster.move(slot, old)


def test_while_a_node_is_away_the_others_answer_and_nothing_reported_is_lost(
    predictor: Build, record: Any, redis_cluster: Cluster, eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MALEARN_STREAMS", "3")
    ids = on_each(redis_cluster, record)
    p = ready(predictor, redis_cluster.url)
    streams = Names.find().streams(3)
    gone = redis_cluster.node_of(streams[0])
    kept = sum(redis_cluster.node_of(key) is not gone for key in streams)
    assert kept  # so that there is something to see
    gone.kill()
    try:
        for number in range(30):
            answer = p.estimate("toy_process", "cpu", ids)
            assert answer.seconds > 0.0
            p.collect_data_for_task(f"{UUID(int=number)}-x", "step", record())
        assert p.stats().remembered >= 2
        count = dict.fromkeys(streams, 0)
        for number in range(30):
            count[streams[Names.find().stream_of(str(UUID(int=number)), 3)]] += 1
        there = sum(n for key, n in count.items() if redis_cluster.node_of(key) is not gone)
        eventually(lambda: p.stats().sent == there)
        stats = p.stats()
        assert (stats.queued, stats.dropped, stats.redis_up) == (30 - there, 0, True)
        assert "UNREACHABLE" in (stats.redis_refusal or "")
    finally:
        gone.start()
        redis_cluster.settle()
    eventually(lambda: p.stats().sent == 30)
    found = set()
    with redis_cluster.client() as client:
        for key in streams:
            found |= {json.loads(fields[b"e"])["task_id"] for _, fields in client.xrange(key)}
    assert found == {f"{UUID(int=number)}-x" for number in range(30)}
    eventually(lambda: p.estimate("toy_process", "cpu", ids) and p.stats().remembered == 33)
    assert (p.stats().internal_errors, p.stats().redis_refusal) == (0, None)


def test_a_node_that_does_not_answer_costs_one_budget_and_its_own_values(
    predictor: Build, record: Any, redis_cluster: Cluster, eventually: Any
) -> None:
    ids = on_each(redis_cluster, record)
    p = ready(predictor, redis_cluster.url, budget=3.0)
    slow = redis_cluster.node_of(f"result:{ids[2]}")
    slow.pause()
    try:
        for _ in range(100):  # each would wait for it, were it asked
            assert p.estimate("toy_process", "cpu", ids).seconds > 0.0
        assert p.stats().remembered == 2
        assert p.stats().redis_up
    finally:
        slow.resume()
    eventually(lambda: p.estimate("toy_process", "cpu", ids) and p.stats().remembered == 3)


def test_a_replica_that_takes_over_is_followed(
    predictor: Build, record: Any, tmp_path: Path, eventually: Any
) -> None:
    cluster = Cluster(tmp_path)
    try:
        replica = cluster.add_replica(cluster.node_of(Names.find().stream))
        p = ready(predictor, cluster.url)
        p.collect_data_for_task(f"{RUN}-1", "step", record())
        eventually(lambda: p.stats().sent == 1)
        cluster.fail_over(cluster.node_of(Names.find().stream), replica)
        p.collect_data_for_task(f"{RUN}-2", "step", record())
        eventually(lambda: p.stats().sent == 2)
        with replica.client() as client:
            assert client.xlen(Names.find().stream) == 2
        assert (p.stats().dropped, p.stats().internal_errors) == (0, 0)
    finally:
        cluster.close()


def test_a_cluster_has_one_database(
    predictor: Build, redis_cluster: Cluster, caplog: Any, eventually: Any
) -> None:
    p = predictor(redis_cluster.url.replace("/0", "/3"))
    sentence = "is a Redis Cluster, which has no database 3; leave it out of the URL"
    eventually(lambda: sentence in caplog.text)
    assert p.estimate("toy_process", "cpu", []).seconds > 0.0


def test_the_rights_that_the_documents_list_are_enough(
    predictor: Build, record: Any, redis_cluster: Cluster, eventually: Any
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")
    (command,) = (line for line in page.splitlines() if line.startswith("ACL SETUSER"))
    for node in redis_cluster.nodes:
        with node.client() as client:
            client.execute_command(*command.split(), "+cluster|slots", "+asking")
    assert "`CLUSTER SLOTS` and `ASKING`" in page
    p = ready(predictor, redis_cluster.url.replace("//", "//malearn:password@"))
    p.estimate("toy_process", "cpu", on_each(redis_cluster, record))
    p.collect_data_for_task(f"{RUN}-c", "step", record())
    eventually(lambda: p.stats().sent == 1)
    assert p.stats().remembered == 4
    assert (p.stats().redis_refusal, p.stats().refused_reads) == (None, 0)


def test_a_single_server_is_asked_nothing_more_than_before(
    predictor: Build, record: Any, redis_url: str, redis_client: redis.Redis
) -> None:
    p = ready(predictor, redis_url)
    stats: Any = redis_client.info("commandstats")
    for number in range(3):
        redis_client.set(f"result:{RUN}-{number}", record(successors={"toy_process": {"size": 7}}))
    before = {name: stats.get(name, {"calls": 0})["calls"] for name in ("cmdstat_get",)}
    exists = stats["cmdstat_exists"]["calls"]
    p.estimate("toy_process", "cpu", [f"{RUN}-{number}" for number in range(3)])
    stats = redis_client.info("commandstats")
    assert p.stats().remembered == 3
    assert stats["cmdstat_get"]["calls"] == before["cmdstat_get"] + 3
    assert stats["cmdstat_exists"]["calls"] == exists
    assert not any("cluster" in name or "asking" in name for name in stats)
