"""Backfill of the shared history in Redis with executions that came by another way.

The collector writes a function's list as tasks finish. What comes to ingestion by another
way, such as a file, is put into the same lists in the same form, so that a scheduler which
starts on this Redis knows it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import cast

import redis
from redis.client import Pipeline

from malearn.kernel import features
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.names import Names
from malearn.kernel.reading.believable import Clock
from malearn.kernel.tool_types import ToolTypes
from malearn.serving import stream_format

__all__ = ["backfill", "known_functions"]

#: An entry of a function's list as an observation, None where it is none; and the way back.
_Read = Callable[[bytes, str], Observation | None]
_Write = Callable[[Observation], bytes]


def known_functions(client: redis.Redis) -> set[str]:
    """The functions of which this Redis remembers anything."""
    prefix = Names.find().history
    # SCAN, not KEYS, which would block Redis for its schedulers.
    keys = cast("Iterable[bytes]", client.scan_iter(match=f"{prefix}*", count=1_000))
    return {key.decode("utf-8", "replace").removeprefix(prefix) for key in keys}


def backfill(
    client: redis.Redis,
    observations: Iterable[Observation],
    tool_types: ToolTypes,
    clock: Clock = time.time,
) -> int:
    """Add `observations` to the lists of their functions; returns how many lists were changed.

    A list keeps the newest, newest first, each once; what it holds that is not believed goes.
    One that a scheduler adds to meanwhile is read again, so that nothing of its is lost.
    """
    by_function: dict[str, list[Observation]] = defaultdict(list)
    for observation in observations:
        by_function[observation.function].append(observation)
    schemas = features.schemas(tool_types)

    def read(raw: bytes, function: str) -> Observation | None:
        found = stream_format.observation(raw, tool_types, schemas, clock(), function)
        return None if isinstance(found, str) else found[1]

    def write(one: Observation) -> bytes:
        return stream_format.history_entry_of(one, tool_types[one.tool_type])

    return sum(
        _merged(client, function, seen, read, write) for function, seen in by_function.items()
    )


def _merged(
    client: redis.Redis, function: str, seen: list[Observation], read: _Read, write: _Write
) -> bool:
    """Whether the list of `function` was changed."""
    # More than a list may hold would be encoded in vain.
    newest = sorted(seen, key=lambda o: -o.end)[: stream_format.REMEMBERED]
    with client.pipeline(transaction=True) as pipe:  # of a single key, so in a cluster, too
        while True:
            try:
                return _merge(pipe, function, newest, read, write)
            # No limit of attempts: each failure means that a scheduler has just written.
            except redis.WatchError:
                continue


def _merge(
    pipe: Pipeline, function: str, newest: list[Observation], read: _Read, write: _Write
) -> bool:
    key = Names.find().history + function
    pipe.watch(key)  # type: ignore[no-untyped-call]
    before = cast("list[bytes]", pipe.lrange(key, 0, -1))
    entries = {(o.start, o.end): raw for raw in before if (o := read(raw, function)) is not None}
    for one in newest:
        # An entry that is there stays byte for byte, or every list would seem to be changed.
        entries.setdefault((one.start, one.end), write(one))
    by_end = sorted(entries.items(), key=lambda entry: -entry[0][1])
    after = [raw for _, raw in by_end[: stream_format.REMEMBERED]]
    if after == before:
        return False
    # One transaction: no scheduler finds the list empty between DEL and RPUSH.
    pipe.multi()
    pipe.delete(key)
    pipe.rpush(key, *after)
    pipe.expire(key, stream_format.KEEP_SECONDS)
    pipe.execute()
    return True
