"""`DAGTaskPredictor`: what a scheduler calls, on its own thread, with its lock held.

Every call returns a finite positive number of seconds within its budget,
whatever Redis, MLflow or the disk do. A call computes and, at most, makes one
round trip; everything else happens on two background threads.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import msgspec

from malearn.kernel import process_declaration
from malearn.kernel.estimation.answer_explanation import AnswerExplanation
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.names import Names
from malearn.kernel.prediction import Prediction
from malearn.kernel.reading.believable import Clock
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.kernel.workflow import Workflow, WorkflowPrediction
from malearn.serving import (
    completions,
    settings,
    task_estimator,
    workflow_estimator,
    workflow_queue,
)
from malearn.serving.assembly import Assembly
from malearn.serving.function_names import OnClassAndPredictor
from malearn.serving.settings import Settings
from malearn.serving.shared_history import function_limit
from malearn.serving.stats import Stats
from malearn.serving.task_estimator import Task

__all__ = ["DAGTaskPredictor"]


class DAGTaskPredictor:
    """Seconds that tasks of a DAG will take, before they run.

    `redis_url` is where the scheduler keeps its records (`$MALEARN_REDIS_URL`),
    `tracking_uri` an MLflow server (`$MLFLOW_TRACKING_URI`), `alias` the name of
    the version to serve. `budget` bounds every call, `refresh_interval` is how
    often the alias is looked up, both in seconds. `cache_dir` holds the last
    good models. Building one reads that cache and touches no network. `redis_url` "" is for a
    scheduler without Redis; without `reads_results` none of its calls reads a task's record
    there, for schedulers that report every record themselves. `prefix` is what the names on
    shared servers begin with (`$MALEARN_PREFIX`); `functions` is how many are remembered
    (`$MALEARN_FUNCTIONS`). Without `shares` it learns from what others report to Redis, and writes
    nothing there: for programs that ask beside a scheduler.

    With a `model_dir` it learns by itself, in this process, from what is reported to it, and asks
    no MLflow: below `<model_dir>/<tool_type>/` stand data and model, which is fitted anew in a
    background thread once `retrain_after` executions are new. `model` is the family: "xgboost",
    "mlp" or "linear". It needs malearn[lifecycle].

    Safe to share between threads; after a fork the child goes on by itself. Pickled, as `spawn`
    and Ray do, it arrives as a new one with the same addresses, settings and tool types, which
    knows what is in Redis and in its cache. Passwords in the addresses travel with it.
    """

    #: `{function-name pattern: tool type's name}`. What is set on the class holds for predictors
    #: built later, what is set on a predictor for that one.
    func_name_to_tool_type = OnClassAndPredictor()

    def __init__(
        self,
        redis_url: str | None = None,
        tracking_uri: str | None = None,
        alias: str = "Production",
        *,
        budget: float = 0.05,
        refresh_interval: float = 10.0,
        cache_dir: str | os.PathLike[str] | None = None,
        tool_types: ToolTypes | None = None,
        reads_results: bool = True,
        clock: Clock = time.time,
        model_dir: str | os.PathLike[str] | None = None,
        model: str = settings.FAMILY,
        retrain_after: int = settings.RETRAIN_AFTER,
        prefix: str | None = None,
        functions: int | None = None,
        shares: bool = True,
    ) -> None:
        if tool_types is None:
            tool_types = process_declaration.HERE.declared()
        self._settings = Settings(
            redis_url=settings.redis_url(redis_url),
            tracking_uri=settings.tracking_uri(tracking_uri, model_dir),
            alias=alias,
            budget=budget,
            refresh_interval=refresh_interval,
            cache_dir=cache_dir,
            tool_types=tool_types,
            reads_results=reads_results,
            clock=clock,
            model_dir=model_dir,
            model=model,
            retrain_after=retrain_after,
            prefix=Names.find(prefix).prefix,
            functions=function_limit(functions),
            shares=shares,
        )
        self._parts = Assembly(self._settings)
        self._function_names = self._parts.tool_types.function_names
        self._parts.start()

    def predict(
        self, succ_func_name: str, succ_task_type: str | None, pred_task_ids: Sequence[str]
    ) -> float:
        """Seconds that `succ_func_name` will take after `pred_task_ids`, finite and positive."""
        return self.estimate(succ_func_name, succ_task_type, pred_task_ids).seconds

    def estimate(
        self,
        succ_func_name: str,
        succ_task_type: str | None,
        pred_task_ids: Sequence[str] = (),
        features: Mapping[str, object] | None = None,
        *,
        task_id: str | None = None,
    ) -> Prediction:
        """As `predict`, with an interval, and where the answer comes from.

        `succ_task_type` is what the task runs on: gpu, cpu or io. `features` are
        what is known beyond what predecessors reported, as for a start node;
        `task_id` names the task where there are no predecessors to tell its run.
        """
        started = perf_counter()
        try:
            # The child of a fork has no threads until its first call.
            self._parts.ensure_running()
            # What was reported a moment ago is to count for this answer.
            self._parts.completions.drain()
            prediction, reason = self._parts.tasks.estimate(
                succ_func_name, succ_task_type, pred_task_ids, features, task_id, started
            )
        except Exception:  # noqa: BLE001 - a scheduler must never fail for want of an estimate
            self._parts.record_internal_error("estimate")
            prediction, reason = task_estimator.guess(succ_task_type), "internal_error"
        self._parts.counters.answered(prediction.source, reason, perf_counter() - started)
        return prediction

    def explain(
        self,
        succ_func_name: str,
        succ_task_type: str | None,
        pred_task_ids: Sequence[str] = (),
        features: Mapping[str, object] | None = None,
    ) -> AnswerExplanation:
        """Why `estimate` answers what it answers: terms, similar executions, source, interval.

        For people; it takes longer than an estimate, and raises what goes wrong.
        """
        self._parts.completions.drain()
        return self._parts.tasks.explain(
            succ_func_name, succ_task_type, pred_task_ids, features, perf_counter()
        )

    def estimate_many(self, tasks: Iterable[Task]) -> list[Prediction]:
        """One `Prediction` each, in order.

        A task is `(function, task type, predecessors' ids[, features[, task id]])`, with the
        meaning of `estimate`. All together cost one round trip, and one model call per tool type.
        """
        started = perf_counter()
        tasks = list(tasks)
        try:
            self._parts.ensure_running()
            self._parts.completions.drain()
            answers = self._parts.tasks.estimate_many(tasks, started)
        except Exception:  # noqa: BLE001 - a scheduler must never fail for want of an estimate
            if len(tasks) > 1:  # what is wrong with one must not cost the others
                return [self.estimate_many([task])[0] for task in tasks]
            self._parts.record_internal_error("estimate_many")
            answers = [(task_estimator.guess_task(task), "internal_error") for task in tasks]
        predictions = [prediction for prediction, _ in answers]
        self._parts.counters.answered_many(
            Counter([prediction.source for prediction in predictions]),
            Counter([reason for _, reason in answers if reason]),
            perf_counter() - started,
        )
        return predictions

    def estimate_workflow(
        self,
        workflow: Workflow,
        running: Mapping[str, float] | None = None,
        done: Iterable[str] = (),
        now: float | None = None,
    ) -> WorkflowPrediction:
        """How much of `workflow` is left, by when it ends, and how likely that is too late.

        `running` says when tasks started that run now, `done` names those of the finished tasks
        that were not reported to this predictor. `now` is the caller's clock, the time of day
        unless given: of a replay it is the simulated time, and so are the times of the tasks that
        are reported. Times are seconds since the epoch.
        """
        return self.estimate_workflows([(workflow, running or {}, done)], now)[0]

    def estimate_workflows(
        self,
        queue: Iterable[tuple[Workflow, Mapping[str, float], Iterable[str]]],
        now: float | None = None,
    ) -> list[WorkflowPrediction]:
        """As `estimate_workflow`, one for each `(workflow, running, done)`, in order.

        All together cost one round trip, and one model call per tool type.
        """
        started = perf_counter()
        # Once for all, so that the workflows of one queue are compared at one moment.
        clock = time.time() if now is None else workflow_queue.clock(now)
        if clock is None:
            self._parts.count_internal_error("estimate_workflows: 'now' is no time")
            clock, now = time.time(), None
        try:
            waiting = [workflow_queue.entry(queued, clock) for queued in queue]
        except Exception:  # noqa: BLE001 - a scheduler must never fail for want of an estimate
            self._parts.record_internal_error("estimate_workflows: the queue is none")
            return []
        try:
            self._parts.ensure_running()
            if now is not None:
                self._parts.completions.follow_clock(clock)
            self._parts.completions.drain()
            found, sources, reasons = self._parts.workflows.estimate(waiting, clock, started)
        except Exception:  # noqa: BLE001 - a scheduler must never fail for want of an estimate
            if len(waiting) > 1:  # what is wrong with one must not cost the others
                return [self.estimate_workflows([queued], clock)[0] for queued in waiting]
            self._parts.record_internal_error("estimate_workflows")
            found = [workflow_estimator.guess(queued, clock) for queued in waiting]
            tasks = sum(len(one.tasks) for one in found)
            sources, reasons = Counter(heuristic=tasks), Counter(internal_error=tasks)
        self._parts.counters.answered_many(sources, reasons, perf_counter() - started)
        return found

    def collect_data_for_task(
        self,
        task_id: str,
        func_name: str | None = None,
        record_json: str | bytes | Mapping[str, object] | None = None,
    ) -> None:
        """Report a finished task; returns at once.

        `record_json` is the value of `result:<task_id>`; without it Redis is read
        in the background.
        """
        try:
            self._parts.ensure_running()
            if record_json is None:
                self._parts.worker.read_later(task_id, func_name)
            else:
                self._parts.complete(completions.read(task_id, record_json, func_name))
        except Exception:  # noqa: BLE001 - a scheduler must never fail for reporting a task
            self._parts.record_internal_error("collect_data_for_task")

    def used(self, task_id: str, seconds: float) -> None:
        """Say that the scheduler went by `seconds` for this task, not by our answer.

        What is recorded as predicted is what was used; nothing is learnt of how far it was off.
        """
        known = self._parts.predicted.get(task_id)
        if known is not None:
            # Without a basis nothing is learnt of the error, which is not ours.
            used = msgspec.structs.replace(known, seconds=seconds, version=None, basis=None)
            self._parts.predicted.put(task_id, used)

    def remember(self, observations: Iterable[Observation]) -> int:
        """Take in executions of an earlier day, in their place in time; how many were new."""
        return self._parts.history.restore(observations)

    @property
    def reads_results(self) -> bool:
        """Whether a call may read a task's record in Redis; may be set."""
        return self._parts.reader.reads

    @reads_results.setter
    def reads_results(self, reads: bool) -> None:
        self._parts.reader.reads = reads

    def tool_type_of(
        self,
        function: str,
        resource: str | None = None,
        features: Mapping[str, object] | None = None,
    ) -> ToolType | None:
        """The tool type of a task: by its function, else by what it runs on and with.

        It is remembered for the function, so that a record that names nothing else finds it.
        """
        return self._parts.tool_types.of_task(function, resource, features)

    def is_generic(self, function: str) -> bool:
        """Whether nobody but the generic tool type claims `function`."""
        return self._parts.tool_types.is_generic(function)

    def observed(self, function: str) -> int:
        """How many executions of `function` were observed."""
        return self._parts.history.count(function)

    def refresh(self) -> bool:
        """Follow the registry now, on this thread; False when it gave no answer."""
        return self._parts.follower.refresh()

    def wait_until_ready(self, timeout: float = 10.0) -> bool:
        """Wait until registry and Redis were asked once; False when that took too long.

        `timeout` is in seconds. Nobody needs to call this: without, the first
        predictions come from the cache, or from further down the fallback chain.
        """
        until = perf_counter() + timeout
        done = self._parts.follower.refreshed.wait(timeout)
        return self._parts.worker.restored.wait(max(0.0, until - perf_counter())) and done

    def stats(self) -> Stats:
        """Counters since this predictor was built, and what it serves now."""
        return self._parts.stats()

    def close(self, timeout: float = 2.0) -> None:
        """Send what was collected, for `timeout` seconds at most, and stop. Safe to repeat.

        A closed predictor still answers, from what it knows.
        """
        self._parts.close(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., DAGTaskPredictor], tuple[object, ...]]:
        given = {**self._settings.arguments(), "tool_types": self._parts.tool_types.current}
        return _built, (type(self), given | {"reads_results": self.reads_results})


def _built(kind: type[DAGTaskPredictor], settings: Mapping[str, Any]) -> DAGTaskPredictor:
    """A predictor of such settings, as it arrives in another process."""
    return kind(**settings)
