"""The history a predictor answers from: its own, other schedulers', and yesterday's.

State is never shared, only observations are: whoever needs a history replays
them. So a restart, a second scheduler and a new version of the history all
work the same way.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from malearn.kernel.history import History, Observation
from malearn.kernel.intervals import Intervals, Width
from malearn.kernel.prediction import Source
from malearn.serving.generational_cache import GenerationalCache

__all__ = ["Known", "SharedHistory"]

#: `History.FEATURES` of a task, and the width of the interval around its answer.
Known = tuple[tuple[float, ...], Width]

_KEPT = 8192


class SharedHistory:
    """A `History` that threads may share; the lock is held for microseconds, never for I/O."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._history = History()
        self._intervals = Intervals()
        self._kept: deque[Observation] = deque(maxlen=_KEPT)
        self._seen: GenerationalCache[str, float] = GenerationalCache(_KEPT)
        self._tools: set[str] = set()

    def observe(self, task_id: str, observation: Observation) -> bool:
        """Take in one finished task; False when it is known already."""
        with self._lock:
            if self._seen.get(task_id) == observation.end:
                return False
            self._seen.put(task_id, observation.end)
            self._kept.append(observation)
            self._tools.add(observation.tool_type)
            self._history.observe(observation)
            return True

    def restore(self, observations: Iterable[Observation]) -> int:
        """Take in older ones, in their place in time; returns how many were new.

        The new history is built aside and takes over in one assignment.
        """
        with self._lock:
            mine = list(self._kept)
        known = {_identity(o) for o in mine}
        older = {i: o for o in observations if (i := _identity(o)) not in known}
        together = sorted([*older.values(), *mine], key=lambda o: o.end)
        history = History(together)
        with self._lock:
            for observation in list(self._kept)[len(mine) :] if len(mine) < _KEPT else ():
                history.observe(observation)
                together.append(observation)
            self._history = history
            self._kept = deque(together, maxlen=_KEPT)
            self._tools = {o.tool_type for o in together}
        return len(older)

    def learn(
        self, function: str, tool_type: str, actual: float, predicted: float, given: Width
    ) -> None:
        """What came of an answer, both in seconds, and the width that was given with it."""
        with self._lock:
            self._intervals.learn(function, tool_type, actual, predicted, given)

    def snapshot(
        self,
        function: str,
        tool_type: str,
        features: Sequence[float],
        context: tuple[str, ...],
    ) -> Known:
        """As `History.snapshot`, and the width of the interval around the answer."""
        with self._lock:
            return (
                self._history.snapshot(function, tool_type, features, context),
                self._intervals.width(function, tool_type),
            )

    def snapshots(
        self,
        function: str,
        tool_type: str,
        features: NDArray[np.float64],
        context: tuple[str, ...],
    ) -> tuple[NDArray[np.float64], Width]:
        """One row for each of `features`, of one function and context, and their width."""
        with self._lock:
            return (
                self._history.snapshots(function, tool_type, features, context),
                self._intervals.width(function, tool_type),
            )

    def recent_seconds(
        self,
        function: str,
        tool_type: str,
        features: Sequence[float],
        context: tuple[str, ...] = (),
    ) -> tuple[Source, float, Width] | None:
        """What `function`, else its tool type, takes lately; None where neither is known."""
        with self._lock:
            source: Source = "function_history"
            seconds = self._history.function_seconds(function, features, context)
            if seconds is None and tool_type:
                source, seconds = "tool_history", self._history.tool_seconds(tool_type)
            if seconds is None:
                return None
            return source, seconds, self._intervals.width(function, tool_type)

    def knows(self, tool_type: str) -> bool:
        """Whether any task of `tool_type` was ever observed."""
        return tool_type in self._tools

    def renew_locks(self) -> None:
        """After a fork nobody holds what another thread held."""
        self._lock = threading.Lock()


def _identity(observation: Observation) -> tuple[str, float, float]:
    return observation.function, observation.start, observation.end
