"""What is left of a task that is running, and of the longest path through those that are not done.

A task's time is taken for log-logistic, with the median and the 80 % interval predicted. What is
left of one that has run for a while is the median, and the 80 % interval, of that distribution
among the times longer than what has passed: one that outlasts its prediction is not about to end,
and the longer it runs the longer it is expected to run on.

Along a path times add up, where paths meet the longest counts. The expectation of the longest of
several, none of which is certain, lies above the longest expectation (C. E. Clark, The greatest
of a finite set of random variables, Operations Research 9, 1961). Errors of one workflow's tasks
agree to some degree: what slows one often slows the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from malearn.kernel.prediction import Prediction
from malearn.kernel.workflow import Task

__all__ = ["Z80", "Path", "longest_path", "of_running"]

#: An interval of a normal distribution that reaches so many σ to either side encloses 80 %.
Z80 = 1.2815515655446004

_WIDTH80 = 2.0 * Z80  # of that interval, in σ
_LOG9 = math.log(9.0)
_MOST_LOG, _HUGE = 50.0, math.exp(30.0)  # beyond them powers overflow and differences vanish
#: Half an interval, in log-seconds. One is wider mostly where it is in doubt which of several
#: levels holds, each of which is narrow: taken for one wide distribution, a task that has begun
#: would be expected to run on for too long. On real runs in four orders 0.35 to 0.7 do as well.
_LEAST_SPREAD, _MOST_SPREAD = 0.03, 0.5
_LEAST_SECONDS = 1e-3  # a task that still runs is never 0 from its end
#: Correlation of the errors of two tasks of one workflow, measured on real runs: one after the
#: other hardly any; at the same time 0.7 where each loads a model of its own, 0.2 on a server.
_ALONG, _ACROSS = 0.05, 0.5
#: Relative deviation by which the ends of two paths part at most: what makes a task more uncertain
#: is a doubt about levels, which moves all of them together. Chosen on real runs in four orders.
_PARTING = 0.25
_COMPARED = 6  # of several ends the latest; more of them move the latest hardly any further
_ROOT2, _ROOT2PI = math.sqrt(2.0), math.sqrt(2.0 * math.pi)
_CERTAIN = 3.0  # σ of the difference by which one path is the longer for certain


def of_running(prediction: Prediction, elapsed: float) -> Prediction:
    """What is left of a task of which `prediction` was made and that runs for `elapsed` seconds.

    >>> task = Prediction(10.0, 8.0, 12.5, "model")
    >>> round(of_running(task, 4.0).seconds, 1)
    6.0
    >>> round(of_running(task, 15.0).seconds, 1)
    1.1
    """
    if not elapsed > 0.0:
        return prediction
    median = prediction.seconds
    # S(t) = 1 / (1 + (t / median)^shape), of which 10 % lie beyond `high` and below `low`.
    spread = math.log(prediction.high / prediction.low) / 2.0
    shape = _LOG9 / min(max(spread, _LEAST_SPREAD), _MOST_SPREAD)
    # (elapsed / median) to the power of the shape.
    passed = math.exp(min(shape * math.log(elapsed / median), _MOST_LOG))
    low, seconds, high = (
        max(median * ((1.0 + passed) / share - 1.0) ** (1.0 / shape) - elapsed, _LEAST_SECONDS)
        for share in (0.9, 0.5, 0.1)
    )
    if passed >= _HUGE:  # elapsed is all that counts
        low, seconds, high = (
            max(elapsed * (share ** (-1.0 / shape) - 1.0), _LEAST_SECONDS)
            for share in (0.9, 0.5, 0.1)
        )
    return Prediction(
        seconds, low, high, prediction.source, prediction.model_version, prediction.confidence
    )


class Path(msgspec.Struct, frozen=True, gc=False):
    """The longest path through tasks that are not done: its expectation and standard deviation,
    in seconds, and the ids of its tasks, first to last."""

    seconds: float
    deviation: float
    tasks: tuple[str, ...]


def longest_path(tasks: Mapping[str, Task], open_tasks: Mapping[str, Prediction]) -> Path:
    """The longest path through `open_tasks`, of which `tasks` say what each waits for.

    `tasks` come each after its predecessors.
    """
    ends: dict[str, tuple[float, float]] = {}  # expectation and deviation
    through: dict[str, str] = {}
    followed: set[str] = set()
    waits_for_none = open_tasks.keys().isdisjoint
    last_prediction, end = None, (0.0, 0.0)
    # A copy, as another thread may append to them. Not a list of pairs: while that is made, garbage
    # may be collected, which lets other threads in.
    for task_id, task in dict(tasks).items():
        prediction = open_tasks.get(task_id)
        if prediction is None:
            continue
        # Of tasks that are alike it is often the very same.
        if prediction is not last_prediction:
            deviation = (prediction.high - prediction.low) / _WIDTH80
            last_prediction, end = prediction, (prediction.seconds, deviation)
        if waits_for_none(task.predecessors):
            ends[task_id] = end
            continue
        seconds, deviation = end
        before = [one for one in task.predecessors if one in ends]
        if before:
            followed.update(before)
            last = before[0] if len(before) == 1 else max(before, key=ends.__getitem__)
            # The ids are of one path, the latest; the expectation is of the latest of them all.
            through[task_id] = last
            start, spread = ends[last] if len(before) == 1 else _latest([ends[b] for b in before])
            seconds += start
            deviation = math.sqrt(
                # The variance of a sum of two correlated terms.
                spread * spread + deviation * deviation + 2.0 * _ALONG * spread * deviation
            )
        ends[task_id] = seconds, deviation
    last_tasks = [task_id for task_id in ends if task_id not in followed] if followed else [*ends]
    if not last_tasks:
        return Path(0.0, 0.0, ())
    last_ends = [ends[task_id] for task_id in last_tasks]
    seconds, deviation = _latest(last_ends)
    last = last_tasks[last_ends.index(max(last_ends))]
    return Path(seconds, deviation, _chain(last, through))


def _latest(ends: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Expectation and deviation of the latest of several ends."""
    if len(ends) == 1:
        return ends[0]
    ordered = sorted(ends, reverse=True)[:_COMPARED]
    mean, deviation = ordered[0]
    for other, spread in ordered[1:]:
        # Written out, as calls of `min` take as long as all the rest.
        most, least = _PARTING * mean, _PARTING * other
        first = most if most < deviation else deviation
        second = least if least < spread else spread
        apart = first * first + second * second - 2 * _ACROSS * first * second
        theta = math.sqrt(apart) if apart > 0.0 else 0.0
        if mean - other >= _CERTAIN * theta:
            continue
        # Not 0: of two ends without any deviation the later one was certain just before.
        alpha = (mean - other) / theta
        density = math.exp(-0.5 * alpha * alpha) / _ROOT2PI
        share = 0.5 * math.erfc(-alpha / _ROOT2)  # how likely the first is the latest
        # Clark's first and second moment of the greater of two normal variables.
        latest = mean * share + other * (1.0 - share) + theta * density
        squares = (
            (mean * mean + deviation * deviation) * share
            + (other * other + spread * spread) * (1.0 - share)
            + (mean + other) * theta * density
        )
        mean, deviation = latest, math.sqrt(max(squares - latest * latest, 0.0))
    return mean, deviation


def _chain(last: str, through: Mapping[str, str]) -> tuple[str, ...]:
    found = [last]
    while found[-1] in through:
        found.append(through[found[-1]])
    return tuple(reversed(found))
