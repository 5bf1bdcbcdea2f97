"""Which keys were taken in before, and when each one ended: sixteen bytes a key."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["KeyIndex"]


class KeyIndex:
    """An index of keys with the latest end of each, in seconds since the epoch.

    Keys are kept as 64-bit hashes in sorted arrays, so that a million cost
    16 MB; two different ones among a million meet once in ten million runs. A
    hash means nothing outside this process: never store one.
    """

    __slots__ = ("_ends", "_keys")

    def __init__(self) -> None:
        self._keys: NDArray[np.int64] = np.empty(0, np.int64)
        self._ends: NDArray[np.float64] = np.empty(0, np.float64)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: Hashable) -> bool:
        return bool(self.ends([key])[0] > -np.inf)

    @property
    def latest(self) -> float:
        """The latest end of all; -inf where there is none."""
        return float(self._ends.max(initial=-np.inf))

    def ends(self, keys: Sequence[Hashable]) -> NDArray[np.float64]:
        """The end of each of `keys`, shape (len(keys),); -inf for one that is new."""
        at, known = self._find(_hashes(keys))
        found = np.full(len(at), -np.inf)
        found[known] = self._ends[at[known]]
        return found

    def add(self, keys: Iterable[Hashable], ends: Iterable[float]) -> None:
        """Take in `keys`; of one that is known the later end stays."""
        hashes, times = _hashes(keys), np.fromiter(ends, np.float64)
        # By hash, then time: the last of equal hashes has the latest end.
        order = np.lexsort((times, hashes))
        hashes, times = hashes[order], times[order]
        last = np.append(hashes[1:] != hashes[:-1], True)[: len(hashes)]
        hashes, times = hashes[last], times[last]
        at, known = self._find(hashes)
        self._ends[at[known]] = np.maximum(self._ends[at[known]], times[known])
        # One insertion for all: the arrays are copied once a batch, not once a key.
        self._keys = np.insert(self._keys, at[~known], hashes[~known])
        self._ends = np.insert(self._ends, at[~known], times[~known])

    def _find(self, hashes: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Where each of `hashes` stands, or would stand, and whether it does."""
        at = np.searchsorted(self._keys, hashes)
        known = np.zeros(len(at), np.bool_)
        inside = at < len(self._keys)
        known[inside] = self._keys[at[inside]] == hashes[inside]
        return at, known


def _hashes(keys: Iterable[Hashable]) -> NDArray[np.int64]:
    # Python salts hashes of text with a number that each process draws.
    return np.fromiter(map(hash, keys), np.int64)
