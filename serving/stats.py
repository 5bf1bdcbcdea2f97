"""A predictor's counters, and the snapshot of them that `stats()` gives."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from malearn.kernel.workflows.workflow_status import WorkflowStatus

__all__ = ["BUCKETS", "CallCounters", "ModelStats", "Stats"]

#: Upper bounds of the latency histogram, in seconds; above the last lies the rest.
# Up to twice the default budget of 50 ms, so that calls which overran it are told from the rest.
BUCKETS = (10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1)


@dataclass(frozen=True, slots=True)
class ModelStats:
    """One model in use; `age` is seconds since it was loaded."""

    version: int
    family: str
    age: float


@dataclass(frozen=True, slots=True)
class Stats:
    """What a predictor did since it was built, and what it serves now.

    `sources` counts answers by source, `reasons` why no model gave them; `latency` counts calls
    by upper bound of their duration, `latency_sum` is in seconds. `queued`, `sent` and `dropped`
    count finished tasks on their way to the stream; `expired_before_read` records that were gone
    before they were read. `rejected` are reported tasks that teach nothing, `ignored`
    observations from Redis that are rejected, both by reason. `redis_refusal` is what Redis
    refuses now, in words, None where it refuses nothing. `functions` are remembered, each of their
    contexts counted, `functions_forgotten` had to make room for others; `skipped` are entries of
    the stream that were passed over because too many came at once; `workflow_dropped` counts what
    of workflows (statuses, scores, hints, shapes, outcomes) found no room while Redis took none,
    or was unsent when the predictor was closed.
    """

    calls: int
    sources: Mapping[str, int]
    reasons: Mapping[str, int]
    latency: Mapping[float, int]
    latency_sum: float
    models: Mapping[str, ModelStats]
    refused: Mapping[str, str]
    swaps: int
    refresh_failures: int
    refresh_age: float | None
    collected: int
    rejected: Mapping[str, int]
    queued: int
    sent: int
    dropped: int
    expired_before_read: int
    remembered: int
    redis_up: bool
    redis_outages: int
    ignored: Mapping[str, int]
    refused_reads: int
    refused_writes: int
    redis_refusal: str | None
    cache_failures: int
    internal_errors: int
    workflows: tuple[WorkflowStatus, ...] = ()
    functions: int = 0
    functions_forgotten: int = 0
    skipped: int = 0
    workflow_dropped: int = 0


class CallCounters:
    """Counters that threads share. Each method holds the lock for less than a microsecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.sources: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.latency = [0] * (len(BUCKETS) + 1)
        self.latency_sum = 0.0
        self.calls = self.collected = self.errors = 0

    def answered(self, source: str, reason: str, seconds: float) -> None:
        """One answer from `source`, after `seconds`; `reason` is empty where it is the best."""
        # Outside the lock, for which every caller may have to wait.
        bucket = bisect_left(BUCKETS, seconds)
        with self._lock:
            self.calls += 1
            self.sources[source] += 1
            if reason:
                self.reasons[reason] += 1
            self.latency[bucket] += 1
            self.latency_sum += seconds

    def answered_many(self, sources: Counter[str], reasons: Counter[str], seconds: float) -> None:
        """Many answers of one call that took `seconds`."""
        with self._lock:
            self.calls += 1
            self.sources.update(sources)
            self.reasons.update(reasons)
            self.latency[bisect_left(BUCKETS, seconds)] += 1
            self.latency_sum += seconds

    def took(self, rejected: str = "") -> None:
        """One finished task was reported, and perhaps rejected."""
        with self._lock:
            self.collected += 1
            if rejected:
                self.rejected[rejected] += 1

    def reject(self, reason: str) -> None:
        """Nothing is learnt from a finished task that was reported before."""
        with self._lock:
            self.rejected[reason] += 1

    def ignore(self, reason: str) -> None:
        """One observation from Redis was rejected."""
        with self._lock:
            self.ignored[reason] += 1

    def failed(self) -> int:
        """Count a failure of our own; returns how many there were."""
        with self._lock:
            self.errors += 1
            return self.errors

    def renew_locks(self) -> None:
        """After a fork nobody holds what another thread held."""
        self._lock = threading.Lock()
