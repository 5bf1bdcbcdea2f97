"""What the HTTP service counts, beside its predictor's statistics, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from malearn.integrations.http.held_workflows import HeldWorkflows
from malearn.serving.predictor import DAGTaskPredictor
from malearn.serving.prometheus import StatsCollector

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Seconds. Prometheus' default buckets begin at 5 ms, where most answers are long over.
_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)


class Metrics:
    """A registry of its own: requests by route and status, their duration, and the predictor's."""

    def __init__(self, predictor: DAGTaskPredictor, workflows: HeldWorkflows) -> None:
        # Not the default registry, which the whole process shares: a second app would fail on it.
        self._registry = CollectorRegistry()
        self._registry.register(StatsCollector(predictor.stats))
        self._registry.register(_WorkflowCollector(workflows))
        self._requests = Counter(
            "malearn_http_requests",
            "Requests by route and HTTP status.",
            ["route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "malearn_http_request_seconds",
            "Duration of a request, its body included.",
            ["route"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        # Looking up a label takes as long as counting; there are few of them.
        self._children: dict[tuple[str, int], tuple[Any, Any]] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        try:
            counter, histogram = self._children[route, status]
        except KeyError:
            counter = self._requests.labels(route, str(status))
            histogram = self._seconds.labels(route)
            self._children[route, status] = counter, histogram
        counter.inc()
        histogram.observe(seconds)

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)


class _WorkflowCollector:
    def __init__(self, workflows: HeldWorkflows) -> None:
        self._workflows = workflows

    def collect(self) -> Iterator[Any]:
        held, dropped = len(self._workflows), self._workflows.dropped
        yield GaugeMetricFamily("malearn_http_workflows", "Workflows held.", held)
        yield CounterMetricFamily(
            "malearn_http_workflows_dropped", "Workflows that made room for others.", dropped
        )
