"""The outlier fence: durations too far from all others of their function to learn from.

Per function, on log-seconds, an execution is an outlier only when both hold:

- *distant*: it lies further from the median of its function's recent and new durations than
  `DEVIATIONS` robust standard deviations (1.4826 x the median absolute deviation), and
  further than a factor of `FACTOR`;
- *isolated*: going from one duration to the next that is within a factor of `FACTOR`, fewer
  than `MIN_CLUSTER` are reached, itself included (where few are known: less than a tenth).

So a backend that is 8 times faster or slower is never fenced off, nor is a mode of a
function that has several, nor a new regime once a few of its executions are in. With fewer
than `ENOUGH` durations of a function there is no fence.

**Reconsideration.** The first one or two executions of a regime that is further away than
`FACTOR` do look like outliers, and stay recorded as rejected; they are not in `recent` the
next time. So that they still count for those that follow, hand the log-seconds
of what was fenced off lately over as `recent_outliers`: with the third of its kind, each execution
at hand is accepted. Those rejected before stay so until `malearn.data.quarantine` revalidates
them; nothing here does so by itself.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import compress

import numpy as np
import numpy.typing as npt

from malearn.data.rows import Rows, chosen
from malearn.kernel.records import Execution, Rejected, RejectReason

__all__ = ["DEVIATIONS", "ENOUGH", "FACTOR", "MIN_CLUSTER", "fence"]

#: Below this many durations of a function nothing is fenced off.
#: A median and its deviation mean little over fewer.
ENOUGH = 20
#: Durations within this factor of one another belong together.
FACTOR = 10.0
#: Robust standard deviations from the median that are still ordinary.
DEVIATIONS = 6.0
#: So many durations that belong together are a regime, however strange.
MIN_CLUSTER = 3

# Durations are compared by ratio: on a logarithmic scale a factor is a distance.
_STEP = math.log(FACTOR)
_TO_DEVIATION = 1.4826  # from a normal distribution's median absolute deviation


def fence(
    executions: Sequence[Execution],
    recent: Mapping[str, Sequence[float]],
    recent_outliers: Mapping[str, Sequence[float]] | None = None,
) -> tuple[Sequence[Execution], list[Rejected]]:
    """Split `executions` into those to learn from and the outliers, each in the given order.

    `recent` holds, by function, the natural logarithms of the seconds of what the dataset
    already has of it, lately; `recent_outliers` the same of what was fenced off lately. The result
    does not depend on any order. Times must be finite, as they are after validation.

    >>> day = [Execution(f"{n}", "f", "t", 0.0, 4.0 + n % 3, (), ()) for n in range(30)]
    >>> odd = Execution("odd", "f", "t", 0.0, 812.0, (), ())
    >>> [rejected.detail for rejected in fence([*day, odd], {})[1]]
    ['took 812 s; this function lately takes 4.0–6.0 s']
    """
    functions, seconds = _columns(executions)
    positions: dict[str, list[int]] = defaultdict(list)
    for position, function in enumerate(functions):
        positions[function].append(position)
    # The floor is for a duration of 0, which has no logarithm.
    logs = np.log(np.maximum(seconds, 1e-9))
    ordinary = np.ones(len(executions), np.bool_)
    details: dict[int, str] = {}
    for function, places in positions.items():
        new = logs[places]
        known = np.concatenate([_finite(recent.get(function, ())), new])
        rejected_before = _finite((recent_outliers or {}).get(function, ()))
        odd = _outliers(new, known, rejected_before)
        if odd.any():
            # The sentence names what is usual: outliers themselves would widen the range it quotes.
            usual = _usual(known[~np.isin(known, new[odd])])
            for place in compress(places, odd):
                ordinary[place] = False
                details[place] = f"took {_seconds(executions[place].seconds)} s; {usual}"
    rejected = [
        Rejected(executions[at].task_id, functions[at], RejectReason.OUTLIER, details[at])
        for at in sorted(details)
    ]
    return chosen(executions, ordinary), rejected


def _outliers(
    new: npt.NDArray[np.float64],
    known: npt.NDArray[np.float64],
    rejected_before: npt.NDArray[np.float64],
) -> npt.NDArray[np.bool_]:
    """Which of `new` are outliers among `known`, which includes them. All in log-seconds."""
    if known.size < ENOUGH:
        return np.zeros(new.size, dtype=np.bool_)
    median = np.median(known)
    deviation = _TO_DEVIATION * np.median(np.abs(known - median))
    # The median absolute deviation is robust: a tenth of wild values hardly moves it. It is 0 where
    # most durations are equal, hence the factor as a floor.
    distant: npt.NDArray[np.bool_] = np.abs(new - median) > max(DEVIATIONS * deviation, _STEP)
    if not distant.any():
        return distant
    # Single-linkage clusters: in one dimension, the stretches between gaps wider than the step.
    everything = np.sort(np.concatenate([known, rejected_before]))
    group = np.concatenate([[0], np.cumsum(np.diff(everything) > _STEP)])
    sizes = np.bincount(group)[group[np.searchsorted(everything, new)]]
    isolated: npt.NDArray[np.bool_] = sizes < min(MIN_CLUSTER, 0.1 * everything.size)
    return distant & isolated


def _usual(ordinary: npt.NDArray[np.float64]) -> str:
    low, high = (_seconds(math.exp(edge)) for edge in np.quantile(ordinary, (0.05, 0.95)))
    return f"this function lately takes {low if low == high else f'{low}–{high}'} s"


def _columns(executions: Sequence[Execution]) -> tuple[list[str], npt.NDArray[np.float64]]:
    """The function of each, and its seconds."""
    if isinstance(executions, Rows):
        return executions.functions, executions.seconds
    seconds = np.array([execution.seconds for execution in executions], np.float64)
    return [execution.function for execution in executions], seconds


def _finite(values: Sequence[float]) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return array[np.isfinite(array)]


def _seconds(value: float) -> str:
    """Two digits that matter, never an exponent: 0.013, 3.1, 52, 812."""
    if value >= 10:
        return f"{value:.0f}"
    digits = 1 - math.floor(math.log10(max(value, 1e-6)))
    return f"{value:.{digits}f}"
