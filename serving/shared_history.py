"""The history a predictor answers from: its own, other schedulers', and yesterday's.

State is never shared, only observations are: whoever needs a history replays
them. So a restart, a second scheduler and a new version of the history all
work the same way.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from malearn.kernel.errors import InputError
from malearn.kernel.estimation import answer_explanation
from malearn.kernel.estimation.answer_explanation import AnswerExplanation, ModelAnswer
from malearn.kernel.estimation.estimator import Basis, Estimator
from malearn.kernel.estimation.history import FUNCTIONS, History
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.workflows.unsuccessful_tasks import TaskOutcome, UnsuccessfulTasks
from malearn.kernel.workflows.workflow_hints import Followed, Hint, HintEffect, WorkflowHints
from malearn.serving.generational_cache import GenerationalCache

__all__ = ["FUNCTIONS_SETTING", "SharedHistory", "function_limit", "identity"]

#: How many functions a predictor remembers.
FUNCTIONS_SETTING = "MALEARN_FUNCTIONS"

_FOLLOWED = 512  # tasks after a hint, that wait to be shared
_OUTCOMES = 512  # of functions that have failed, likewise
_KEPT = 8192  # latest observations: those a history is rebuilt from, and known by their task id


class SharedHistory:
    """An `Estimator` that threads may share; the lock is held for microseconds, never for I/O."""

    def __init__(self, functions: int = FUNCTIONS) -> None:
        #: Guards all that follows; some of it is read without it.
        self._lock = threading.Lock()
        self.limit, self._forgotten = functions, 0
        self._estimator = Estimator(functions=functions)
        self._kept: deque[Observation] = deque(maxlen=_KEPT)
        self._observed = 0  # how many were ever put there one by one
        self._seen: GenerationalCache[str, float] = GenerationalCache(_KEPT)
        #: Apart: what was said to have failed may be corrected, with the same times.
        self._unsuccessful: GenerationalCache[str, float] = GenerationalCache(_KEPT)
        self._tools: set[str] = set()
        self._followed: deque[tuple[Hint, str, float]] = deque(maxlen=_FOLLOWED)
        self._outcomes: deque[TaskOutcome] = deque(maxlen=_OUTCOMES)
        #: What was to be shared and had to make room.
        self.unshared_dropped = 0

    @property
    def functions(self) -> tuple[int, int]:
        """How many functions are remembered, each of their contexts counted, and were forgotten."""
        known, forgotten = self._estimator.functions
        return known, self._forgotten + forgotten

    def knows_task(self, task_id: str, end: float) -> bool:
        """Whether this task was taken in already."""
        return self._seen.get(task_id) == end

    def observe(self, task_id: str, observation: Observation, hints: Sequence[Hint] = ()) -> bool:
        """Take in one finished task, and the hints of its workflow; False when it is
        known already."""
        with self._lock:
            # By its end as well: a task that is retried under its id is a new execution.
            if self._seen.get(task_id) == observation.end:
                return False
            self._seen.put(task_id, observation.end)
            self._kept.append(observation)
            self._observed += 1
            self._tools.add(observation.tool_type)
            above = self._estimator.observe(observation, hints)
            if above is not None:
                self._note_followed(observation.function, above, hints)
            return True

    def observe_unsuccessful(
        self,
        task_id: str,
        observation: Observation,
        hints: Sequence[Hint],
        basis: Basis | None = None,
        predicted: float = math.nan,
    ) -> None:
        """Take in one task that failed or was skipped: workflows wait for it, but no answer
        for a single task learns of it.

        `basis` and `predicted`, in seconds, are what it was answered on, and with; None where it
        was not.
        """
        with self._lock:
            # It may be reported twice, as in `observe`.
            if self._unsuccessful.get(task_id) == observation.end:
                return
            self._unsuccessful.put(task_id, observation.end)
            above = self._estimator.observe_unsuccessful(observation, hints)
            if above is not None:
                self._note_followed(observation.function, above, hints)
            if basis is not None:
                seconds = observation.end - observation.start
                self._learn_outcome(
                    basis, predicted, seconds, observation.features, successful=False
                )

    @property
    def has_unsuccessful(self) -> bool:
        """Whether any task is known to have failed or to have been skipped."""
        return self._estimator.has_unsuccessful

    def outcome_effects(self, tasks: Iterable[tuple[str, Sequence[float]]]) -> list[float]:
        """As `Estimator.outcome_effect`, one for each function and features."""
        with self._lock:
            return [self._estimator.outcome_effect(*task) for task in tasks]

    def hint_effects(self, functions: Iterable[str], hint: Hint) -> dict[str, HintEffect]:
        """As `Estimator.hint_effect`, by function."""
        with self._lock:
            return {one: self._estimator.hint_effect(one, hint) for one in functions}

    @property
    def unshared(self) -> bool:
        """Whether anything was learnt of hints, or of what failed, that was not taken since."""
        return bool(self._followed or self._outcomes)

    def take_outcomes(self) -> list[TaskOutcome]:
        """What was learnt of functions that have failed since the last call, oldest first."""
        with self._lock:
            taken = list(self._outcomes)
            self._outcomes.clear()
        return taken

    def restore_outcomes(self, outcomes: Iterable[TaskOutcome]) -> None:
        """Begin with what others learnt of functions that fail, oldest first; then what was learnt
        here."""
        unsuccessful = UnsuccessfulTasks()
        # Outside the lock, as in `restore`.
        for one in outcomes:
            unsuccessful.learn(one)
        with self._lock:
            for one in self._outcomes:
                unsuccessful.learn(one)
            self._estimator.restart_unsuccessful(unsuccessful)

    def take_followed(self) -> list[Followed]:
        """What was learnt of hints since the last call, oldest first."""
        with self._lock:
            taken = list(self._followed)
            self._followed.clear()
        by_hint: dict[Hint, list[tuple[str, float]]] = {}
        for hint, function, above in taken:
            by_hint.setdefault(hint, []).append((function, above))
        return [Followed(hint, tuple(above)) for hint, above in by_hint.items()]

    def restore_hints(self, followed: Iterable[Followed]) -> None:
        """Begin with what others learnt of hints, oldest first; then what was learnt here."""
        hints = WorkflowHints()
        # Outside the lock, as in `restore`.
        for one in followed:
            for function, above in one.above:
                hints.learn(function, one.hint, above)
        with self._lock:
            for hint, function, above in self._followed:
                hints.learn(function, hint, above)
            self._estimator.restart_hints(hints)

    def restore(self, observations: Iterable[Observation]) -> int:
        """Take in older ones, in their place in time; returns how many were new.

        The new history is built aside and takes over in one assignment.
        """
        with self._lock:
            mine, observed = list(self._kept), self._observed
        known = {identity(o) for o in mine}
        older = {i: o for o in observations if (i := identity(o)) not in known}
        together = sorted([*older.values(), *mine], key=lambda o: o.end)
        # Outside the lock: replaying thousands takes long, and callers go on meanwhile.
        history = History(together, self.limit)
        with self._lock:
            self._forgotten += self._estimator.functions[1]
            # What came meanwhile, counted: a full deque is as long as before.
            came = min(self._observed - observed, len(self._kept))
            for observation in list(self._kept)[len(self._kept) - came :]:
                history.observe(observation)
                together.append(observation)
            self._estimator.restart(history)
            self._kept = deque(together, maxlen=_KEPT)
            self._tools = {o.tool_type for o in together}
        return len(older)

    def learn(
        self, basis: Basis, predicted: float, actual: float, features: tuple[float, ...] = ()
    ) -> None:
        """What came of an answer, both in seconds, where the task has succeeded; `basis` and
        `features` are what it was given on."""
        with self._lock:
            self._estimator.learn(basis, predicted, actual)
            if self._estimator.has_unsuccessful:
                self._learn_outcome(basis, predicted, actual, features, successful=True)

    def look_up(
        self,
        function: str,
        tool_type: str,
        features: Sequence[float],
        context: tuple[str, ...],
    ) -> Basis:
        """As `Estimator.look_up`."""
        with self._lock:
            return self._estimator.look_up(function, tool_type, features, context)

    def look_up_many(
        self,
        function: str,
        tool_type: str,
        features: NDArray[np.float64],
        context: tuple[str, ...],
    ) -> tuple[list[Basis], NDArray[np.float64]]:
        """As `Estimator.look_up_many`."""
        with self._lock:
            return self._estimator.look_up_many(function, tool_type, features, context)

    def count(self, function: str) -> int:
        """How many executions of `function` were observed."""
        with self._lock:
            return self._estimator.count(function)

    def explain(
        self,
        basis: Basis,
        features: Sequence[float],
        context: tuple[str, ...],
        default: float,
        model: ModelAnswer,
    ) -> AnswerExplanation:
        """As `answer_explanation.explain`, with similar executions out of those that are kept."""
        with self._lock:
            return answer_explanation.explain(
                self._estimator, basis, features, context, default, model, self._kept
            )

    def knows(self, tool_type: str) -> bool:
        """Whether any task of `tool_type` was ever observed."""
        return tool_type in self._tools

    def renew_locks(self) -> None:
        """After a fork nobody holds what another thread held."""
        self._lock = threading.Lock()

    def _learn_outcome(
        self,
        basis: Basis,
        predicted: float,
        actual: float,
        features: tuple[float, ...],
        *,
        successful: bool,
    ) -> None:
        outcome = TaskOutcome.of(basis.function, features, predicted, actual, successful=successful)
        learnt = self._estimator.learn_outcome(outcome)
        if learnt is not None:
            self.unshared_dropped += len(self._outcomes) == _OUTCOMES
            self._outcomes.append(learnt)

    def _note_followed(self, function: str, above: float, hints: Sequence[Hint]) -> None:
        self.unshared_dropped += max(len(self._followed) + len(hints) - _FOLLOWED, 0)
        self._followed.extend((hint, function, above) for hint in hints)


def function_limit(given: int | None = None) -> int:
    """How many functions to remember: `given`, else `$MALEARN_FUNCTIONS`, else 2,048.

    Raises `InputError` for what is no such number.
    """
    text = str(given) if given is not None else os.environ.get(FUNCTIONS_SETTING) or str(FUNCTIONS)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**31:
        setting = "functions" if given is not None else FUNCTIONS_SETTING
        raise InputError(setting, f"must be a number of functions above 0, not '{text}'")
    return int(text)


def identity(observation: Observation) -> tuple[str, float, float]:
    """What an execution is known by where no task id is at hand, as in lists in Redis."""
    return observation.function, observation.start, observation.end
