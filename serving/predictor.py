"""`DAGTaskPredictor`: what a scheduler calls, on its own thread, with its lock held.

Every call returns a finite positive number of seconds within its budget,
whatever Redis, MLflow or the disk do. A call computes and, at most, makes one
round trip; everything else happens on two background threads.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Self

import msgspec
import numpy as np

from malearn.kernel import estimator, intervals, record_reader, run_ids
from malearn.kernel.estimator import Basis
from malearn.kernel.features import FeatureVector
from malearn.kernel.prediction import Prediction
from malearn.kernel.tool_types import ToolType, ToolTypes, declared, default_seconds
from malearn.serving import stream_format
from malearn.serving.cache import ModelCache, default_directory
from malearn.serving.collector import Collector
from malearn.serving.completions import CompletionHandler
from malearn.serving.connection import ProtocolError, ResponseError, connector
from malearn.serving.function_names import FunctionNames
from malearn.serving.generational_cache import GenerationalCache
from malearn.serving.model import Model
from malearn.serving.models import Models
from malearn.serving.predecessor_cache import PredecessorCache, SuccessorFeatures
from malearn.serving.redis_worker import RedisWorker
from malearn.serving.registry import Registry
from malearn.serving.shared_history import SharedHistory
from malearn.serving.stats import BUCKETS, CallCounters, ModelStats, Stats
from malearn.serving.stream_format import Predicted

__all__ = ["DAGTaskPredictor"]

_log = logging.getLogger("malearn.serving")

_NOTHING = FeatureVector((), (), (), ())
_UNASKED: tuple[tuple[SuccessorFeatures, ...], str] = ((), "")
_REMEMBERED = 4096  # tasks, by their words on their successors

#: What tasks share that one pass over the history tells of: function and context.
_Alike = tuple[str, tuple[str, ...]]

_GUESS = intervals.ASSUMED["heuristic"]


class _Request(msgspec.Struct, frozen=True, gc=False):
    """One task to tell the time of. `unheard`: nothing is told of it, and somebody not heard."""

    function: str
    resource: str | None
    tool_type: ToolType | None
    told: FeatureVector
    task_id: str
    unheard: bool


class DAGTaskPredictor:
    """Seconds that tasks of a DAG will take, before they run.

    `redis_url` is where the scheduler keeps its records (`$MALEARN_REDIS_URL`),
    `tracking_uri` an MLflow server (`$MLFLOW_TRACKING_URI`), `alias` the name of
    the version to serve. `budget` bounds every call, `refresh_interval` is how
    often the alias is looked up, both in seconds. `cache_dir` holds the last
    good models. Building one reads that cache and touches no network.

    Safe to share between threads; after a fork the child goes on by itself.
    """

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
    ) -> None:
        self._tool_types = declared() if tool_types is None else tool_types
        self._budget, self._refresh_interval = budget, refresh_interval
        self._predecessors = PredecessorCache(self._tool_types, _REMEMBERED)
        self._history = SharedHistory()
        self._predicted: GenerationalCache[str, Predicted] = GenerationalCache(_REMEMBERED)
        self._counters = CallCounters()
        self._collector = Collector()
        self._completions = CompletionHandler(
            self._predecessors,
            self._history,
            self._predicted,
            self._collector,
            self._counters,
            self._record_internal_error,
        )
        url = redis_url or os.environ.get("MALEARN_REDIS_URL") or "redis://127.0.0.1:6379/0"
        self._worker = RedisWorker(
            connector(url, timeout=1.0),
            self._collector,
            deliver=self._deliver,
            observe=self._observe_others,
            restore=self._restore,
            drain=self._completions.drain_yielding,
        )
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        directory = Path(cache_dir) if cache_dir is not None else default_directory()
        self._cache = ModelCache(directory, uri, alias) if uri else None
        self._models = Models(
            lambda: self._tool_types, Registry(uri, alias) if uri else None, self._cache, self._warm
        )
        self.func_name_to_tool_type = FunctionNames(lambda: self._tool_types, self._declare)
        self._refreshed = threading.Event()
        self._stop = threading.Event()
        self._start_lock = threading.Lock()
        self._closed = False
        self._models.load_cached()
        _alive.add(self)
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
        what is known beyond the predecessors' words, as for a start node;
        `task_id` names the task where there are no predecessors to tell its run.
        """
        started = perf_counter()
        try:
            self._ensure_running()
            self._completions.drain()
            before = _ids(pred_task_ids)
            tool_type = self._tool_types.for_function(succ_func_name)
            # Of a function that nobody claims, predecessors say nothing of use.
            heard, trouble = _UNASKED if tool_type is None else self._hear(before, started)
            question = self._question(
                succ_func_name, succ_task_type, tool_type, before, heard, features, task_id
            )
            prediction, reason = self._answer(question, trouble)
        except Exception:  # noqa: BLE001 - a scheduler must never fail for want of an estimate
            self._record_internal_error("estimate")
            prediction, reason = _guess(succ_task_type), "internal_error"
        self._counters.answered(prediction.source, reason, perf_counter() - started)
        return prediction

    def estimate_many(
        self, tasks: Iterable[tuple[str, str | None, Sequence[str]]]
    ) -> list[Prediction]:
        """One `Prediction` for each `(function, task type, predecessors' ids)`, in order.

        All together cost one round trip, and one model call per tool type.
        """
        started = perf_counter()
        tasks = list(tasks)
        try:
            self._ensure_running()
            self._completions.drain()
            tasks = [(function, resource, _ids(before)) for function, resource, before in tasks]
            tool_types = [self._tool_types.for_function(function) for function, _, _ in tasks]
            heard, trouble = self._hear(
                [
                    task_id
                    for tool_type, (_, _, before) in zip(tool_types, tasks, strict=True)
                    if tool_type is not None
                    for task_id in before
                ],
                started,
            )
            said = iter(heard)
            questions = [
                self._question(
                    function,
                    resource,
                    tool_type,
                    before,
                    () if tool_type is None else list(islice(said, len(before))),
                )
                for (function, resource, before), tool_type in zip(tasks, tool_types, strict=True)
            ]
            answers = self._answers(questions, trouble)
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
                self._completions.submit(record_reader.read(task_id, record_json, func_name))
        except Exception:  # noqa: BLE001 - a scheduler must never fail for reporting a task
            self._record_internal_error("collect_data_for_task")

    def refresh(self) -> bool:
        """Follow the registry now, on this thread; False when it gave no answer."""
        followed = self._models.refresh()
        self._refreshed.set()
        return followed

    def wait_until_ready(self, timeout: float = 10.0) -> bool:
        """Wait until registry and Redis were asked once; False when that took too long.

        `timeout` is in seconds. Nobody needs to call this: without, the first
        predictions come from the cache, or from a lower rung.
        """
        until = perf_counter() + timeout
        done = self._refreshed.wait(timeout)
        return self._worker.restored.wait(max(0.0, until - perf_counter())) and done

    def stats(self) -> Stats:
        """Counters since this predictor was built, and what it serves now."""
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
            lost=self._worker.lost,
            remembered=len(self._predecessors),
            redis_up=self._worker.breaker.closed,
            redis_outages=self._worker.breaker.opened,
            cache_failures=self._cache.failures if self._cache else 0,
            internal_errors=counters.errors,
        )

    def close(self, timeout: float = 2.0) -> None:
        """Send what was collected, for `timeout` seconds at most, and stop. Safe to repeat.

        A closed predictor still answers, from what it knows.
        """
        if self._closed:
            return
        self._closed = True
        _alive.discard(self)
        self._stop.set()
        self._worker.close(timeout)
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

    # What one call does.

    def _hear(
        self, task_ids: Sequence[str], started: float
    ) -> tuple[Sequence[SuccessorFeatures | None], str]:
        """What those tasks said, after one round trip at most, and the trouble there was."""
        heard = self._predecessors.get_many(task_ids)
        if None not in heard:
            return heard, ""
        unheard = [task_id for task_id, said in zip(task_ids, heard, strict=True) if said is None]
        trouble = self._fetch(list(dict.fromkeys(unheard)), started)
        return self._predecessors.get_many(task_ids), trouble

    def _question(
        self,
        function: str,
        resource: str | None,
        tool_type: ToolType | None,
        predecessors: Sequence[str],
        heard: Sequence[SuccessorFeatures | None],
        features: Mapping[str, object] | None = None,
        task_id: str | None = None,
    ) -> _Request:
        """A task with all that is told of it."""
        if not task_id:
            run = predecessors[0][: run_ids.RUN_ID_LENGTH] if predecessors else ""
            task_id = f"{run}-{function}" if predecessors else ""
        if tool_type is None:
            return _Request(function, resource, None, _NOTHING, task_id, False)
        schema = self._predecessors.schemas[tool_type.name]
        told = self._predecessors.features_for(function, schema, heard)
        if features:
            told = schema.merge((told, schema.vectorize(features)))
        nothing = told.values is schema.nothing.values and not told.context
        return _Request(function, resource, tool_type, told, task_id, nothing and None in heard)

    def _fetch(self, task_ids: list[str], started: float) -> str:
        """Bring records into memory; what was the trouble, if that did not go well."""
        worker = self._worker
        breaker = worker.breaker
        if not breaker.closed:
            return "redis_down"
        # What is left of the budget after this pays for the answer itself.
        deadline = started + self._budget * 0.9
        connection = worker.pool.acquire(deadline)
        if connection is None:
            breaker.fail()
            return "redis_busy"
        try:
            raws = connection.mget([f"result:{task_id}" for task_id in task_ids], deadline)
            for task_id, raw in zip(task_ids, raws, strict=True):
                if raw is not None:
                    self._predecessors.add_raw(task_id, raw)
                    if perf_counter() > deadline:
                        break
        except (OSError, ProtocolError, ResponseError) as error:
            worker.pool.discard(connection)
            breaker.fail()
            worker.wake()
            return "redis_slow" if isinstance(error, TimeoutError) else "redis_failed"
        except BaseException:
            worker.pool.discard(connection)
            raise
        worker.pool.release(connection)
        breaker.succeed()
        return "out_of_time" if perf_counter() > deadline else ""

    def _answer(self, question: _Request, trouble: str) -> tuple[Prediction, str]:
        """The best rung's answer, and why no better one gave it."""
        model, reason = self._model_for(question, trouble)
        if model is None:
            return self._lower(question, reason)
        told = question.told
        basis = self._history.look_up(question.function, model.tool_type, told.values, told.context)
        seconds = model.seconds(model.row(told.values, basis.snapshot))
        return self._given(question, basis, seconds, model)

    def _answers(self, questions: list[_Request], trouble: str) -> list[tuple[Prediction, str]]:
        """As `_answer`, one for each, after one call of each model."""
        answers: list[tuple[Prediction, str] | None] = [None] * len(questions)
        groups: dict[str, tuple[Model, dict[_Alike, list[int]]]] = {}
        for number, question in enumerate(questions):
            model, reason = self._model_for(question, trouble)
            if model is None:
                answers[number] = self._lower(question, reason)
                continue
            group = groups.get(model.tool_type)
            if group is None:
                group = groups[model.tool_type] = (model, defaultdict(list))
            group[1][question.function, question.told.context].append(number)
        for model, alike in groups.values():
            numbers = [number for some in alike.values() for number in some]
            values = np.array([questions[number].told.values for number in numbers], np.float64)
            bases: list[Basis] = []
            for (function, context), some in alike.items():
                given = values[len(bases) : len(bases) + len(some)]
                bases += self._history.look_up_many(function, model.tool_type, given, context)
            snapshots = np.array([basis.snapshot for basis in bases])
            for number, basis, seconds in zip(
                numbers, bases, model.many(values, snapshots), strict=True
            ):
                answers[number] = self._given(questions[number], basis, seconds, model)
        return [answer for answer in answers if answer is not None]

    def _model_for(self, question: _Request, trouble: str) -> tuple[Model | None, str]:
        """The model that should answer, or why none should."""
        if question.tool_type is None:
            return None, "unmapped_function"
        model = self._models.current.get(question.tool_type.name)
        if model is None:
            return None, "no_model"
        if trouble and question.unheard:
            # A model that was never shown such ignorance is a worse guess than the last times.
            return None, trouble
        return model, ""

    def _lower(self, question: _Request, reason: str) -> tuple[Prediction, str]:
        """What the fallback chain answers without a model."""
        tool_type = question.tool_type.name if question.tool_type is not None else ""
        told = question.told
        basis = self._history.look_up(question.function, tool_type, told.values, told.context)
        return self._given(question, basis)[0], reason

    def _given(
        self,
        question: _Request,
        basis: Basis,
        seconds: float | None = None,
        model: Model | None = None,
    ) -> tuple[Prediction, str]:
        """The answer, which is kept until its outcome is reported, and why it is no model's."""
        default = default_seconds(question.resource, question.tool_type)
        if model is None:
            prediction = estimator.answer(basis, default)
        else:
            prediction = estimator.answer(basis, default, seconds, model.version, model.interval)
        if question.task_id:
            told = question.told
            predicted = Predicted(
                told.values, prediction.seconds, prediction.model_version, basis, told.context
            )
            self._predicted.put(question.task_id, predicted)
        return prediction, "" if prediction.source == "model" else "model_nonsense"

    # What becomes of a finished task.

    def _deliver(self, task_id: str, function: str | None, raw: bytes) -> None:
        self._completions.submit(record_reader.read(task_id, raw, function))
        self._completions.drain_yielding()

    def _observe_others(self, entries: list[bytes]) -> None:
        for raw in entries:
            found = stream_format.observation(raw, self._tool_types)
            if found is not None:
                self._history.observe(*found)
                time.sleep(0)  # others first

    def _restore(self, memos: dict[str, list[bytes]]) -> None:
        found = (
            stream_format.observation(raw, self._tool_types, function)
            for function, raws in memos.items()
            for raw in raws
        )
        self._history.restore([observation for _, observation in filter(None, found)])

    def _warm(self, model: Model) -> None:
        """Start from the model's own recent observations where nothing else is known."""
        tool_type = self._tool_types.get(model.tool_type)
        if tool_type is None or self._history.knows(model.tool_type):
            return
        rows = stream_format.recent(model.metadata.recent, model.metadata.features, tool_type)
        self._history.restore(rows)

    # Housekeeping.

    def _declare(self, tool_types: ToolTypes) -> None:
        # What was told and answered so far stands in the order of the old declaration.
        self._completions.drain()
        self._predicted.clear()
        self._tool_types = tool_types
        self._predecessors.declare(tool_types)

    def _ensure_running(self) -> None:
        if not self._worker.running and not self._closed:
            self._start()

    def _start(self) -> None:
        with self._start_lock:
            if self._worker.running or self._closed:
                return
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

    def _after_fork(self) -> None:
        self._start_lock = threading.Lock()
        self._stop = threading.Event()
        self._refreshed = threading.Event()
        self._counters.renew_locks()
        self._history.renew_locks()
        self._models.renew_locks()
        self._completions.renew_locks()
        self._completions.drain()  # what the parent reported is known here, but not ours to send
        self._worker.abandon()


def _ids(predecessors: Sequence[str] | None) -> Sequence[str]:
    """Predecessors as a sequence, however they were given."""
    if isinstance(predecessors, list | tuple):
        return predecessors
    if isinstance(predecessors, str):
        return (predecessors,)
    return list(predecessors or ())


def _guess(resource: object) -> Prediction:
    seconds = default_seconds(str(resource))
    low, high, confidence = _GUESS
    return Prediction(seconds, seconds * low, seconds * high, "heuristic", None, confidence)


_alive: weakref.WeakSet[DAGTaskPredictor] = weakref.WeakSet()


def _after_fork() -> None:
    for predictor in list(_alive):
        predictor._after_fork()


def _at_exit() -> None:
    for predictor in list(_alive):
        predictor.close(timeout=1.0)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
