"""Two versions of a model on the same rows: errors side by side, and whether they differ.

Of every group of rows (all, each function, each state) the mean absolute errors are compared, with
the interval of their difference by a paired bootstrap and the p-value of Wilcoxon's signed-rank
test on the absolute errors of the same tasks. The p-values of functions and of states are
corrected for how many of them are looked at (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from malearn.kernel.estimation.intervals import State
from malearn.learning.metrics import pairwise_accuracy, score

__all__ = ["ALPHA", "TEST", "PairedErrors", "VersionComparison", "compare"]

#: How probable a difference may be by chance, to be called one.
ALPHA = 0.05
TEST = "Wilcoxon signed-rank test on absolute errors; interval by paired bootstrap"

_RESAMPLES, _SEED = 2_000, 7
#: A test on fewer pairs proves nothing.
_FEWEST = 6
_LEAST = 1e-9  # seconds; smaller differences are ties

Vector = NDArray[np.float64]
Kind = Literal["all", "function", "state"]


@dataclass(frozen=True, slots=True)
class PairedErrors:
    """The errors of both versions on the `n` rows of one group.

    Errors are `mae` in seconds and `median_ape` as a ratio, of the first and of the second;
    `difference` is the second's MAE less the first's, between `low` and `high` with 95 %
    confidence. `p_value` is None for fewer than six rows.
    """

    kind: Kind
    name: str
    n: int
    mae: tuple[float, float]
    median_ape: tuple[float, float]
    difference: float
    low: float
    high: float
    p_value: float | None

    @property
    def better(self) -> int | None:
        """Which is significantly better, 0 or 1; None where neither is."""
        if self.p_value is None or self.p_value >= ALPHA or not self.difference:
            return None
        # Both must agree: the test looks at ranks, the interval at the mean.
        if self.low <= 0.0 <= self.high:
            return None
        return 1 if self.difference < 0.0 else 0


@dataclass(frozen=True, slots=True)
class VersionComparison:
    """Two versions of the model of `tool_type` on the same `n` rows.

    `seen` is how many of the rows either was fitted on. `actual` and the two of `predicted` are
    seconds, shape (n,), in order of start. `pairwise_accuracy` is of the first and of the second.
    """

    tool_type: str
    versions: tuple[int, int]
    n: int
    seen: tuple[int, int]
    overall: PairedErrors
    groups: tuple[PairedErrors, ...]
    pairwise_accuracy: tuple[float, float]
    actual: Vector
    predicted: tuple[Vector, Vector]

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        one, other = self.versions
        first, second = self.overall.mae
        if self.overall.better is None:
            return (
                f"versions {one} and {other} are not told apart on these {self.n} rows "
                f"(MAE {first:.3g} and {second:.3g} s)"
            )
        better, worse = (one, other) if self.overall.better == 0 else (other, one)
        low, high = sorted(self.overall.mae)
        return (
            f"version {better} is significantly better than version {worse} "
            f"(MAE {low:.3g} against {high:.3g} s on {self.n} rows)"
        )

    @property
    def note(self) -> str:
        """Which rows these are, and which version was fitted on some of them."""
        known = [
            f"{seen} of them are known to version {version}, which looks better for it"
            for version, seen in zip(self.versions, self.seen, strict=True)
            if seen
        ]
        if not known:
            return f"The newest {self.n} rows; neither version was trained on any of them."
        return f"The newest {self.n} rows; {', and '.join(known)}."

    def as_json(self) -> dict[str, Any]:
        """The form that `malearn compare --json` prints."""
        return {
            "tool_type": self.tool_type,
            "versions": list(self.versions),
            "n": self.n,
            "seen": list(self.seen),
            "test": TEST,
            "verdict": self.verdict,
            "pairwise_accuracy": list(self.pairwise_accuracy),
            "overall": _json(self.overall),
            "groups": [_json(group) for group in self.groups],
        }


def compare(
    tool_type: str,
    versions: tuple[int, int],
    actual: Vector,
    predicted: tuple[Vector, Vector],
    functions: Sequence[str],
    states: Sequence[State],
    seen: tuple[int, int],
) -> VersionComparison:
    """Compare two predictions of the same tasks; see `VersionComparison` for the arguments.

    `functions` and `states` are each task's function and the state of its prediction.
    """
    groups: list[PairedErrors] = []
    kinds: tuple[tuple[Kind, Sequence[str]], ...] = (("function", functions), ("state", states))
    for kind, names in kinds:
        labels = np.array(names)
        known = sorted(set(names), key=lambda name: -int((labels == name).sum()))
        for name in known:
            here = labels == name
            groups.append(
                _paired(
                    kind, name, actual[here], predicted[0][here], predicted[1][here], len(known)
                )
            )
    return VersionComparison(
        tool_type,
        versions,
        len(actual),
        seen,
        _paired("all", "all", actual, *predicted, 1),
        tuple(groups),
        (pairwise_accuracy(actual, predicted[0]), pairwise_accuracy(actual, predicted[1])),
        actual,
        predicted,
    )


def _paired(
    kind: Kind, name: str, actual: Vector, first: Vector, second: Vector, tests: int
) -> PairedErrors:
    scores = score(actual, first), score(actual, second)
    apart = np.abs(second - actual) - np.abs(first - actual)
    low, high = _interval(apart)
    return PairedErrors(
        kind,
        name,
        len(actual),
        (scores[0].mae, scores[1].mae),
        (scores[0].median_ape, scores[1].median_ape),
        float(apart.mean()),
        low,
        high,
        _p_value(apart, tests),
    )


def _interval(apart: Vector) -> tuple[float, float]:
    """What encloses the mean of `apart` in 95 % of resamples."""
    # Seeded: the same comparison must not be significant on one day and not on the next.
    dice = np.random.default_rng(_SEED)
    n = len(apart)
    # Paired: the difference of a task is resampled, so that hard tasks weigh on both alike.
    means = np.array([apart[dice.integers(0, n, n)].mean() for _ in range(_RESAMPLES)])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _p_value(apart: Vector, tests: int) -> float | None:
    """Of Wilcoxon's signed-rank test, corrected for so many `tests`."""
    from scipy.stats import wilcoxon

    if len(apart) < _FEWEST:
        return None
    told = np.where(np.abs(apart) < _LEAST, 0.0, apart)
    if not told.any():
        return 1.0
    # "zsplit": rows on which both are equally far off count half for each, instead of not at all.
    return min(1.0, tests * float(wilcoxon(told, zero_method="zsplit", method="approx").pvalue))


def _json(errors: PairedErrors) -> dict[str, Any]:
    return {**asdict(errors), "better": errors.better}
