"""A dictionary that forgets: bounded, without a lock.

Two generations instead of a linked list: when the young one is full it becomes
the old one, and what was old is gone. Every step is one dictionary operation,
so threads may share it; the worst a race costs is a forgotten entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

__all__ = ["GenerationalCache"]

K = TypeVar("K")
V = TypeVar("V")


class GenerationalCache(Generic[K, V]):
    """Keeps at least the last `size` entries put, at most twice as many.

    >>> seen = GenerationalCache(2)
    >>> for number in range(5): seen.put(number, str(number))
    >>> seen.get(4), seen.get(3), seen.get(0)
    ('4', '3', None)
    """

    __slots__ = ("_old", "_size", "_young")

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: K) -> V | None:
        value = self._young.get(key)
        return value if value is not None else self._old.get(key)

    def get_all(self, keys: Sequence[K]) -> list[V | None]:
        """As `get`, one for each of `keys`; a value that is false counts as none."""
        found = list(map(self._young.get, keys))
        if not self._old or all(found):
            return found  # nearly always, and quicker than asking twice for each
        old = self._old.get
        return [one or old(key) for one, key in zip(found, keys, strict=True)]

    def put(self, key: K, value: V) -> None:
        young = self._young
        if len(young) >= self._size:
            # The old ones are let go of at once, so that no call pays for removing them singly.
            self._old, self._young = young, {}
            young = self._young
        # The local name: where another thread swaps generations now, this entry is an old one.
        young[key] = value

    def put_all(self, entries: Mapping[K, V]) -> None:
        """As `put`, of each of `entries`."""
        young = self._young
        if len(young) + len(entries) <= self._size:
            young.update(entries)
            return
        for key, value in entries.items():
            self.put(key, value)

    def pop(self, key: K) -> V | None:
        # A key may stand in both; then the younger value counts.
        old = self._old.pop(key, None)
        return self._young.pop(key, old)

    def clear(self) -> None:
        self._young, self._old = {}, {}
