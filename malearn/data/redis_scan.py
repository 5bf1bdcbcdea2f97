"""Scan of the results in Redis, `result:<task_id>`, in batches of whole runs; it only reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import cast

import numpy as np
import numpy.typing as npt

from malearn.data import gc_pause, redis_client
from malearn.data.batch import MOST_BYTES, Batch
from malearn.kernel import run_ids
from malearn.kernel.tool_types import ToolTypes

__all__ = ["scan", "task_id"]


_PREFIX = b"result:"
#: Bytes of a key that say of which run it is.
_RUN = len(_PREFIX) + run_ids.RUN_ID_LENGTH
#: Values that one MGET may bring; more at once are hardly quicker, and some may be huge.
_VALUES = 250


def scan(
    url: str,
    tool_types: ToolTypes,
    size: int = 150_000,
    known: Callable[[Sequence[str]], npt.NDArray[np.bool_]] | None = None,
    most_keys: int = 1_000_000,
) -> Iterator[Batch]:
    """The records in Redis at `url`, in batches of about `size`.

    Keys are collected first (SCAN; about 130 bytes of memory each, and of more than
    `most_keys` only a part at a time, told by how their run ids begin), values then run by
    run, so that keys written meanwhile wait for the next scan and keys deleted meanwhile are
    passed over. Runs of which every task id is `known` are left out, and with them what was
    written again of a known task. Raises `Unreachable`.
    """
    with redis_client.connected(url) as client:
        batch = Batch(tool_types)
        for pattern in _patterns(client.dbsize(), most_keys):
            keys = sorted(set(client.scan_iter(match=pattern, count=5_000)))
            if known is not None:
                keys = list(_unknown_runs(keys, known))
            at, most = 0, _VALUES
            while at < len(keys):
                room = size - batch.records if batch.weight < MOST_BYTES else 0
                end = _part(keys, at, room, most)
                values = cast("list[bytes | None]", client.mget(keys[at:end]))
                with gc_pause.gc_paused():
                    for key, value in zip(keys[at:end], values, strict=True):
                        if value is not None:
                            batch.add(task_id(key), value)
                mean = sum(len(value) for value in values if value is not None) / len(values)
                at, most = end, redis_client.affordable(mean, _VALUES)
                full = batch.records >= size or batch.weight >= MOST_BYTES
                if full and not _same_run(keys, at):
                    batch.close()
                    yield batch
                    batch = Batch(tool_types)
        batch.close()
        if batch.records:
            yield batch


def task_id(key: bytes) -> str:
    """The task id within a key `result:<task_id>`."""
    return key[len(_PREFIX) :].decode("utf-8", "backslashreplace")


def _patterns(keys: int, most: int) -> list[bytes]:
    """Globs that together match each result in a Redis of so many `keys` exactly once.

    Run ids are hexadecimal and random: each further digit parts them in sixteen.
    """
    heads, digits = [b""], b"0123456789abcdef"
    found = []
    while keys > most and len(heads[0]) < 3:
        found += [_PREFIX + head + b"[^0-9a-f]*" for head in heads]
        found += [_PREFIX + head for head in heads]
        heads = [head + bytes([digit]) for head in heads for digit in digits]
        keys //= len(digits)
    return [*(_PREFIX + head + b"*" for head in heads), *found]


def _unknown_runs(
    keys: Sequence[bytes], known: Callable[[Sequence[str]], npt.NDArray[np.bool_]]
) -> Iterator[bytes]:
    """Of the sorted `keys` those of runs that are not `known` as a whole."""
    seen = np.zeros(len(keys), np.bool_)
    for at in range(0, len(keys), 10_000):
        part = keys[at : at + 10_000]
        seen[at : at + len(part)] = known([task_id(key) for key in part])
    if not seen.any():
        yield from keys
        return
    at = 0
    for _, run in groupby(keys, lambda key: key[:_RUN]):
        tasks = list(run)
        if not seen[at : at + len(tasks)].all():
            yield from tasks
        at += len(tasks)


def _part(keys: Sequence[bytes], at: int, room: int, most: int) -> int:
    """Where the next part of `keys` ends that begins `at`.

    It has at most `most` keys, and no more than `room` but to complete a run.
    """
    end = min(at + max(1, min(room, most)), len(keys))
    while end - at < most and room <= most and _same_run(keys, end):
        end += 1
    return end


def _same_run(keys: Sequence[bytes], at: int) -> bool:
    """Whether the key `at`, if there is one, is of the same run as the one before it."""
    return at < len(keys) and keys[at][:_RUN] == keys[at - 1][:_RUN]
