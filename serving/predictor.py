"""`DAGTaskPredictor`: what a scheduler calls, on its own thread, with its lock held.

Every call returns a finite positive number of seconds within its budget,
whatever Redis, MLflow or the disk do. A call computes and, at most, makes one
round trip; everything else happens on two background threads.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import msgspec

from malearn.kernel import generic, process_declaration
from malearn.kernel.errors import InputError, without_password
from malearn.kernel.estimation import intervals
from malearn.kernel.estimation.answer_explanation import AnswerExplanation
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.names import Names
from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.kernel.prediction import Prediction
from malearn.kernel.reading import record_reader
from malearn.kernel.reading.believable import Clock
from malearn.kernel.records import Record, Rejected
from malearn.kernel.tool_types import ToolType, ToolTypes, default_seconds
from malearn.kernel.workflow import Workflow, WorkflowPrediction
from malearn.serving import process_hooks, requests, stream_format, workflow_estimator
from malearn.serving.answering import Answer, Answerer
from malearn.serving.cache import open_cache
from malearn.serving.collector import Collector
from malearn.serving.completions import CompletionHandler
from malearn.serving.connection import connector
from malearn.serving.function_names import FunctionNames, OnClassAndPredictor
from malearn.serving.generational_cache import GenerationalCache
from malearn.serving.local_learning import LocalLearning
from malearn.serving.model import Model
from malearn.serving.models import Models
from malearn.serving.observation_reader import ObservationReader
from malearn.serving.predecessor_cache import PredecessorCache, SuccessorFeatures
from malearn.serving.predecessor_reader import PredecessorReader
from malearn.serving.redis_worker import RedisWorker
from malearn.serving.refusals import Refusals
from malearn.serving.registry import Registry
from malearn.serving.requests import Request
from malearn.serving.shared_history import SharedHistory, function_limit
from malearn.serving.stats import BUCKETS, CallCounters, ModelStats, Stats
from malearn.serving.stream_format import Predicted
from malearn.serving.workflow_estimator import WorkflowEstimator
from malearn.serving.workflow_publisher import WorkflowPublisher
from malearn.serving.workflow_tracker import WorkflowTracker

__all__ = ["DAGTaskPredictor"]

_log = logging.getLogger("malearn.serving")

_NOT_ASKED: tuple[Sequence[SuccessorFeatures | None], str] = ((), "")
_REMEMBERED = 4096  # tasks, with the features that they gave their successors
_SHOWN = 100  # workflows in progress that the statistics list

_GUESS = intervals.ASSUMED["heuristic"]


#: A task of `estimate_many`.
Task = (
    tuple[str, str | None, Sequence[str]]
    | tuple[str, str | None, Sequence[str], Mapping[str, object] | None]
    | tuple[str, str | None, Sequence[str], Mapping[str, object] | None, str | None]
)


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
        model: str = "xgboost",
        retrain_after: int = 50,
        prefix: str | None = None,
        functions: int | None = None,
        shares: bool = True,
    ) -> None:
        if model_dir is not None and not shares:
            raise InputError("shares", "a predictor with a model_dir reports what it learns from")
        if model_dir is not None and tracking_uri is not None:
            raise InputError("model_dir", "models come from it or from tracking_uri: give one")
        names = Names.find(prefix)
        declared = process_declaration.HERE.declared
        self._tool_types = declared() if tool_types is None else tool_types
        self._alias, self._budget, self._refresh_interval = alias, budget, refresh_interval
        self._cache_dir, self._clock = cache_dir, clock
        self._learning_settings = {
            "model_dir": model_dir,
            "model": model,
            "retrain_after": retrain_after,
        }
        self._sharing = {
            "prefix": names.prefix,
            "functions": function_limit(functions),
            "shares": shares,
        }
        self._predecessors = PredecessorCache(self._tool_types, _REMEMBERED)
        self._history = SharedHistory(function_limit(functions))
        self._predicted: GenerationalCache[str, Predicted] = GenerationalCache(_REMEMBERED)
        self._counters = CallCounters()
        url = redis_url
        if url is None:
            url = os.environ.get("MALEARN_REDIS_URL") or "redis://127.0.0.1:6379/0"
        self._redis_url = url
        self._refusals = Refusals(without_password(url))
        self._learning = (
            LocalLearning(model_dir, self._tool_types, model, retrain_after, self._use)
            if model_dir is not None
            else None
        )
        self._collector = Collector(
            self._refusals,
            on_entry=self._learning.add if self._learning else None,
            # Learning in this process takes what the collector encodes, without Redis as well.
            sends=(bool(url) and shares) or self._learning is not None,
            names=names,
        )
        self._completions = CompletionHandler(
            self._predecessors,
            self._history,
            self._predicted,
            self._collector,
            self._counters,
            self._record_internal_error,
            clock,
        )
        # 2.0: seconds for one exchange, which only the background thread waits for.
        observations = ObservationReader(
            self._history, self._predecessors, self._counters, self._refusals, clock, 2.0, names
        )
        self._tracker = WorkflowTracker()
        self._worker = RedisWorker(
            connector(url, timeout=1.0) if url else None,
            self._collector,
            observations,
            self._refusals,
            WorkflowPublisher(self._tracker, names, sends=shares),
            on_record=self._on_record,
            drain=self._completions.drain_yielding,
            names=names,
        )
        self._reader = PredecessorReader(
            self._predecessors, self._worker, budget, reads=reads_results
        )
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        # The variable may be set for other programs, so a `model_dir` overrules it.
        self._tracking_uri = uri = uri if model_dir is None else None
        self._cache = open_cache(cache_dir, uri, alias)
        self._models = Models(
            lambda: self._tool_types,
            Registry(uri, alias, names=names) if uri else None,
            self._cache,
            self._warm,
            names=names,
        )
        # Functions rather than values: a refresh and a declaration replace them.
        self._answerer = Answerer(
            lambda: self._models.current,
            self._history,
            self._predicted,
            self._record_internal_error,
        )
        self._workflows = WorkflowEstimator(
            self._predecessors, self._reader, self._answerer, self._tracker, self._history
        )
        self._function_names = FunctionNames(
            lambda: self._tool_types,
            lambda pattern, name: self._declare(
                process_declaration.with_function(self._tool_types, pattern, name)
            ),
            lambda pattern: self._declare(
                process_declaration.without_function(self._tool_types, pattern)
            ),
        )
        self._refreshed = threading.Event()
        self._stop = threading.Event()
        self._start_lock = threading.Lock()
        self._closed = False
        # Before the threads start, or the first refresh would download what is on the disk.
        self._models.load_cached()
        if self._learning is not None:
            self._history.restore(self._learning.restore())
        process_hooks.add(self)
        self._start()

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
            self._ensure_running()
            # What was reported a moment ago is to count for this answer.
            self._completions.drain()
            request, fetch_error = self._request(
                succ_func_name, succ_task_type, pred_task_ids, features, task_id, started
            )
            prediction, reason = self._answerer.answer(request, fetch_error)
        except Exception:  # noqa: BLE001 - a scheduler must never fail for want of an estimate
            self._record_internal_error("estimate")
            prediction, reason = _guess(succ_task_type), "internal_error"
        self._counters.answered(prediction.source, reason, perf_counter() - started)
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
        self._completions.drain()
        return self._answerer.explain(
            *self._request(
                succ_func_name, succ_task_type, pred_task_ids, features, None, perf_counter()
            )
        )

    def estimate_many(self, tasks: Iterable[Task]) -> list[Prediction]:
        """One `Prediction` each, in order.

        A task is `(function, task type, predecessors' ids[, features[, task id]])`, with the
        meaning of `estimate`. All together cost one round trip, and one model call per tool type.
        """
        started = perf_counter()
        tasks = list(tasks)
        try:
            self._ensure_running()
            self._completions.drain()
            answers = self._answer_many(tasks, started)
        except Exception:  # noqa: BLE001 - a scheduler must never fail for want of an estimate
            self._record_internal_error("estimate_many")
            answers = [
                (_guess(task[1] if len(task) > 1 else None), "internal_error") for task in tasks
            ]
        predictions = [prediction for prediction, _ in answers]
        self._counters.answered_many(
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
        unless given. Times are seconds since the epoch.
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
        clock = time.time() if now is None else now
        waiting = list(queue)
        try:
            self._ensure_running()
            self._completions.drain()
            found, sources, reasons = self._workflows.estimate(waiting, clock, started)
        except Exception:  # noqa: BLE001 - a scheduler must never fail for want of an estimate
            if len(waiting) > 1:  # what is wrong with one must not cost the others
                return [self.estimate_workflows([queued], clock)[0] for queued in waiting]
            self._record_internal_error("estimate_workflows")
            found = [workflow_estimator.guess(queued, clock) for queued in waiting]
            tasks = sum(len(one.tasks) for one in found)
            sources, reasons = Counter(heuristic=tasks), Counter(internal_error=tasks)
        self._counters.answered_many(sources, reasons, perf_counter() - started)
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
            self._ensure_running()
            if record_json is None:
                self._worker.read_later(task_id, func_name)
            else:
                self._complete(_read(task_id, record_json, func_name))
        except Exception:  # noqa: BLE001 - a scheduler must never fail for reporting a task
            self._record_internal_error("collect_data_for_task")

    def used(self, task_id: str, seconds: float) -> None:
        """Say that the scheduler went by `seconds` for this task, not by our answer.

        What is recorded as predicted is what was used; nothing is learnt of how far it was off.
        """
        known = self._predicted.get(task_id)
        if known is not None:
            # Without a basis nothing is learnt of the error, which is not ours.
            used = msgspec.structs.replace(known, seconds=seconds, version=None, basis=None)
            self._predicted.put(task_id, used)

    def remember(self, observations: Iterable[Observation]) -> int:
        """Take in executions of an earlier day, in their place in time; how many were new."""
        return self._history.restore(observations)

    @property
    def reads_results(self) -> bool:
        """Whether a call may read a task's record in Redis; may be set."""
        return self._reader.reads

    @reads_results.setter
    def reads_results(self, reads: bool) -> None:
        self._reader.reads = reads

    def tool_type_of(
        self,
        function: str,
        resource: str | None = None,
        features: Mapping[str, object] | None = None,
    ) -> ToolType | None:
        """The tool type of a task: by its function, else by what it runs on and with.

        It is remembered for the function, so that a record that names nothing else finds it.
        """
        types = self._tool_types
        # Looking them up is only worth it where a tool type claims by more than the name.
        if features and types.is_open:
            return types.for_task(
                function, resource, features.get("model"), features.get("backend")
            )
        return types.for_task(function, resource)

    def is_generic(self, function: str) -> bool:
        """Whether nobody but the generic tool type claims `function`."""
        claimed = self._tool_types.for_known(function)
        return claimed is not None and claimed.generic

    def observed(self, function: str) -> int:
        """How many executions of `function` were observed."""
        return self._history.count(function)

    def refresh(self) -> bool:
        """Follow the registry now, on this thread; False when it gave no answer."""
        followed = self._models.refresh()
        self._refreshed.set()
        return followed

    def wait_until_ready(self, timeout: float = 10.0) -> bool:
        """Wait until registry and Redis were asked once; False when that took too long.

        `timeout` is in seconds. Nobody needs to call this: without, the first
        predictions come from the cache, or from further down the fallback chain.
        """
        until = perf_counter() + timeout
        done = self._refreshed.wait(timeout)
        return self._worker.restored.wait(max(0.0, until - perf_counter())) and done

    def stats(self) -> Stats:
        """Counters since this predictor was built, and what it serves now."""
        # Read one by one without a lock: together they are of about one moment.
        counters, models, now = self._counters, self._models, time.time()
        return Stats(
            calls=counters.calls,
            sources=dict(counters.sources),
            reasons=dict(counters.reasons),
            latency=dict(zip((*BUCKETS, math.inf), counters.latency, strict=True)),
            latency_sum=counters.latency_sum,
            models={
                name: ModelStats(model.version, model.metadata.family, now - model.loaded_at)
                for name, model in models.current.items()
            },
            refused=models.refused,
            swaps=models.swaps,
            refresh_failures=models.failures,
            refresh_age=None if models.refreshed_at is None else now - models.refreshed_at,
            collected=counters.collected,
            rejected=dict(counters.rejected),
            queued=len(self._completions) + len(self._collector) + len(self._worker),
            sent=self._collector.sent,
            dropped=self._collector.dropped,
            expired_before_read=self._worker.expired,
            remembered=len(self._predecessors),
            redis_up=self._worker.breaker.closed,
            redis_outages=self._worker.breaker.opened,
            ignored=dict(counters.ignored),
            refused_reads=self._refusals.reads,
            refused_writes=self._refusals.writes,
            redis_refusal=self._refusals.reason,
            cache_failures=self._cache.failures if self._cache else 0,
            internal_errors=counters.errors,
            functions=self._history.functions[0],
            functions_forgotten=self._history.functions[1],
            skipped=self._worker.skipped,
            workflows=tuple(self._tracker.in_progress(_SHOWN)),
        )

    def close(self, timeout: float = 2.0) -> None:
        """Send what was collected, for `timeout` seconds at most, and stop. Safe to repeat.

        A closed predictor still answers, from what it knows.
        """
        if self._closed:
            return
        self._closed = True
        process_hooks.remove(self)
        self._stop.set()
        # The registry's thread, a daemon, is not waited for: its exchange may take 30 s.
        self._worker.close(timeout)
        if self._learning is not None:
            self._learning.close(timeout)
        if (lost := self._collector.dropped) > 0:
            _log.warning("%d finished tasks could not be sent to Redis", lost)

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
        # What the environment named here may not be set where it arrives. The cache's place is
        # left to the environment there, unless it was given: it may be another machine.
        settings = {
            "redis_url": self._redis_url,
            "tracking_uri": self._tracking_uri,
            "alias": self._alias,
            "budget": self._budget,
            "refresh_interval": self._refresh_interval,
            "cache_dir": self._cache_dir,
            "reads_results": self.reads_results,
            "tool_types": self._tool_types,
            "clock": self._clock,
            **self._learning_settings,
            **self._sharing,
        }
        return _built, (type(self), settings)

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
        tool_type = self.tool_type_of(function, resource, features)
        # A function that nobody claims has no features to look for.
        found, fetch_error = _NOT_ASKED if tool_type is None else self._reader.read(before, started)
        request = requests.build(
            self._predecessors,
            function,
            resource,
            tool_type,
            before,
            found,
            features,
            task_id,
        )
        return request, fetch_error

    def _answer_many(self, tasks: Iterable[Task], started: float) -> list[Answer]:
        unpacked = [_unpacked(*task) for task in tasks]
        claimed = [(self.tool_type_of(task[0], task[1], task[3]), *task) for task in unpacked]
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

    # What becomes of a finished task.

    def _on_record(self, task_id: str, function: str | None, raw: bytes) -> None:
        self._complete(_read(task_id, raw, function))
        self._completions.drain_yielding()

    def _complete(self, record: Record | Rejected) -> None:
        if (
            isinstance(record, Record)
            and record.successors
            and self._tool_types.generic is not None
        ):
            self._discover(record)
        self._completions.submit(record, self._tracker.ended(record))

    def _warm(self, model: Model) -> None:
        """Start from the model's own recent observations where nothing else is known.

        What a generic tool type's model was trained on becomes its features.
        """
        own = self._tool_types.get(model.tool_type)
        if own is not None and own.generic:
            grown = generic.with_generic(self._tool_types, model.metadata.features)
            if grown is not self._tool_types:
                self._declare(grown)
        tool_type = self._tool_types.get(model.tool_type)
        # What was observed here or shared by others is newer than what a model carries.
        if tool_type is None or self._history.knows(model.tool_type):
            return
        rows = stream_format.recent(model.metadata.recent, model.metadata.features, tool_type)
        self._history.restore(rows)

    def _use(self, loaded: OnnxModel, version: int) -> None:
        """Answer from a model that was fitted in this process."""
        self._models.use(loaded, version)

    def _discover(self, record: Record) -> None:
        """Let the generic tool type have the features that `record` announces for its tasks."""
        types = self._tool_types
        for function in record.successors:
            claimed = types.for_known(function)
            if claimed is None or claimed.generic:
                names = generic.announced(record.successors, function)
                types = generic.with_generic(types, names)
        # Nothing is dropped from the caches unless a feature is really new.
        if types is not self._tool_types:
            self._declare(types)

    # Housekeeping.

    def _declare(self, tool_types: ToolTypes) -> None:
        # What was read and answered so far stands in the order of the old declaration.
        self._completions.drain()
        self._predicted.clear()
        self._tool_types = tool_types
        self._predecessors.declare(tool_types)
        if self._learning is not None:
            self._learning.declare(tool_types)
        self._models.declare(tool_types)

    def _ensure_running(self) -> None:
        if not self._worker.running and not self._closed:
            self._start()

    def _start(self) -> None:
        with self._start_lock:
            # Asked again under the lock: of several first callers one starts the threads.
            if self._worker.running or self._closed:
                return
            process_hooks.install()
            self._worker.start()
            threading.Thread(target=self._follow, name="malearn-registry", daemon=True).start()

    def _follow(self) -> None:
        stop = self._stop
        while not stop.is_set():
            try:
                self.refresh()
            except Exception:  # noqa: BLE001 - the thread must live on
                self._record_internal_error("refresh")
            stop.wait(self._refresh_interval)

    def _record_internal_error(self, where: str) -> None:
        """Our own failure: counted, and shown once."""
        if self._counters.failed() == 1:
            _log.exception("malearn failed in %s and went on", where)

    def after_fork(self) -> None:
        """Go on in a child process, which has none of the parent's threads."""
        self._start_lock = threading.Lock()
        # The parent's may be set, or its lock held, by a thread that is not here.
        self._stop = threading.Event()
        self._refreshed = threading.Event()
        self._counters.renew_locks()
        self._history.renew_locks()
        self._tracker.renew_locks()
        self._models.renew_locks()
        self._completions.renew_locks()
        self._completions.drain()  # what the parent reported is known here, but not ours to send
        # After the drain, since it empties the collector of what is the parent's to send.
        self._worker.abandon()
        if self._learning is not None:
            self._learning.after_fork()


def _built(kind: type[DAGTaskPredictor], settings: Mapping[str, Any]) -> DAGTaskPredictor:
    """A predictor of such settings, as it arrives in another process."""
    return kind(**settings)


def _read(
    task_id: str, raw: str | bytes | Mapping[str, object], function: str | None
) -> Record | Rejected:
    """A finished task's record, whatever its clock says.

    A wrong clock makes the times useless, which `CompletionHandler` sees to, but not what the
    task reports of those after it.
    """
    return record_reader.read(task_id, raw, function, now=math.inf)


def _unpacked(
    function: str,
    resource: str | None,
    predecessors: Sequence[str],
    features: Mapping[str, object] | None = None,
    task_id: str | None = None,
) -> tuple[str, str | None, Sequence[str], Mapping[str, object] | None, str | None]:
    """A task of `estimate_many`, complete."""
    return function, resource, requests.predecessor_ids(predecessors), features, task_id


def _guess(resource: object) -> Prediction:
    seconds = default_seconds(str(resource))
    low, high, confidence = _GUESS
    return Prediction(seconds, seconds * low, seconds * high, "heuristic", None, confidence)
