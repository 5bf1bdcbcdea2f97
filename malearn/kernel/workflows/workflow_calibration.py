"""How far the end of whole workflows lies from what was predicted, learnt as workflows finish.

Intervals of tasks do not add up to that of a workflow: errors of its tasks depend on each other,
and the longest of several paths counts. So what is kept is, for each prediction made of a whole
workflow, its *score*: the logarithm of the true over the predicted seconds of its remaining path,
in units of the relative deviation that was expected of it. The distribution of the latest scores
gives the median, the interval and the probability of being late of the next prediction (normalised
conformal prediction; feedback holds the share of outcomes outside where it is wanted, as in Gibbs
and Candès, Adaptive Conformal Inference Under Distribution Shift, 2021). Predictions are told
apart by how far their workflow had come (`Stage`).
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence
from enum import IntEnum
from statistics import NormalDist

import msgspec

from malearn.kernel.estimation.intervals import COVERAGE
from malearn.kernel.workflows.remaining import Path

__all__ = ["Coverage", "Outcome", "Stage", "State", "WorkflowCalibration", "coverage", "score"]

_NORMAL = NormalDist()
_WINDOW = 256  # latest scores that count, of each state
_PRIOR = 12.0  # scores that a normal distribution stands for until there are others
_LEAST, _MOST = 0.04, 1.5  # relative deviation of a path
# A workflow that hung for an hour is one outlier among many, not a reason to widen every interval.
_FARTHEST_SCORE = 8.0
# Nor is any interval wider than a factor of 12 either way, in log-seconds: a few scores of sure
# predictions that were wrong say nothing of one in great doubt.
_WIDEST = 2.5
_FEWEST = 20  # outcomes that a coverage is measured on
#: Whoever sets a deadline often knows what takes long, so that a late deadline is itself a sign of
#: a long workflow: the probability is that of a score nearer to the middle. And where deadlines are
#: in proportion to what workflows take, one that is just what was predicted belongs to one that
#: turns out shorter rather than longer, the more so the wider errors are: the score is raised by
#: this share of the deviation. Chosen on runs 3 to 21, with such deadlines and independent ones.
_CAUTION, _PROPORTIONAL = 0.85, 0.15
# Each outcome moves the share that either side leaves out by this much of its miss, so that
# cover holds while the errors' distribution drifts; within these limits, lest a lucky spell
# close the interval.
_FEEDBACK, _LOWEST, _HIGHEST = 0.01, 0.02, 0.25


class Stage(IntEnum):
    """How far a workflow had come when it was predicted: the inputs of its tasks are not known
    until the first of them has ended, and what is left of a running task is known in part.

    As numbers they are shared and kept in models; False and True stand there for the first and the
    last of them, from when two were told apart.
    """

    ARRIVED = 0
    RUNNING = 1  # the first task of the remaining path
    WAITING = 2  # some task has ended, the remaining path has not begun


class State(msgspec.Struct, frozen=True, gc=False):
    """What the calibration needs of one prediction: see `score`.

    `seconds` is the expected remaining path before calibration, `deviation` its relative standard
    deviation, `stage` how far the workflow had come.
    """

    seconds: float
    deviation: float
    stage: Stage

    @classmethod
    def of_path(cls, path: Path, stage: Stage) -> State:
        """The state of a prediction of `path`, which is not empty."""
        # Scores are divided by it: near 0 each outcome would be an outlier.
        relative = min(_MOST, max(_LEAST, path.deviation / path.seconds))
        return cls(path.seconds, relative, stage)


#: The stage of a prediction, and its score.
Outcome = tuple[int, float]


class Coverage(msgspec.Struct, frozen=True, gc=False):
    """How intervals of whole workflows did: of so many outcomes that share lay inside, against
    the wanted one; `median` is the median score, 0 where predictions are neither low nor high."""

    outcomes: int
    inside: float
    median: float


def coverage(outcomes: Sequence[Outcome]) -> Coverage | None:
    """How the intervals would have done on these scores, each met with what came before it.

    `outcomes` come oldest first; the first ones only teach. None where too few are left.
    """
    calibration, inside = WorkflowCalibration(), []
    for number, (stage, value) in enumerate(outcomes):
        if number >= _FEWEST:
            # Tested before it is learnt from (prequential evaluation).
            inside.append(calibration.encloses(stage, value))
        calibration.learn(stage, value)
    if len(inside) < _FEWEST:
        return None
    median = statistics.median(value for _, value in outcomes[_FEWEST:])
    return Coverage(len(inside), sum(inside) / len(inside), median)


def score(state: State, actual: float) -> float:
    """How far off the prediction was: log of true over predicted seconds, in deviations."""
    found = math.log(max(actual, 1e-3) / state.seconds) / state.deviation
    return min(_FARTHEST_SCORE, max(-_FARTHEST_SCORE, found))


class _Scores:
    """The latest scores of one state, and how often outcomes lay outside the interval."""

    __slots__ = ("_above", "_below", "_bounds", "_latest", "_ordered")

    def __init__(self) -> None:
        #: What `bounds` gave last: the same for all workflows of a queue.
        self._bounds: tuple[float, float, float] | None = None
        self._latest: deque[float] = deque(maxlen=_WINDOW)
        self._ordered: list[float] = []
        self._below = self._above = (1.0 - COVERAGE) / 2.0

    def add(self, value: float) -> None:
        tail, self._bounds = (1.0 - COVERAGE) / 2.0, None
        # Before the score is taken in: by the interval that it met.
        low, high = self.quantile(self._below), self.quantile(1.0 - self._above)
        self._below = _within(self._below + _FEEDBACK * (tail - (value < low)))
        self._above = _within(self._above + _FEEDBACK * (tail - (value > high)))
        if len(self._latest) == _WINDOW:
            del self._ordered[bisect_left(self._ordered, self._latest[0])]
        self._latest.append(value)
        insort(self._ordered, value)

    def bounds(self) -> tuple[float, float, float]:
        """Low, median and high score to expect."""
        if self._bounds is None:
            low, high = self.quantile(self._below), self.quantile(1.0 - self._above)
            self._bounds = low, self.quantile(0.5), high
        return self._bounds

    def quantile(self, share: float) -> float:
        """The score below which that share lies."""
        n, assumed = len(self._ordered), _NORMAL.inv_cdf(share)
        if not n:
            return assumed
        at = share * (n + 1) - 1.0
        low = min(max(math.floor(at), 0), n - 1)
        high = min(low + 1, n - 1)
        part = min(max(at - low, 0.0), 1.0)
        found = self._ordered[low] + part * (self._ordered[high] - self._ordered[low])
        return (n * found + _PRIOR * assumed) / (n + _PRIOR)

    def beyond(self, value: float) -> float:
        """The share of scores above `value`."""
        n, assumed = len(self._ordered), 1.0 - _NORMAL.cdf(value)
        above = n - bisect_left(self._ordered, value)
        return (above + _PRIOR * assumed) / (n + _PRIOR)


class WorkflowCalibration:
    """The distribution of the latest scores. Not thread-safe: its owner serialises calls."""

    __slots__ = ("_stages",)

    def __init__(self) -> None:
        self._stages = tuple(_Scores() for _ in Stage)

    def interval(self, state: State) -> tuple[float, float, float]:
        """Seconds of the remaining path, and the 80 % interval around them."""
        low, median, high = self._stages[state.stage].bounds()
        # Each quantile is mixed with the normal one and moved by feedback of its own, so of few
        # scores they may cross.
        least, middle, most = (
            state.seconds * math.exp(min(_WIDEST, max(-_WIDEST, one * state.deviation)))
            for one in (min(low, median), median, max(high, median))
        )
        return middle, least, most

    def beyond(self, state: State, seconds: float) -> float:
        """The probability that the remaining path takes longer than `seconds`."""
        if seconds <= 0.0:
            return 1.0
        scores = self._stages[state.stage]
        middle = scores.bounds()[1]
        nearer = middle + _CAUTION * (score(state, seconds) - middle)
        return scores.beyond(nearer + _PROPORTIONAL * state.deviation)

    def encloses(self, stage: int, value: float) -> bool:
        """Whether an outcome with that score lies inside the interval given now."""
        low, median, high = self._stages[stage].bounds()
        return min(low, median) <= value <= max(high, median)

    def learn(self, stage: int, value: float) -> None:
        """Take in the `score` of a prediction whose workflow has finished."""
        self._stages[stage].add(value)

    def learn_many(self, outcomes: Iterable[Outcome]) -> None:
        """As `learn`, of several, oldest first."""
        for stage, value in outcomes:
            self.learn(stage, value)


def _within(share: float) -> float:
    return min(_HIGHEST, max(_LOWEST, share))
