"""Whole workflows: each open task is estimated once, all of a queue together, and added up.

A task whose predecessors have all ended is asked of the model, once for all tasks of a workflow
that share function and predecessors, hence their inputs; one whose inputs are not known stands on
what its function took lately, which is looked up once for all tasks of the function.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

import msgspec

from malearn.kernel.estimation import intervals
from malearn.kernel.prediction import Prediction
from malearn.kernel.tool_types import ToolType, ToolTypes, default_seconds
from malearn.kernel.workflow import Workflow, WorkflowPrediction
from malearn.kernel.workflows import workflow_hints
from malearn.kernel.workflows.workflow_hints import HintEffect
from malearn.serving import requests
from malearn.serving.answering import Answer, Answerer
from malearn.serving.predecessor_cache import PredecessorCache
from malearn.serving.predecessor_reader import PredecessorReader
from malearn.serving.requests import Request
from malearn.serving.shared_history import SharedHistory
from malearn.serving.workflow_tracker import WorkflowTracker

__all__ = ["Queued", "WorkflowEstimator", "guess"]

#: A workflow, when its running tasks started, and which of its tasks are done.
Queued = tuple[Workflow, Mapping[str, float], Iterable[str]]

_UNKNOWN = "inputs_unknown"  # why no model answered
_GUESS = intervals.ASSUMED["heuristic"]

#: A workflow's context, in order.
_Words = tuple[tuple[str, object], ...]
#: What tasks of unknown inputs have in common: function, resource, words of context.
_Alike = tuple[str, str, _Words]


class _Plan(msgspec.Struct, gc=False):
    """What is to be estimated of one workflow.

    Its tasks are grouped by what their answers follow from. `typed` are those with a tool type of
    which some predecessor has ended, with those that have; `known` those of them whose requests
    were built, in their order.
    """

    workflow: Workflow
    running: dict[str, float]
    open_tasks: dict[str, Prediction]
    typed: list[tuple[Sequence[str], _Alike, ToolType, tuple[str, ...]]]
    unknown: list[tuple[Sequence[str], _Alike]]
    known: list[Sequence[str]]
    whole: Workflow
    unseen: tuple[str, ...]


class WorkflowEstimator:
    """Estimates queues of workflows with a predictor's own parts; threads may share it."""

    def __init__(
        self,
        predecessors: PredecessorCache,
        reader: PredecessorReader,
        answerer: Answerer,
        tracker: WorkflowTracker,
        history: SharedHistory,
    ) -> None:
        self._predecessors, self._reader = predecessors, reader
        self._answerer, self._tracker, self._history = answerer, tracker, history

    def estimate(
        self, queue: Sequence[Queued], now: float, started: float
    ) -> tuple[list[WorkflowPrediction], Counter[str], Counter[str]]:
        """One prediction each, and how many tasks were answered by what source, and why no model.

        `now` is the caller's clock, in seconds since the epoch; `started` is when the call began,
        on `perf_counter`'s clock.
        """
        self._tracker.tick(now)
        claims: dict[_Alike, ToolType | None] = {}
        plans = [self._plan(claims, *queued) for queued in queue]
        # First: tasks of which nothing was found join the unknown ones here.
        known, fetch_error = self._requests(plans, started)
        alike = list(dict.fromkeys(key for plan in plans for _, key in plan.unknown))
        unknown = [self._unknown(key, claims[key]) for key in alike]
        answers = self._answerer.answer_many(known, fetch_error)
        unknown_answers = self._answerer.answer_many(unknown, _UNKNOWN)
        if self._history.has_unsuccessful:
            answers = self._until_ended(known, answers)
            unknown_answers = self._until_ended(unknown, unknown_answers)
        shared = dict(zip(alike, unknown_answers, strict=True))
        # Plain ones, of which a step is quicker than of a `Counter`.
        sources, reasons = dict[str, int](), dict[str, int]()
        rest = iter(answers)
        for plan in plans:
            # The answers are in the order of the requests, hence of the plans; `known` ends first.
            given = zip(plan.known, rest, strict=False)
            for task_ids, (prediction, reason) in chain(given, self._hinted(plan, shared)):
                for task_id in task_ids:
                    plan.open_tasks[task_id] = prediction
                sources[prediction.source] = sources.get(prediction.source, 0) + len(task_ids)
                if reason:
                    reasons[reason] = reasons.get(reason, 0) + len(task_ids)
        found = [
            self._tracker.combine(
                plan.workflow, plan.open_tasks, plan.running, now, plan.whole, plan.unseen
            )
            for plan in plans
        ]
        return found, Counter(sources), Counter(reasons)

    def _plan(
        self,
        claims: dict[_Alike, ToolType | None],
        workflow: Workflow,
        running: Mapping[str, float],
        done: Iterable[str],
    ) -> _Plan:
        """`claims` are the tool types of tasks that are alike, found once for a whole queue."""
        tracker, types = self._tracker, self._predecessors.tool_types
        ended = tracker.done(workflow, done, running)
        whole, unseen = tracker.completed(workflow)
        context = workflow.context
        words: _Words = tuple(sorted(context.items())) if context else ()
        plan = _Plan(workflow, {}, {}, [], [], [], whole, unseen)
        for (function, resource, before), task_ids in whole.alike.items():
            left = task_ids
            if not ended.isdisjoint(task_ids):
                left = [one for one in task_ids if one not in ended]
            if not ended.issuperset(before):
                before = tuple([one for one in before if one in ended])
            if running:
                left = [one for one in left if not self._is_expected(plan, one, before, running)]
            if not left:
                continue
            key = function, resource, words
            tool_type = claims.get(key)
            if tool_type is None and key not in claims:
                tool_type = claims[key] = _claimed(types, function, resource, context)
            if tool_type is not None and before:
                plan.typed.append((left, key, tool_type, before))
            else:
                plan.unknown.append((left, key))
        return plan

    def _is_expected(
        self, plan: _Plan, task_id: str, before: Iterable[str], running: Mapping[str, float]
    ) -> bool:
        """Whether a task runs of which it is known what was expected; `plan` takes that in.

        `before` are those of its predecessors that have ended.
        """
        if task_id not in running:
            return False
        plan.running[task_id] = float(running[task_id])
        # What has passed is compared with what was expected before the start: an answer of now
        # would know of executions that ended later.
        expected = self._tracker.expected(plan.workflow.run_id, task_id, before)
        if expected is None:
            return False
        plan.open_tasks[task_id] = expected
        return True

    def _requests(self, plans: Sequence[_Plan], started: float) -> tuple[list[Request], str]:
        """Requests for the tasks of which something is known, after one round trip at most."""
        wanted = [one for plan in plans for *_, before in plan.typed for one in before]
        if not wanted:
            return [], ""
        # In the order of `wanted`, hence of the loops below.
        said, fetch_error = self._reader.read(wanted, started)
        cache, first = self._predecessors, 0
        known: list[Request] = []
        for plan in plans:
            context = plan.workflow.context
            for task_ids, key, tool_type, before in plan.typed:
                last = first + len(before)
                request = requests.build_known(
                    cache, key[0], key[1], tool_type, before, said[first:last], context, task_ids
                )
                first = last
                if request is not None:
                    plan.known.append(task_ids)
                    known.append(request)
                else:
                    plan.unknown.append((task_ids, key))
        return known, fetch_error

    def _hinted(
        self, plan: _Plan, shared: Mapping[_Alike, Answer]
    ) -> Iterator[tuple[Sequence[str], Answer]]:
        """The answers for tasks whose inputs are not known."""
        effects = self._hint_effects(plan)
        for task_ids, key in plan.unknown:
            prediction, reason = shared[key]
            effect = effects.get(key[0])
            if effect is not None:
                prediction = workflow_hints.applied(prediction, effect)
            yield task_ids, (prediction, reason)

    def _hint_effects(self, plan: _Plan) -> dict[str, HintEffect]:
        """What the beginning of the workflow says of tasks whose inputs are not known."""
        hint = self._tracker.hint(plan.workflow) if plan.unknown else None
        if hint is None:
            return {}
        return self._history.hint_effects({key[0] for _, key in plan.unknown}, hint)

    def _until_ended(self, requests: Sequence[Request], answers: Sequence[Answer]) -> list[Answer]:
        """The answers, made for successes, as how long the workflow waits for each task."""
        effects = self._history.outcome_effects([(r.function, r.features.values) for r in requests])
        return [
            (prediction.shifted(effect), reason)
            for (prediction, reason), effect in zip(answers, effects, strict=True)
        ]

    def _unknown(self, key: _Alike, tool_type: ToolType | None) -> Request:
        """The request for tasks of which nothing but the context is known."""
        function, resource, words = key
        cache, context = self._predecessors, dict(words)
        request = requests.build(cache, function, resource, tool_type, (), (), context)
        # With `_UNKNOWN` as the fetch error this keeps `Answerer` from asking a model, which was
        # never trained on tasks without inputs.
        return msgspec.structs.replace(request, missing_inputs=True)


