"""What a predictor is made of, and how its parts hang together."""

from __future__ import annotations

import logging
import math
import threading
import time

from malearn.kernel import text
from malearn.kernel.errors import without_password
from malearn.kernel.names import Names
from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.kernel.records import Record, Rejected
from malearn.kernel.tool_types import ToolTypes
from malearn.serving import completions, local_learning, process_hooks, stream_format
from malearn.serving.answering import Answerer
from malearn.serving.cache import open_cache
from malearn.serving.collector import Collector
from malearn.serving.completions import CompletionHandler
from malearn.serving.connector import Connector
from malearn.serving.generational_cache import GenerationalCache
from malearn.serving.model import Model
from malearn.serving.models import Models
from malearn.serving.observation_reader import ObservationReader
from malearn.serving.predecessor_cache import PredecessorCache
from malearn.serving.predecessor_reader import PredecessorReader
from malearn.serving.redis_worker import RedisWorker
from malearn.serving.refusals import Refusals
from malearn.serving.registry import Registry
from malearn.serving.registry_follower import RegistryFollower
from malearn.serving.served_tool_types import ServedToolTypes
from malearn.serving.settings import Settings
from malearn.serving.shared_history import SharedHistory
from malearn.serving.stats import BUCKETS, CallCounters, ModelStats, Stats
from malearn.serving.stream_format import Predicted
from malearn.serving.task_estimator import TaskEstimator
from malearn.serving.workflow_estimator import WorkflowEstimator
from malearn.serving.workflow_publisher import WorkflowPublisher
from malearn.serving.workflow_tracker import WorkflowTracker

__all__ = ["Assembly"]

_log = logging.getLogger("malearn.serving")

_REMEMBERED = 4096  # tasks, with the features that they gave their successors
_EXCHANGE_TIMEOUT = 2.0  # seconds for reading observations, which a background thread does
_SHOWN = 100  # workflows in progress that the statistics list


