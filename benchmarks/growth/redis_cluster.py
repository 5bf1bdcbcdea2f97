"""An estimate whose predecessors' records are on three nodes of a Redis Cluster, or in one server.

Both are predictors of this process without a model, so that reading is most of what they do; what
was read is forgotten before each call.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from benchmarks.figure import Figure, at_most
from benchmarks.serving import FUNCTION, NO_MLFLOW, RUN, call_by_call, record
from malearn import DAGTaskPredictor

__all__ = ["redis_cluster"]

_SETS = 32
#: An estimate's, by number of predecessors: times one that reads as many from one server.
_LIMITS = {1: 1.5, 3: 3.0, 16: 2.5}


def redis_cluster() -> Iterator[Figure]:
    """Call by call, as a scheduler asks."""
    # Imported late, as only this part needs the servers that the tests use.
    from tests.own_redis import OwnRedis
    from tests.redis_cluster import Cluster

    with TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "single").mkdir()
        single = OwnRedis(place / "single")
        try:
            with closing(Cluster(place)) as cluster:
                yield from _compared(cluster.url, single.url)
        finally:
            single.kill()


def _compared(cluster_url: str, single_url: str) -> Iterator[Figure]:
    with (
        redis.RedisCluster.from_url(cluster_url) as cluster,
        redis.Redis.from_url(single_url) as single,
        DAGTaskPredictor(cluster_url, NO_MLFLOW) as on_cluster,
        DAGTaskPredictor(single_url, NO_MLFLOW) as on_single,
    ):
        for predictor in (on_cluster, on_single):
            predictor.wait_until_ready()
        missing = 0
        for count, limit in _LIMITS.items():
            sets = [[f"{RUN}-{count}-{n}-{p}" for p in range(count)] for n in range(_SETS)]
            for number, task_id in enumerate(itertools.chain(*sets)):
                for client in (cluster, single):
                    client.set(f"result:{task_id}", record(number, 1000))
            ours, theirs = (_asking(p, sets) for p in (on_cluster, on_single))
            taken, known = call_by_call(ours.__next__, theirs.__next__)
            said = f"{count} predecessors of 1 KB" if count > 1 else "a predecessor of 1 KB"
            yield at_most(
                f"estimate through a cluster of three against one server, {said}",
                taken / known,
                "times",
                limit,
            )
            missing += sum(count - _remembered(on_cluster, ids) for ids in sets)
        yield at_most("records of predecessors that a cluster did not give", missing, "", 0)


def _remembered(predictor: DAGTaskPredictor, ids: list[str]) -> int:
    """How many of these records an estimate reads."""
    next(_asking(predictor, [ids]))
    return predictor.stats().remembered


def _asking(predictor: DAGTaskPredictor, sets: list[list[str]]) -> Iterator[None]:
    """Asks about one set of predecessors after the other, each unread."""
    for ids in itertools.cycle(sets):
        predictor._parts.predecessors.clear()
        predictor.predict(FUNCTION, "gpu", ids)
        yield