def _claimed(
    types: ToolTypes, function: str, resource: str, context: Mapping[str, object]
) -> ToolType | None:
    """The tool type of a task: by what was asked for last, or by what all tasks run with."""
    known = types.for_known(function)
    if known is not None or not types.is_open:
        return known
    return types.for_task(function, resource, context.get("model"), context.get("backend"))


def guess(queued: object, now: float) -> WorkflowPrediction:
    """The answer where estimating failed: default seconds for every task not named as done.

    `queued` may be anything that stood in the queue.
    """
    entry = tuple(queued) if isinstance(queued, list | tuple) else (queued,)
    workflow = entry[0] if entry else None
    low, high, confidence = _GUESS
    tasks: dict[str, Prediction] = {}
    if isinstance(workflow, Workflow):
        done = entry[2] if len(entry) > 2 else ()
        listed = done if isinstance(done, list | tuple | set | frozenset) else ()
        ended = {one for one in listed if isinstance(one, str)}
        for task_id, task in workflow.tasks.items():
            if task_id not in ended:
                seconds = default_seconds(task.resource)
                tasks[task_id] = Prediction(
                    seconds, seconds * low, seconds * high, "heuristic", None, confidence
                )
        # A tracker of its own: nothing is to be learnt from a guess.
        return WorkflowTracker().combine(workflow, tasks, {}, now)
    seconds = default_seconds(None)
    return WorkflowPrediction(seconds, seconds * low, seconds * high, {}, None, {}, (), {})
