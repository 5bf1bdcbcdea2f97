"""Predecessors' features for a request: from memory, else from Redis within the call's budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter

from malearn.serving.cluster_connection import UNANSWERED, PartlyAnswered
from malearn.serving.connection import DeadlineExceeded
from malearn.serving.predecessor_cache import PredecessorCache, SuccessorFeatures
from malearn.serving.redis_worker import RedisWorker
from malearn.serving.resp import ProtocolError, ResponseError

__all__ = ["PredecessorReader"]

#: What is left of the budget after reading pays for the answer itself.
_SHARE = 0.9
#: Every connection of the pool may have been closed while it was idle; a new one then decides.
_MAX_ATTEMPTS = 6


class PredecessorReader:
    """Reads what is not in `cache` over `worker`'s connections; `budget` bounds it, in seconds.

    Without `reads` it knows what is in the cache and nothing else.
    """

    def __init__(
        self, cache: PredecessorCache, worker: RedisWorker, budget: float, *, reads: bool = True
    ) -> None:
        self._cache, self._worker, self._budget = cache, worker, budget
        self.reads = reads

    def read(
        self, task_ids: Sequence[str], started: float
    ) -> tuple[Sequence[SuccessorFeatures | None], str]:
        """What each of those tasks left for its successors, and what kept some from being read.

        One round trip at most, of a cluster one to each node at once; `started` is when the call
        began, on `perf_counter`'s clock.
        """
        found = self._cache.get_many(task_ids)
        # As `None not in found`, without comparing each with None.
        if all(found) or not self.reads:
            return found, ""
        missing = [task_id for task_id, one in zip(task_ids, found, strict=True) if one is None]
        # Each one once: tasks of a queue often share predecessors.
        fetch_error = self._fetch(list(dict.fromkeys(missing)), started + self._budget * _SHARE)
        return self._cache.get_many(task_ids), fetch_error

    def _fetch(self, task_ids: list[str], deadline: float) -> str:
        """Bring records into the cache; what was the trouble, if that did not go well."""
        worker, breaker = self._worker, self._worker.breaker
        if not breaker.closed:
            return "redis_down"
        keys = [f"result:{task_id}" for task_id in task_ids]
        failure, trouble = "redis_busy", ""
        for _ in range(_MAX_ATTEMPTS):
            connection = worker.pool.acquire(deadline)
            if connection is None:
                break
            try:
                values = connection.get_many(keys, deadline)
            # Before OSError, of which it is one; likewise ConnectionError below.
            except DeadlineExceeded as error:
                worker.replace(connection)
                values = error.replies
                # Nothing at all within the budget is an outage: the next calls are not to wait.
                if not values:
                    breaker.fail()
                # A slow network that delivers something is no outage: the rest comes next time.
                self._add(task_ids, values)
                return "redis_slow"
            # One or some nodes of a cluster, of which the connection knows: the others go on.
            except PartlyAnswered as error:
                worker.pool.release(connection)
                trouble = self._add_part(task_ids, error)
                if not error.lost:
                    return trouble
                # Another connection may still have what this one has lost.
                left = [i for i, one in enumerate(error.values) if one is UNANSWERED]
                task_ids, keys = [task_ids[i] for i in left], [keys[i] for i in left]
                continue
            except ConnectionError:
                # Most likely the server closes what is idle: another connection, as long as
                # there is time. Where the server is gone, the worker finds that out meanwhile.
                worker.replace(connection)
                # The next connection may be an open one: `prune` runs only once a round.
                failure = "redis_failed"
                continue
            except (OSError, ProtocolError, ResponseError) as error:
                worker.replace(connection)
                breaker.fail()
                if isinstance(error, ResponseError):
                    worker.refusals.refused("read", keys[0], error)
                return "redis_failed"
            # An interrupt in the middle of a reply: its rest would be the next caller's answer.
            except BaseException:
                worker.replace(connection)
                raise
            worker.pool.release(connection)
            breaker.succeed()
            worker.refusals.accepted("read")
            return self._add(task_ids, values, deadline)
        if trouble:
            return trouble
        if breaker.closed:
            breaker.fail()
        return failure

    def _add_part(self, task_ids: Sequence[str], part: PartlyAnswered) -> str:
        """Take in what some nodes of a cluster answered; returns the trouble with the others."""
        self._add(task_ids, part.values)
        if part.refusal is not None:
            self._worker.refusals.refused("read", f"result:{task_ids[0]}", part.refusal)
        return part.failure

    def _add(
        self, task_ids: Sequence[str], values: Sequence[object], deadline: float = math.inf
    ) -> str:
        """Take in what was read, as far as there is time; returns the trouble, if any."""
        for task_id, raw in zip(task_ids, values, strict=False):
            if isinstance(raw, bytes):
                self._cache.add_raw(task_id, raw)
                # Parsing takes time as well: records may be long.
                if perf_counter() > deadline:
                    return "out_of_time"
        return ""
