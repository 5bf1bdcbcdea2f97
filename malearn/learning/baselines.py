"""Predictors that need no training: what any model must beat.

Each predicts every task from what had ended before it started, as a model does.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from malearn.kernel.records import Execution
from malearn.kernel.replay import timeline
from malearn.kernel.tool_types import ToolTypes, default_seconds

__all__ = ["BASELINES", "function_ema", "function_median", "heuristic"]

_ALPHA = 0.3

Predictor = Callable[[Sequence[Execution], ToolTypes], NDArray[np.float64]]


def heuristic(executions: Sequence[Execution], tool_types: ToolTypes) -> NDArray[np.float64]:
    """15 s for a gpu task, 3 s for cpu, 1 s for io."""
    return np.array([default_seconds(None, tool_types[e.tool_type]) for e in executions])


def function_median(executions: Sequence[Execution], tool_types: ToolTypes) -> NDArray[np.float64]:
    """The median of all this function took so far; else its tool type's; else the heuristic."""
    return _replayed(executions, tool_types, _Median)


def function_ema(executions: Sequence[Execution], tool_types: ToolTypes) -> NDArray[np.float64]:
    """This function's exponential moving average of log-seconds, α 0.3, with the same fallbacks."""
    return _replayed(executions, tool_types, _Ema)


#: By the name they carry in MLflow, in decisions and in tables.
BASELINES: Mapping[str, Predictor] = {
    "function_median": function_median,
    "function_ema": function_ema,
    "heuristic": heuristic,
}


class _Median:
    """A running median over two heaps: log n a step, however long the log."""

    def __init__(self) -> None:
        self._low: list[float] = []  # negated: the lower half
        self._high: list[float] = []

    def add(self, seconds: float) -> None:
        heapq.heappush(self._high, -heapq.heappushpop(self._low, -seconds))
        if len(self._high) > len(self._low):
            heapq.heappush(self._low, -heapq.heappop(self._high))

    @property
    def seconds(self) -> float:
        if len(self._low) > len(self._high):
            return -self._low[0]
        return (self._high[0] - self._low[0]) / 2.0


class _Ema:
    def __init__(self) -> None:
        self._level = math.nan

    def add(self, seconds: float) -> None:
        value = math.log(seconds)
        known = not math.isnan(self._level)
        self._level = self._level + _ALPHA * (value - self._level) if known else value

    @property
    def seconds(self) -> float:
        return math.exp(self._level)


def _replayed(
    executions: Sequence[Execution], tool_types: ToolTypes, running: type[_Median] | type[_Ema]
) -> NDArray[np.float64]:
    functions: dict[str, _Median | _Ema] = defaultdict(running)
    tools: dict[str, _Median | _Ema] = defaultdict(running)
    predicted = np.empty(len(executions))
    for i, ended in timeline(executions):
        task = executions[i]
        for past in (executions[j] for j in ended):
            functions[past.function].add(past.seconds)
            tools[past.tool_type].add(past.seconds)
        if task.function in functions:
            predicted[i] = functions[task.function].seconds
        elif task.tool_type in tools:
            predicted[i] = tools[task.tool_type].seconds
        else:
            predicted[i] = default_seconds(None, tool_types[task.tool_type])
    return predicted
