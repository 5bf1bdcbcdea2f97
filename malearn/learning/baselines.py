"""Predictors that need no training: what any model must beat.

Each predicts every task from what had ended before it started, as a model does. Where a task's
context is known (a model, a backend, a node), what its function took in that context counts.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from malearn.kernel.estimation.replay import timeline
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolTypes, default_seconds

__all__ = [
    "BASELINES",
    "function_ema",
    "function_ema_6",
    "function_median",
    "heuristic",
    "same_inputs",
]

Predictor = Callable[[Sequence[Execution], ToolTypes], NDArray[np.float64]]


def heuristic(executions: Sequence[Execution], tool_types: ToolTypes) -> NDArray[np.float64]:
    """15 s for a gpu task, 3 s for cpu, 1 s for io."""
    return np.array([default_seconds(None, tool_types[e.tool_type]) for e in executions])


def function_median(executions: Sequence[Execution], tool_types: ToolTypes) -> NDArray[np.float64]:
    """The median of all this function took so far; else its tool type's; else the default."""
    return _replayed(executions, tool_types, _Median)


def function_ema(executions: Sequence[Execution], tool_types: ToolTypes) -> NDArray[np.float64]:
    """This function's exponential moving average of log-seconds, α 0.3, with the same fallbacks."""
    return _replayed(executions, tool_types, partial(_Ema, 0.3))


def function_ema_6(executions: Sequence[Execution], tool_types: ToolTypes) -> NDArray[np.float64]:
    """The same with α 0.6: quick to follow a change, restless between changes."""
    return _replayed(executions, tool_types, partial(_Ema, 0.6))


def same_inputs(executions: Sequence[Execution], tool_types: ToolTypes) -> NDArray[np.float64]:
    """What this function took the last time that it had the same inputs; else its average."""
    predicted = function_ema_6(executions, tool_types)
    last: dict[Hashable, float] = {}
    for i, ended in timeline(executions):
        for past in (executions[j] for j in ended):
            # As text: NaN, which stands for a missing feature, does not equal itself in a tuple.
            last[past.function, past.context, str(past.serve)] = past.seconds
        task = executions[i]
        if any(value == value for value in task.serve):
            key = task.function, task.serve_context, str(task.serve)
            predicted[i] = last.get(key, predicted[i])
    return predicted


#: By the name they carry in MLflow, in decisions and in tables.
BASELINES: Mapping[str, Predictor] = {
    "function_median": function_median,
    "function_ema": function_ema,
    "function_ema_6": function_ema_6,
    "same_inputs": same_inputs,
    "heuristic": heuristic,
}


class _Running(Protocol):
    """A summary of durations that takes in one after the other."""

    def add(self, seconds: float) -> None: ...

    @property
    def seconds(self) -> float: ...


class _Median:
    """A running median over two heaps: log n a step, however long the log."""

    def __init__(self) -> None:
        self._low: list[float] = []  # negated: the lower half
        self._high: list[float] = []

    def add(self, seconds: float) -> None:
        # Each value passes through the lower half, so that the two never overlap.
        heapq.heappush(self._high, -heapq.heappushpop(self._low, -seconds))
        if len(self._high) > len(self._low):
            heapq.heappush(self._low, -heapq.heappop(self._high))

    @property
    def seconds(self) -> float:
        if len(self._low) > len(self._high):
            return -self._low[0]
        return (self._high[0] - self._low[0]) / 2.0


class _Ema:
    """An exponential moving average of log-seconds."""

    def __init__(self, alpha: float) -> None:
        self._alpha, self._level = alpha, math.nan

    def add(self, seconds: float) -> None:
        # Of logarithms: durations differ by factors, and one very long one would dominate.
        value = math.log(seconds)
        known = not math.isnan(self._level)
        self._level = self._level + self._alpha * (value - self._level) if known else value

    @property
    def seconds(self) -> float:
        return math.exp(self._level)


def _replayed(
    executions: Sequence[Execution], tool_types: ToolTypes, running: Callable[[], _Running]
) -> NDArray[np.float64]:
    known: dict[Hashable, _Running] = defaultdict(running)
    predicted = np.empty(len(executions))
    for i, ended in timeline(executions):
        for past in (executions[j] for j in ended):
            # A tuple, so that a function which is called like a tool type has a key of its own.
            known[past.tool_type,].add(past.seconds)
            known[past.function].add(past.seconds)
            if any(past.context):
                known[past.function, past.context].add(past.seconds)
        task = executions[i]
        for key in ((task.function, task.serve_context), task.function, (task.tool_type,)):
            if key in known:
                predicted[i] = known[key].seconds
                break
        else:
            predicted[i] = default_seconds(None, tool_types[task.tool_type])
    return predicted
