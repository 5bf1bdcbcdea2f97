"""Memories for schedulers that were not there: what others measured, put where they look.

The collector writes a function's list as tasks finish. What comes to ingestion by another
way, such as a file, is put into the same lists in the same form, so that a scheduler which
starts on this Redis knows it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import redis
from redis.client import Pipeline

from malearn.history import Observation
from malearn.tool_types import ToolTypes
from serving import wire

__all__ = ["backfill", "known_functions"]


def known_functions(client: redis.Redis) -> set[str]:
    """The functions of which this Redis remembers anything."""
    keys = client.scan_iter(match=f"{wire.HISTORY}*", count=1_000)
    return {_text(key).removeprefix(wire.HISTORY) for key in keys}


def backfill(
    client: redis.Redis, observations: Iterable[Observation], tool_types: ToolTypes
) -> int:
    """Add `observations` to the lists of their functions; returns how many lists were changed.

    A list keeps the newest, newest first, each once. One that a scheduler adds to meanwhile
    is read again, so that nothing of its is lost.
    """
    by_function: dict[str, list[Observation]] = defaultdict(list)
    for observation in observations:
        by_function[observation.function].append(observation)
    changed = 0
    for function, seen in by_function.items():
        seen.sort(key=lambda o: -o.end)
        given = {(o.start, o.end): o for o in seen[: wire.REMEMBERED]}
        changed += bool(
            client.transaction(
                lambda pipe, function=function, given=given: _merge(
                    pipe, function, given, tool_types
                ),
                wire.HISTORY + function,
                value_from_callable=True,
            )
        )
    return changed


def _merge(
    pipe: Pipeline,
    function: str,
    given: dict[tuple[float, float], Observation],
    tool_types: ToolTypes,
) -> bool:
    """Queue the commands that make the watched list what it should be; whether any were."""
    key = wire.HISTORY + function
    before: list[bytes] = list(pipe.lrange(key, 0, -1))  # type: ignore[arg-type]
    merged = [
        (found[1].start, found[1].end, raw)
        for raw in before
        if (found := wire.observation(raw, tool_types, function)) is not None
    ]
    known = {(start, end) for start, end, _ in merged}
    merged += [
        (start, end, wire.memo_of(o, tool_types[o.tool_type]))
        for (start, end), o in given.items()
        if (start, end) not in known
    ]
    merged.sort(key=lambda memo: -memo[1])
    after = [raw for _, _, raw in merged[: wire.REMEMBERED]]
    pipe.multi()
    if after == before:
        return False
    pipe.delete(key)
    pipe.rpush(key, *after)
    pipe.expire(key, wire.KEEP_SECONDS)
    return True


def _text(key: bytes | str) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else key
