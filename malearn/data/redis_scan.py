"""Scan of the results in Redis, `result:<task_id>`, in batches of whole runs; it only reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import redis

from malearn.data import gc_pause, redis_client
from malearn.data.batch import MOST_BYTES, Batch
from malearn.kernel.reading import run_ids
from malearn.kernel.tool_types import ToolTypes

__all__ = ["Ends", "in_runs", "run_of", "scan", "task_id"]

#: When each of some task ids ended, as far as is known, in seconds since the epoch; -inf where
#: it is not known at all.
Ends = Callable[[Sequence[str]], npt.NDArray[np.float64]]

_PREFIX = b"result:"
#: Values that one MGET may bring; more at once are hardly quicker, and some may be huge.
_VALUES = 250


class _Times(msgspec.Struct, gc=False):
    """The part of a record that shows whether it was written again."""

    end_time: float | None = None


_decode = msgspec.json.Decoder(_Times).decode


def scan(
    url: str,
    tool_types: ToolTypes,
    size: int = 150_000,
    ends: Ends | None = None,
    most_keys: int = 1_000_000,
) -> Iterator[Batch]:
    """The records in Redis at `url`, in batches of about `size`.

    Keys are collected first (SCAN; about 130 bytes of memory each, and of more than
    `most_keys` only a part at a time, by the first characters of their run ids), values then run by
    run, so that keys written meanwhile wait for the next scan and keys deleted meanwhile are
    passed over. Left out are runs of which `ends` knows every task, none of them written again
    with a later end. Raises `Unreachable`.
    """
    with redis_client.connected(url) as client:
        batch = Batch(tool_types)
        for pattern in _patterns(redis_client.key_count(client), most_keys):
            keys = in_runs(client.scan_iter(match=pattern, count=5_000))
            known = _known(keys, ends)
            # Known records are passed over, but a run with anything new is joined as a whole.
            run = _Run(client)
            at, most = 0, _VALUES
            while at < len(keys):
                # No room, but the run at hand is completed all the same: see `_part`.
                room = size - batch.records if batch.weight < MOST_BYTES else 0
                end = _part(keys, at, room, most)
                values = redis_client.get_many(client, keys[at:end])
                with gc_pause.gc_paused():
                    for key, value, seen in zip(keys[at:end], values, known[at:end], strict=True):
                        for fresh, raw in run.news(key, value, seen):
                            batch.add(task_id(fresh), raw)
                mean = sum(len(value) for value in values if value is not None) / len(values)
                at, most = end, redis_client.affordable(mean, _VALUES)
                full = batch.records >= size or batch.weight >= MOST_BYTES
                # A batch never ends within a run, since the other half could not be joined to it.
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


def run_of(key: bytes) -> str:
    """The run's id within a key."""
    return run_ids.run_of(task_id(key))


def in_runs(keys: Iterable[bytes]) -> list[bytes]:
    """`keys`, each once, in an order that keeps those of a run together."""
    # A set, because SCAN may return a key twice while the table is resized.
    return sorted(set(keys), key=lambda key: (run_of(key), key))


class _Run:
    """The run at hand of a scan: passed over until one of its values turns out to be new."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._name, self._is_new = "", False
        self._passed: list[bytes] = []

    def news(self, key: bytes, value: bytes | None, end: float) -> Iterator[tuple[bytes, bytes]]:
        """What there is to take in once `key` holds `value`, of a task that ended at `end`."""
        if (name := run_of(key)) != self._name:
            self._name, self._is_new, self._passed = name, False, []
        # Deleted since it was listed.
        if value is None:
            return
        if not self._is_new:
            if not _is_later(value, end):
                self._passed.append(key)
                return
            self._is_new = True
            yield from self._fetch_passed()
        yield key, value

    def _fetch_passed(self) -> Iterator[tuple[bytes, bytes]]:
        """The values passed over: tasks that are new may need features in them."""
        for at in range(0, len(self._passed), _VALUES):
            keys = self._passed[at : at + _VALUES]
            values = redis_client.get_many(self._client, keys)
            yield from ((k, v) for k, v in zip(keys, values, strict=True) if v is not None)


def _is_later(value: bytes, end: float) -> bool:
    """Whether a record ended later than `end`; one that cannot be read did if `end` is a time."""
    if end == -math.inf:
        return True
    try:
        found = _decode(value).end_time
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # 0 stands for "rejected, its end unknown": then the same broken value is known already.
        return end > 0.0
    return found is not None and found > end


def _known(keys: Sequence[bytes], ends: Ends | None) -> list[float]:
    """The end of each of `keys` as far as `ends` knows it."""
    if ends is None:
        return [-math.inf] * len(keys)
    known: list[float] = []
    # In parts, which bounds the lists of ids that are decoded at a time.
    for at in range(0, len(keys), 10_000):
        known += ends([task_id(key) for key in keys[at : at + 10_000]]).tolist()
    return known


def _patterns(keys: int, most: int) -> list[bytes]:
    """Globs that together match each result in a Redis of so many `keys` exactly once.

    Run ids are hexadecimal and random: each further digit parts them in sixteen.
    """
    heads, digits = [b""], b"0123456789abcdef"
    found = []
    # SCAN with a pattern still walks all keys: each further digit costs sixteen times the walks.
    while keys > most and len(heads[0]) < 3:
        found += [_PREFIX + head + b"[^0-9a-f]*" for head in heads]
        found += [_PREFIX + head for head in heads]
        heads = [head + bytes([digit]) for head in heads for digit in digits]
        keys //= len(digits)
    return [*(_PREFIX + head + b"*" for head in heads), *found]


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
    return at < len(keys) and run_of(keys[at]) == run_of(keys[at - 1])
