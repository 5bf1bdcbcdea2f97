"""What other schedulers send while one starts reaches it, and only once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest
import redis

from malearn.kernel.names import Names
from malearn.kernel.tool_types import declared
from malearn.serving.connector import Connector
from malearn.serving.observation_reader import ObservationReader
from malearn.serving.predecessor_cache import PredecessorCache
from malearn.serving.refusals import Refusals
from malearn.serving.shared_history import SharedHistory
from malearn.serving.stats import CallCounters


class Between:
    """A connection to Redis that calls `send` after its exchange number `at`."""

    def __init__(self, url: str, at: int, send: Callable[[], None]) -> None:
        self._connection, self._at, self._send = Connector(url, timeout=60.0)(), at, send

    def call(self, packed: bytes, count: int, deadline: float) -> Sequence[Any]:
        replies = self._connection.call(packed, count, deadline)
        self._at -= 1
        if self._at == 0:
            self._send()
        return replies

    def nodes(self) -> Sequence[Between]:
        return (self,)

    def close(self) -> None:
        self._connection.close()


@pytest.mark.parametrize("at", range(1, 6))
def test_what_is_sent_while_a_scheduler_starts_is_taken_in_once(
    redis_url: str, redis_client: redis.Redis, at: int
) -> None:
    def send(number: int) -> None:
        """As a scheduler does: into the function's list, then into the stream."""
        known = {"start": 1.7e9 + number, "end": 1.7e9 + number + 2.5, "serve": {}}
        named = {"task_id": f"{UUID(int=number)}-step", "function": "step"}
        redis_client.lpush("malearn:history:step", json.dumps(known))
        redis_client.xadd("malearn:executions", {b"e": json.dumps(known | named)})

    send(1)
    history, types = SharedHistory(), declared()
    names = Names.find(None)
    reader = ObservationReader(
        history, PredecessorCache(types, 10), CallCounters(), Refusals(""), time.time, 60.0, names
    )
    connection = Between(redis_url, at, lambda: send(2))
    reader.restore(connection)  # type: ignore[arg-type]  # all that is used of one
    reader.follow(connection)  # type: ignore[arg-type]
    reader.follow(connection)  # type: ignore[arg-type]
    connection.close()
    assert history.count("step") == 2
