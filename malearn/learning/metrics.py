"""How far predictions were from what happened, in the terms everyone here compares by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLEARLY_LONGER", "Scores", "pairwise_accuracy", "score"]

#: Two tasks whose times differ by more than this factor have an order worth getting right.
CLEARLY_LONGER = 1.2

_MOST_PAIRED = 3_000  # rows of which all pairs are compared: 4.5 million, 0.1 s


@dataclass(frozen=True, slots=True)
class Scores:
    """Errors of one predictor over `n` tasks.

    `mae` and `rmse` in seconds; `mape` and `median_ape` as a ratio of the actual
    time; `spearman` and `pairwise_accuracy` in rank terms, NaN where there is nothing to rank.
    """

    n: int
    mae: float
    rmse: float
    r2: float
    mape: float
    median_ape: float
    spearman: float
    pairwise_accuracy: float

    def as_dict(self) -> dict[str, float]:
        """The same by name, NaN where a score is not defined."""
        return asdict(self)


def score(actual: Sequence[float] | NDArray[np.float64], predicted: object) -> Scores:
    """Scores of `predicted` against `actual`, both in seconds, one entry a task.

    Raises ValueError for empty or unequal lengths.
    """
    y = np.asarray(actual, dtype=np.float64)
    p = np.asarray(predicted, dtype=np.float64).reshape(-1)
    if not len(y) or len(y) != len(p):
        raise ValueError(f"{len(p)} predictions for {len(y)} outcomes")
    error = p - y
    # The floor only keeps a duration of 0 from dividing.
    share = np.abs(error) / np.maximum(y, 1e-9)
    spread = float(np.sum((y - y.mean()) ** 2))
    return Scores(
        n=len(y),
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt((error**2).mean())),
        # R² is undefined where all outcomes are equal.
        r2=1.0 - float(np.sum(error**2)) / spread if spread > 0 else float("nan"),
        mape=float(share.mean()),
        median_ape=float(np.median(share)),
        spearman=_spearman(y, p),
        pairwise_accuracy=pairwise_accuracy(y, p),
    )


def pairwise_accuracy(
    actual: NDArray[np.float64], predicted: NDArray[np.float64], groups: Sequence[str] | None = None
) -> float:
    """Share of pairs, clearly different in time, that are predicted in the right order.

    Pairs are formed within each of `groups` (all together without); a tie in the
    prediction counts half. NaN where no pair differs by more than
    `CLEARLY_LONGER`. Of a group of more than 3,000 an even sample is paired.
    """
    right = total = 0.0
    labels = np.zeros(len(actual)) if groups is None else np.asarray(groups)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) > _MOST_PAIRED:
            # Evenly spaced, not drawn: the same rows give the same score.
            rows = rows[np.linspace(0, len(rows) - 1, _MOST_PAIRED).astype(int)]
        y, p = actual[rows], predicted[rows]
        longer = y[:, None] > CLEARLY_LONGER * y[None, :]
        difference = np.sign(p[:, None] - p[None, :])
        right += float((difference[longer] + 1.0).sum() / 2.0)
        total += float(longer.sum())
    return right / total if total else float("nan")


def _spearman(y: NDArray[np.float64], p: NDArray[np.float64]) -> float:
    a, b = _ranks(y), _ranks(p)
    # All equal: there is no rank to correlate.
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, ties sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean = last - (counts + 1) / 2.0
    return np.asarray(mean[inverse], dtype=np.float64)
