"""A Redis that answers but refuses is told apart from one that is away, and the reason is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from malearn import DAGTaskPredictor
from malearn.serving import stream_format
from malearn.serving.refusals import Refusals
from malearn.serving.resp import ResponseError
from tests.own_redis import free_port

RUN = "19725120-6620-445b-9f40-7ceccb20bae2"
Build = Callable[..., DAGTaskPredictor]


def warnings(caplog: Any) -> list[str]:
    return [r.getMessage() for r in caplog.records if "refuses" in r.getMessage()]


def test_a_replica_that_takes_no_writes_is_reported_once_until_it_is_a_primary_again(
    predictor: Build, record: Any, own_redis: Any, redis_url: str, eventually: Any, caplog: Any
) -> None:
    p = predictor(own_redis.url)
    assert p.wait_until_ready()
    with own_redis.client() as client:
        client.config_set("replica-serve-stale-data", "yes")
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        for number in range(3):
            p.collect_data_for_task(f"{RUN}-{number}", "step", record(end=1e9 + number))
        eventually(lambda: p.stats().refused_writes > 0)
        stats = p.stats()
        assert stats.redis_up and stats.redis_outages == 0  # it can be read from
        assert stats.redis_refusal is not None and "READONLY" in stats.redis_refusal
        client.execute_command("REPLICAOF", "NO", "ONE")
        eventually(lambda: p.stats().sent == 3)
        assert client.xlen(stream_format.STREAM) >= 3
    assert p.stats().redis_refusal is None
    assert len(warnings(caplog)) == 1


@pytest.mark.parametrize(
    ("rules", "reason"),
    [(("~result:*", "~malearn:*", "+@read"), "NOPERM"), (("~result:*", "+@all"), "NOPERM")],
)
def test_a_user_without_permission_is_told_which_key(
    predictor: Build, record: Any, own_redis: Any, caplog: Any, eventually: Any, rules: Any,
    reason: str,
) -> None:  # fmt: skip
    with own_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "ann", "on", ">secret", *rules)
    p = predictor(own_redis.url.replace("//", "//ann:secret@"))
    p.collect_data_for_task(f"{RUN}-1", "step", record())
    eventually(lambda: warnings(caplog))
    (sentence,) = warnings(caplog)
    assert reason in sentence and "docs/serving.md" in sentence and "secret" not in sentence


def test_the_permissions_that_the_documents_list_are_enough(
    predictor: Build, record: Any, own_redis: Any, eventually: Any
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text("utf-8")
    (command,) = (line for line in page.splitlines() if line.startswith("ACL SETUSER"))
    with own_redis.client() as client:
        client.execute_command(*command.split())
        p = predictor(own_redis.url.replace("//", "//malearn:password@").replace("/0", "/1"))
        assert p.wait_until_ready()
        client.select(1)
        client.set(f"result:{RUN}-b", record(successors={"toy_process": {"size": 7}}))
        p.estimate("toy_process", "cpu", [f"{RUN}-b"])
        p.collect_data_for_task(f"{RUN}-c", "step", record())
        eventually(lambda: p.stats().sent == 1)
        stats = p.stats()
    assert (stats.remembered, stats.redis_refusal) == (2, None)
    assert (stats.refused_reads, stats.refused_writes) == (0, 0)


def test_full_memory_is_reported_and_what_waits_is_sent_later(
    predictor: Build, record: Any, own_redis: Any, eventually: Any, caplog: Any
) -> None:
    p = predictor(own_redis.url)
    assert p.wait_until_ready()
    with own_redis.client() as client:
        client.config_set("maxmemory", 1)
        p.collect_data_for_task(f"{RUN}-1", "step", record())
        eventually(lambda: p.stats().refused_writes > 0)
        assert "OOM" in (p.stats().redis_refusal or "")
        client.config_set("maxmemory", 0)
        eventually(lambda: p.stats().sent == 1)


def test_a_key_of_another_kind_is_named_and_costs_nothing_else(
    predictor: Build, record: Any, redis_url: str, redis_client: redis.Redis, caplog: Any,
    eventually: Any,
) -> None:  # fmt: skip
    redis_client.set(f"{stream_format.HISTORY}step", "no list")
    p = predictor(redis_url)
    p.collect_data_for_task(f"{RUN}-1", "step", record())
    eventually(lambda: p.stats().sent == 1)
    eventually(lambda: p.stats().refused_writes > 0)
    assert any("WRONGTYPE" in s and "malearn:history:step" in s for s in warnings(caplog))


def test_a_password_that_is_missing_is_a_refusal_and_no_outage_message(
    predictor: Build, own_redis: Any, caplog: Any, eventually: Any
) -> None:
    with own_redis.client() as client:
        client.config_set("requirepass", "secret")
    p = predictor(own_redis.url)
    eventually(lambda: not p.stats().redis_up)
    (sentence,) = warnings(caplog)
    assert "NOAUTH" in sentence and "put the credentials into the address" in sentence


def test_a_user_without_a_password_is_that_user(
    predictor: Build, record: Any, own_redis: Any, eventually: Any
) -> None:
    with own_redis.client() as client:
        client.execute_command("ACL", "SETUSER", "sched", "on", "nopass", "~*", "+@all")
        client.execute_command("ACL", "SETUSER", "default", "-@all", "+acl")
    p = predictor(own_redis.url.replace("//", "//sched@"))
    p.collect_data_for_task(f"{RUN}-1", "step", record())
    eventually(lambda: p.stats().sent == 1)


def test_a_cluster_that_was_never_formed_is_told_what_it_lacks(
    predictor: Build, start_redis: Any, caplog: Any, eventually: Any
) -> None:
    predictor(start_redis("--cluster-enabled", "yes", "--cluster-port", str(free_port())).url)
    eventually(lambda: warnings(caplog))
    (sentence,) = warnings(caplog)
    assert "CLUSTERDOWN no slot has a node" in sentence and "see CLUSTER INFO" in sentence


def test_a_sentinel_is_called_by_its_name() -> None:
    refusals = Refusals("redis://cache:26379")
    refusals.refused("connect", "", ResponseError("ERR unknown command 'EXISTS', with args …"))
    assert "a Sentinel perhaps" in (refusals.reason or "")


def test_connections_that_the_server_closed_are_replaced_within_the_call(
    predictor: Build, record: Any, own_redis: Any, eventually: Any
) -> None:
    p = predictor(own_redis.url, budget=30.0)
    assert p.wait_until_ready()
    with own_redis.client() as client:
        for number in range(3):
            # What was sent shows that the background thread has a connection again: to lose one
            # while it is opened, twice in a row, would be an outage.
            p.collect_data_for_task(f"{RUN}-own{number}", "step", record())
            eventually(lambda sent=number + 1: p.stats().sent == sent)
            said = {"toy_process": {"size": number}}
            client.set(f"result:{RUN}-{number}", record(successors=said))
            before = p.stats().remembered
            client.client_kill_filter(_type="normal", skipme=True)  # as after a timeout
            p.estimate("toy_process", "cpu", [f"{RUN}-{number}"])
            assert p.stats().remembered == before + 1
    assert (p.stats().redis_outages, p.stats().reasons.get("redis_failed", 0)) == (0, 0)
