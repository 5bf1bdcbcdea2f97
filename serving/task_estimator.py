"""Single tasks and batches of them: each becomes a request, which is answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from malearn.kernel.estimation import intervals
from malearn.kernel.estimation.answer_explanation import AnswerExplanation
from malearn.kernel.prediction import Prediction
from malearn.kernel.tool_types import ToolType, default_seconds
from malearn.serving import requests
from malearn.serving.answering import Answer, Answerer
from malearn.serving.predecessor_cache import PredecessorCache, SuccessorFeatures
from malearn.serving.predecessor_reader import PredecessorReader
from malearn.serving.requests import Request
from malearn.serving.served_tool_types import ServedToolTypes

__all__ = ["Task", "TaskEstimator", "guess", "guess_task"]

#: Function, resource, predecessors' ids, what else is known, and the task's id.
Task = (
    tuple[str, str | None, Sequence[str]]
    | tuple[str, str | None, Sequence[str], Mapping[str, object] | None]
    | tuple[str, str | None, Sequence[str], Mapping[str, object] | None, str | None]
)

_Unpacked = tuple[str, str | None, Sequence[str], Mapping[str, object] | None, str | None]

_NOT_ASKED: tuple[Sequence[SuccessorFeatures | None], str] = ((), "")
_GUESS = intervals.ASSUMED["heuristic"]


class TaskEstimator:
    """Estimates tasks with a predictor's own parts; threads may share it.

    `started`, of each call, is when that began on `perf_counter`'s clock.
    """

    def __init__(
        self,
        tool_types: ServedToolTypes,
        predecessors: PredecessorCache,
        reader: PredecessorReader,
        answerer: Answerer,
    ) -> None:
        self._tool_types, self._predecessors = tool_types, predecessors
        self._reader, self._answerer = reader, answerer

    def estimate(
        self,
        function: str,
        resource: str | None,
        predecessors: Sequence[str],
        features: Mapping[str, object] | None,
        task_id: str | None,
        started: float,
    ) -> Answer:
        """The answer for one task."""
        return self._answerer.answer(
            *self._request(function, resource, predecessors, features, task_id, started)
        )

    def explain(
        self,
        function: str,
        resource: str | None,
        predecessors: Sequence[str],
        features: Mapping[str, object] | None,
        started: float,
    ) -> AnswerExplanation:
        """Why `estimate` answers what it answers."""
        return self._answerer.explain(
            *self._request(function, resource, predecessors, features, None, started)
        )

    def estimate_many(self, tasks: Iterable[Task], started: float) -> list[Answer]:
        """The answers for `tasks`, in order: one round trip, and one model call per tool type."""
        unpacked = [_unpacked(*task) for task in tasks]
        claimed = self._claimed(unpacked)
        # All together, for one round trip; what is found is dealt out in the same order below.
        named = zip(unpacked, claimed, strict=True)
        task_ids = [one for task, tool_type in named if tool_type is not None for one in task[2]]
        found, fetch_error = self._reader.read(task_ids, started)
        asked, first = list[Request](), 0
        for task, tool_type in zip(unpacked, claimed, strict=True):
            function, resource, ids, features, task_id = task
            last = first if tool_type is None else first + len(ids)
            own, first = found[first:last], last
            asked.append(
                requests.build(
                    self._predecessors, function, resource, tool_type, ids, own, features, task_id
                )
            )
        return self._answerer.answer_many(asked, fetch_error)

    def _claimed(self, tasks: Sequence[_Unpacked]) -> list[ToolType | None]:
        """The tool type of each."""
        of_task = self._tool_types.of_task
        # Of tasks that nothing more is known of, which are most, function and resource decide.
        known: dict[tuple[str, str | None], ToolType | None] = {}
        claimed = []
        for function, resource, _, features, _ in tasks:
            key = function, resource
            if features:
                tool_type = of_task(function, resource, features)
            elif key in known:
                tool_type = known[key]
            else:
                tool_type = known[key] = of_task(function, resource)
            claimed.append(tool_type)
        return claimed

    def _request(
        self,
        function: str,
        resource: str | None,
        predecessors: Sequence[str],
        features: Mapping[str, object] | None,
        task_id: str | None,
        started: float,
    ) -> tuple[Request, str]:
        """The request for one task, and why some predecessor was not read, or ""."""
        before = requests.predecessor_ids(predecessors)
        tool_type = self._tool_types.of_task(function, resource, features)
        # A function that nobody claims has no features to look for.
        found, fetch_error = _NOT_ASKED if tool_type is None else self._reader.read(before, started)
        request = requests.build(
            self._predecessors, function, resource, tool_type, before, found, features, task_id
        )
        return request, fetch_error


def guess(resource: object) -> Prediction:
    """The answer where estimating failed: the default seconds of `resource`."""
    seconds = default_seconds(str(resource))
    low, high, confidence = _GUESS
    return Prediction(seconds, seconds * low, seconds * high, "heuristic", None, confidence)


def guess_task(task: object) -> Prediction:
    """The answer for an entry of a queue that could not be estimated, whatever it is."""
    # It may be anything: what a caller's mistake put there is why the estimate failed.
    return guess(task[1] if isinstance(task, list | tuple) and len(task) > 1 else None)


def _unpacked(
    function: str,
    resource: str | None,
    predecessors: Sequence[str],
    features: Mapping[str, object] | None = None,
    task_id: str | None = None,
) -> _Unpacked:
    """A task of `estimate_many`, complete."""
    # Tasks are grouped by it, and anything may have been given.
    kind = None if resource is None else str(resource)
    return function, kind, requests.predecessor_ids(predecessors), features, task_id