class Assembly:
    """The parts of one predictor, built from its settings.

    Two threads serve it, the one of `worker` with Redis and that of `follower` with the registry;
    `start` and, after a fork, the first call start them. What fails inside is counted.
    """

    def __init__(self, given: Settings) -> None:
        names = Names.find(given.prefix)
        self.tool_types = ServedToolTypes(given.tool_types, self._declare)
        self.counters = CallCounters()
        self._refusals = Refusals(without_password(given.redis_url))
        self.predecessors = PredecessorCache(given.tool_types, _REMEMBERED)
        self.history = SharedHistory(given.functions)
        self.predicted: GenerationalCache[str, Predicted] = GenerationalCache(_REMEMBERED)
        self._tracker = WorkflowTracker()
        self._learning = local_learning.begin(given, self._use)
        self.collector = Collector(
            self._refusals,
            on_entry=self._learning.add if self._learning else None,
            sends=given.sends,
            names=names,
        )
        self.completions = CompletionHandler(
            self.predecessors,
            self.history,
            self.predicted,
            self.collector,
            self.counters,
            self.record_internal_error,
            given.clock,
        )
        self.worker = RedisWorker(
            Connector(given.redis_url, 1.0, names) if given.redis_url else None,
            self.collector,
            ObservationReader(
                self.history,
                self.predecessors,
                self.counters,
                self._refusals,
                given.clock,
                _EXCHANGE_TIMEOUT,
                names,
            ),
            self._refusals,
            WorkflowPublisher(
                self._tracker,
                self.history,
                names,
                self.record_internal_error,
                sends=given.shares,
            ),
            on_record=self._on_record,
            drain=self.completions.drain_yielding,
            names=names,
        )
        self.reader = PredecessorReader(
            self.predecessors, self.worker, given.budget, reads=given.reads_results
        )
        uri = given.tracking_uri
        self._cache = open_cache(given.cache_dir, uri, given.alias)
        self.models = Models(
            # A function rather than a value: a declaration replaces it.
            lambda: self.tool_types.current,
            Registry(uri, given.alias, names=names) if uri else None,
            self._cache,
            self._warm,
            names=names,
        )
        self.follower = RegistryFollower(
            self.models.refresh, given.refresh_interval, self.record_internal_error
        )
        answerer = Answerer(
            lambda: self.models.current,
            self.history,
            self.predicted,
            self.record_internal_error,
        )
        self.tasks = TaskEstimator(self.tool_types, self.predecessors, self.reader, answerer)
        self.workflows = WorkflowEstimator(
            self.predecessors, self.reader, answerer, self._tracker, self.history
        )
        self._start_lock = threading.Lock()
        self._closed = False
        # Before the threads start, or the first refresh would download what is on the disk.
        self.models.load_cached()
        if self._learning is not None:
            self.history.restore(self._learning.restore())
        process_hooks.add(self)

    def ensure_running(self) -> None:
        """Start the threads unless they run: the child of a fork has none until its first call."""
        if not self.worker.running and not self._closed:
            self.start()

    def start(self) -> None:
        """Start the threads."""
        with self._start_lock:
            # Asked again under the lock: of several first callers one starts the threads.
            if self.worker.running or self._closed:
                return
            process_hooks.install()
            self.worker.start()
            self.follower.start()

    def complete(self, record: Record | Rejected) -> None:
        """Take in a finished task: for its successors, for the history, and to be sent on."""
        if isinstance(record, Record) and record.successors:
            self.tool_types.discover(record)
        self.completions.submit(record, self._tracker.ended(record))

    def stats(self) -> Stats:
        """Counters since it was built, and what is served now."""
        # Read one by one without a lock: together they are of about one moment.
        counters, models, now = self.counters, self.models, time.time()
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
            queued=len(self.completions) + len(self.collector) + len(self.worker),
            sent=self.collector.sent,
            dropped=self.collector.dropped,
            expired_before_read=self.worker.expired,
            remembered=len(self.predecessors),
            redis_up=self.worker.breaker.closed,
            redis_outages=self.worker.breaker.opened,
            ignored=dict(counters.ignored),
            refused_reads=self._refusals.reads,
            refused_writes=self._refusals.writes,
            redis_refusal=self._refusals.reason,
            cache_failures=self._cache.failures if self._cache else 0,
            internal_errors=counters.errors,
            functions=self.history.functions[0],
            functions_forgotten=self.history.functions[1],
            skipped=self.worker.skipped,
            workflow_dropped=self.worker.workflow_dropped,
            workflows=tuple(self._tracker.in_progress(_SHOWN)),
        )

    def record_internal_error(self, where: str) -> None:
        """Our own failure: counted, and shown once."""
        if self.counters.failed() == 1:
            _log.exception("malearn failed in %s and went on", where)

    def count_internal_error(self, what: str) -> None:
        """An odd argument, which raised nothing: counted likewise, and shown once."""
        if self.counters.failed() == 1:
            _log.error("malearn was asked something odd in %s and went on", what)

    def after_fork(self) -> None:
        """Go on in a child process, which has none of the parent's threads."""
        self._start_lock = threading.Lock()
        self.follower.after_fork()
        self.counters.renew_locks()
        self.history.renew_locks()
        self._tracker.renew_locks()
        self.models.renew_locks()
        self.completions.renew_locks()
        self.completions.drain()  # what the parent reported is known here, but not ours to send
        # After the drain, since it empties the collector of what is the parent's to send.
        self.worker.abandon()
        if self._learning is not None:
            self._learning.after_fork()

    def close(self, timeout: float) -> None:
        """Send what was collected, for `timeout` seconds at most, and stop. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        process_hooks.remove(self)
        self.follower.stop()
        self.worker.close(timeout)
        if self._learning is not None:
            self._learning.close(timeout)
        if (lost := self.collector.dropped) > 0:
            _log.warning("%s could not be sent to Redis", text.counted(lost, "finished task"))

    def _on_record(self, task_id: str, function: str | None, raw: bytes) -> None:
        self.complete(completions.read(task_id, raw, function))
        self.completions.drain_yielding()

    def _warm(self, model: Model) -> None:
        """Start from the model's own recent observations, and scores of workflows, where nothing
        else is known.

        What a generic tool type's model was trained on becomes its features.
        """
        self._tracker.warm(model.metadata.workflow_scores, model.metadata.trained_until)
        tool_type = self.tool_types.take_features(model.tool_type, model.metadata.features)
        # What was observed here or shared by others is newer than what a model carries.
        if tool_type is None or self.history.knows(model.tool_type):
            return
        rows = stream_format.recent(model.metadata.recent, model.metadata.features, tool_type)
        self.history.restore(rows)

    def _use(self, loaded: OnnxModel, version: int) -> None:
        """Answer from a model that was fitted in this process."""
        self.models.use(loaded, version)

    def _declare(self, tool_types: ToolTypes) -> None:
        """Answer for `tool_types` from now on."""
        # What was read and answered so far stands in the order of the old declaration.
        self.completions.drain()
        self.predicted.clear()
        self.tool_types.current = tool_types
        self.predecessors.declare(tool_types)
        if self._learning is not None:
            self._learning.declare(tool_types)
        self.models.declare(tool_types)
