"""What inputs do to the time of one function: k-nearest-neighbour residuals.

Residuals are log-seconds above the level of their time, so that they survive a change of level.
The last are kept in a ring that is searched for similar inputs. Of identical inputs the time
itself is remembered as well, with the level at which it was taken: what a level has moved since by
less than a change of conditions is mostly noise of other inputs, and is followed by half. Memory is
bounded: what was used longest ago goes first.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from malearn.kernel.estimation.robust import clip_step

__all__ = ["Encoded", "EncodedRows", "InputEffects", "encode", "encode_rows", "logarithms"]

_RATE = 0.15  # by which identical inputs move towards their latest duration, unless said otherwise
# A level that has moved by so many log-seconds has changed, and identical inputs move along; of
# smaller moves they follow this share.
_CHANGED, _FOLLOWED = 0.5, 0.5
_REMEMBERED = 128  # for similar inputs
_IDENTICAL = 512  # for identical ones
_EXACT, _NEAR, _WIDTH, _FARTHEST, _PRIOR = 4.0, 2.0, 0.1, 2.0, 1.0  # see `InputEffects.similar`
_AT_ONCE = 256  # features whose differences from the ring stay in a processor's cache

Table = NDArray[np.float64]
#: Features of one task, 0 where missing, and what identifies them; None and b"" where all are.
Encoded = tuple[list[float] | None, bytes]
#: The same of several, one row each; what identifies a row is empty where all of it is missing.
EncodedRows = tuple[Table, list[bytes]]

_log1p = math.log1p
# Of 0 to `_REMEMBERED` + 2: look-ups need logarithms of small counts only.
_LOGARITHMS = [-math.inf, *map(math.log, range(1, _REMEMBERED + 3))]


def encode(features: Sequence[float]) -> Encoded:
    """The features of one task, NaN where missing, as they are compared."""
    x = [value if value == value else 0.0 for value in features]
    if not any(x) and not any(value == value for value in features):
        return None, b""
    # The bytes of a row of float64: `encode_rows` cuts them out of such a matrix.
    return x, array("d", x).tobytes()


def encode_rows(features: Table) -> EncodedRows:
    """As `encode`, one row for each of `features`."""
    missing = np.isnan(features)
    rows = np.where(missing, 0.0, features)
    raw, size = rows.tobytes(), rows.shape[1] * rows.itemsize
    nothing = np.all(missing, axis=1)
    return rows, [
        b"" if none else raw[row * size : (row + 1) * size] for row, none in enumerate(nothing)
    ]


def logarithms(x: Sequence[float]) -> list[float]:
    """Features on the scale on which inputs are compared."""
    return [_log1p(value) if value >= 0.0 else -_log1p(-value) for value in x]


class InputEffects:
    """The effects that inputs had on one function: identical ones, and the last ones in a ring.

    `rate` is the share by which identical inputs, seen often, move towards their latest effect.
    """

    __slots__ = (
        "_farthest",
        "_identical",
        "_logs",
        "_rate",
        "_room",
        "_scale",
        "_scaled",
        "_seen",
        "_shares",
        "_taken",
        "_total",
    )

    def __init__(self, rate: float = _RATE) -> None:
        self._rate = rate
        # Log-seconds and the level that they were taken at, both smoothed, and the count.
        self._identical: dict[bytes, tuple[float, float, float]] = {}
        self._clear(0)

    def __getstate__(self) -> dict[str, object]:
        # A view that is pickled comes back as an array of its own, which nobody writes to.
        made = ("_farthest", "_room", "_taken")
        return {name: getattr(self, name) for name in self.__slots__ if name not in made}

    def __setstate__(self, state: dict[str, object]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._make_room()

    def effect(
        self, x: Sequence[float], key: bytes, level: float = 0.0
    ) -> tuple[float, float, float]:
        """Effect on log-seconds, times seen exactly so, and the weight of what was similar.

        `level` is the one above which the effect is wanted, in log-seconds. After a change of it,
        all that was seen before counts once.
        """
        identical = self._identical.get(key)
        if identical is not None:
            return _above(level, identical), identical[2], 0.0
        effect, mass = self.similar(x)
        return effect, 0.0, mass

    def effects(self, encoded: EncodedRows, level: float = 0.0) -> Table:
        """As `effect`, one row for each of `encoded`; none of a row of which all is missing."""
        rows, keys = encoded
        found = np.zeros((len(rows), 3))
        unseen = []
        for row, key in enumerate(keys):
            if not key:
                continue
            identical = self._identical.get(key)
            if identical is None:
                unseen.append(row)
            else:
                found[row, :2] = _above(level, identical), identical[2]
        # There is nothing to compare with before the first `learn`, or at another width.
        if unseen and 0 < rows.shape[1] == len(self._scale):
            found[unseen, ::2] = self._similar_many(rows[unseen])
        return found

    def count(self, key: bytes) -> int:
        """How often these very inputs were seen, as `effect` counts; 0 if not remembered."""
        identical = self._identical.get(key)
        return 0 if identical is None else int(identical[2])

    def similar(self, x: Sequence[float]) -> tuple[float, float]:
        """The weighted mean effect of earlier inputs like `x`, and their weight.

        An earlier one weighs exp(4·surprise) − 1 + 2·exp(−distance ÷ 0.1). Its
        surprise: over the features that are exactly equal, minus the logarithm of
        how often that value occurs, averaged over all; sharing a rare value is
        strong evidence. Its distance: the mean difference over the features in
        standard deviations, each at most 2. Features count on a logarithmic scale.
        """
        width = len(self._scale)
        if len(x) != width:
            return 0.0, 0.0
        n = min(self._seen, _REMEMBERED)
        own, apart, unequal, both, weights, rarities = self._room
        # A scheduler waits for this: few calls of numpy, over room that is there already, and
        # products where it would sum.
        own[:, 0] = [
            _log1p(v) * s if v >= 0.0 else -_log1p(-v) * s
            for v, s in zip(x, self._scale, strict=True)
        ]
        np.absolute(np.subtract(self._scaled, own, apart), apart)
        # 1 where two values differ by anything, 0 where they are equal.
        np.ceil(np.minimum(apart, self._farthest, out=apart), unequal)
        rarest, worth = _LOGARITHMS[n + 2], _EXACT / width
        rarities[:] = rarity = [
            (_LOGARITHMS[n + 1 - int(others)] - rarest) * worth
            for others in unequal.dot(self._taken).tolist()
        ]
        # Summed over the features that differ; the factor `equal` makes it those that agree.
        exponents = weights.dot(both)
        exact, near = np.exp(exponents, exponents).dot(self._shares).tolist()
        equal = math.exp(-sum(rarity))
        # Less n, and less the total: the −1 of each place in the formula above.
        mass = equal * exact[1] - n + _NEAR * near[1]
        return (equal * exact[0] - self._total + _NEAR * near[0]) / (mass + _PRIOR), mass

    def neighbours(self, x: Sequence[float]) -> list[tuple[tuple[float, ...], float, float]]:
        """Those that `similar` weighs for `x`: inputs, effect, and share of the effect given.

        The shares sum to less than 1: what is missing pulls the effect towards none.
        """
        n = min(self._seen, _REMEMBERED)
        if len(x) != len(self._scale) or not n:
            return []
        # The weight of each is what it would add if it alone had any effect.
        each = np.eye(len(self._shares), dtype=np.float32)
        weights = self._weighed(np.array([x], np.float64), each, np.ones(len(each)))[0, :n]
        shares = weights / (float(weights.sum()) + _PRIOR)
        inputs = np.copysign(np.expm1(np.abs(self._logs[:, :n])), self._logs[:, :n])
        effects = self._shares[:n, 0]
        return [
            (tuple(inputs[:, i].tolist()), float(effects[i]), float(shares[i])) for i in range(n)
        ]

    def _similar_many(self, rows: Table) -> Table:
        """As `similar`, one row for each of `rows`."""
        n = min(self._seen, _REMEMBERED)
        found = self._weighed(rows, self._shares, np.array([self._total, n]))
        found[:, 0] /= found[:, 1] + _PRIOR
        return found

    def _weighed(self, rows: Table, shares: NDArray[np.float32], totals: Table) -> Table:
        """The places' `shares`, shape (places, k), weighed by likeness to each of `rows`.

        `totals` are the sums of `shares`, which places that are not taken have none of.
        """
        width = len(self._scale)
        size, n = len(shares), min(self._seen, _REMEMBERED)
        decay = np.float32(_decay(width))
        logs = np.copysign(np.log1p(np.abs(rows)), rows)
        own = (logs * self._scale).astype(np.float32).T[:, :, None]  # by feature, row, place
        found = np.empty((len(rows), shares.shape[1]))
        count = min(max(_AT_ONCE // width, 1), len(rows))
        room = np.empty((2, width, count, size), np.float32)
        for start in range(0, len(rows), count):
            some = own[:, start : start + count]
            apart, unequal = room[:, :, : some.shape[1]]
            np.abs(np.subtract(self._scaled[:, None], some, out=apart), out=apart)
            np.ceil(np.clip(apart, 0.0, 1.0, out=apart), out=unequal)
            # A sum over places. No product: BLAS would start threads for it.
            others = np.einsum("frp->fr", unequal[:, :, :n])
            rarity = np.log((n + 1.0 - others) / (n + 2.0)) * np.float32(_EXACT / width)
            unequal *= rarity[:, :, None]
            exact = np.exp(unequal.sum(axis=0)) @ shares
            near = np.exp(apart.sum(axis=0) * decay) @ shares
            equal = np.exp(-rarity.sum(axis=0))[:, None]
            found[start : start + count] = equal * exact - totals + _NEAR * near
        return found

    def learn(self, x: Sequence[float], key: bytes, effect: float, level: float = 0.0) -> None:
        """These inputs had this effect above `level`."""
        identical = self._identical.pop(key, None)
        if identical is None:
            identical = effect + level, level, 1.0
            if len(self._identical) >= _IDENTICAL:
                del self._identical[next(iter(self._identical))]
        else:
            usual, at, count = identical
            if abs(level - at) >= _CHANGED:
                # Each function moves by its own ratio, and its inputs by theirs: all that was seen
                # before is worth one execution since.
                usual, at, count = usual + level - at, level, 1.0
            # A plain mean of the first few, exponential smoothing from then on.
            rate = max(self._rate, 1.0 / (count + 1.0))
            usual += rate * (effect + level - usual)
            identical = usual, at + rate * (level - at), count + 1.0
        self._identical[key] = identical  # the most recently used last
        self._place(logarithms(x), clip_step(effect))

    def _clear(self, width: int) -> None:
        """An empty ring of inputs of `width` features.

        Features by place, so that numpy runs along the ring. `_shares` are the
        effect of a place and one; a place that is not taken yet has neither.
        """
        self._seen, self._total = 0, 0.0
        self._logs = np.zeros((width, 0))
        self._scaled = np.zeros((width, 0), np.float32)
        self._scale = [1.0] * width
        self._shares = np.zeros((0, 2), np.float32)
        self._widen(0)

    def _widen(self, size: int) -> None:
        """Room for `size` places, and for comparing something with all of them."""
        more = ((0, 0), (0, size - len(self._shares)))
        self._logs, self._scaled = np.pad(self._logs, more), np.pad(self._scaled, more)
        self._shares = np.pad(self._shares, more[::-1])
        self._make_room()

    def _make_room(self) -> None:
        """Views of the shares, and arrays that are written over with each comparison."""
        width, size = self._scaled.shape
        self._taken = self._shares[:, 1]
        self._farthest = np.ones_like(self._scaled)
        own, both = np.zeros((width, 1), np.float32), np.zeros((2 * width, size), np.float32)
        weights = np.zeros((2, 2 * width), np.float32)
        weights[1, :width] = _decay(width)
        self._room = own, both[:width], both[width:], both, weights, weights[0, width:]

    def _place(self, logs: list[float], effect: float) -> None:
        if len(logs) != len(self._scale):
            # The declared features have changed: vectors of another width cannot be compared.
            self._clear(len(logs))
        i, size = self._seen % _REMEMBERED, len(self._shares)
        if i == size:
            # By doubling: of thousands of remembered functions most never fill a ring.
            self._widen(min(max(2 * size, 16), _REMEMBERED))
        shares = self._shares
        self._total += effect - float(shares[i, 0])
        shares[i] = effect, 1.0
        self._logs[:, i] = logs
        self._scaled[:, i] = [log * scale for log, scale in zip(logs, self._scale, strict=True)]
        self._seen += 1
        # The spread of inputs changes slowly, while rescaling costs as much as a look-up.
        if self._seen < 10 or self._seen % 10 == 0:
            known = self._logs[:, : min(self._seen, _REMEMBERED)]
            # What is farthest from another is 1 from it.
            # 0.05: a feature that hardly ever varies must not decide alone when it does.
            scale = 1.0 / ((known.std(axis=1) + 0.05) * _FARTHEST)
            self._scale = scale.tolist()
            self._scaled[:] = self._logs * scale[:, None]


def _decay(width: int) -> float:
    """What a difference of 1 in one of `width` features, the greatest, does to an exponent."""
    return -_FARTHEST / (_WIDTH * max(width, 1))


def _above(level: float, identical: tuple[float, float, float]) -> float:
    """The effect above `level` of inputs whose log-seconds and level are remembered."""
    usual, at, _ = identical
    moved = level - at
    return usual - at if abs(moved) >= _CHANGED else usual - at - (1.0 - _FOLLOWED) * moved
