"""Single tasks and batches of them: each becomes a request, which is answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from malearn.kernel.estimation import intervals
from malearn.kernel.estimation.answer_explanation import AnswerExplanation
from malearn.kernel.prediction import Prediction
from malearn.kernel.tool_types import default_seconds
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
        of_task = self._tool_types.of_task
        claimed = [(of_task(task[0], task[1], task[3]), *task) for task in unpacked]
        # All together, for one round trip; what is found is dealt out in the same order below.
        task_ids = [one for tool_type, _, _, ids, *_ in claimed if tool_type for one in ids]
        found, fetch_error = self._reader.read(task_ids, started)
        rest = iter(found)
        return self._answerer.answer_many(
            [
                requests.build(
                    self._predecessors,
                    function,
                    resource,
                    tool_type,
                    ids,
                    list(islice(rest, len(ids))) if tool_type else (),
                    features,
                    task_id,
                )
                for tool_type, function, resource, ids, features, task_id in claimed
            ],
            fetch_error,
        )

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
) -> tuple[str, str | None, Sequence[str], Mapping[str, object] | None, str | None]:
    """A task of `estimate_many`, complete."""
    return function, resource, requests.predecessor_ids(predecessors), features, task_id
