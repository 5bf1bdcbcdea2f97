"""A predictor's statistics as Prometheus reads them.

`expose(predictor.stats, port)` needs the package `prometheus-client`, which a scheduler
that wants an endpoint installs; nothing else here does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from malearn.kernel.prediction import Source
from malearn.kernel.records import RejectReason
from malearn.serving.stats import Stats

__all__ = ["StatsCollector", "expose"]


class StatsCollector:
    """Reads `stats` at each scrape; for a registry of `prometheus-client`."""

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily

        stats = self._stats()
        sources = {**_SOURCES, **stats.sources}
        reasons = {**_REASONS, **stats.reasons}
        rejected = {**_REJECTED, **stats.rejected}
        yield _by("malearn_predictions", "Answers by source.", "source", sources)
        yield _by("malearn_fallbacks", "Why no model answered.", "reason", reasons)
        yield _by("malearn_rejected", "Tasks not learnt from.", "reason", rejected)
        yield _by(
            "malearn_ignored", "Observations from Redis not believed.", "reason", stats.ignored
        )
        for name, help_text, value in _COUNTERS:
            yield _one(f"malearn_{name}", help_text, getattr(stats, value))
        seconds = HistogramMetricFamily("malearn_call_seconds", "Duration of a call.")
        seconds.add_metric([], _cumulative(stats.latency), stats.latency_sum)
        yield seconds
        version = GaugeMetricFamily(
            "malearn_model_version", "Version served.", labels=["tool_type"]
        )
        age = GaugeMetricFamily(
            "malearn_model_age_seconds", "Time since it was loaded.", labels=["tool_type"]
        )
        for tool_type, model in stats.models.items():
            version.add_metric([tool_type], model.version)
            age.add_metric([tool_type], model.age)
        yield version
        yield age
        yield GaugeMetricFamily("malearn_queue", "Tasks waiting to be sent.", stats.queued)
        yield GaugeMetricFamily("malearn_redis_up", "Whether Redis answers.", stats.redis_up)
        yield GaugeMetricFamily("malearn_functions", "Functions remembered.", stats.functions)
        refusing = stats.redis_refusal is not None
        yield GaugeMetricFamily("malearn_redis_refusing", "Whether it refuses commands.", refusing)
        yield from _workflows(stats)


def _workflows(stats: Stats) -> Iterator[Any]:
    """What is known of each workflow in progress."""
    from prometheus_client.core import GaugeMetricFamily

    shown = stats.workflows
    end, low, high = ([w.expected_end[place] for w in shown] for place in range(3))
    progress, late = [w.progress for w in shown], [w.late for w in shown]
    for name, help_text, values in (
        ("malearn_workflow_progress", "Share of a workflow's work that is done.", progress),
        ("malearn_workflow_expected_end", "When it ends, unless it waits.", end),
        ("malearn_workflow_expected_end_low", "Low end of the 80 % interval.", low),
        ("malearn_workflow_expected_end_high", "High end of the 80 % interval.", high),
        ("malearn_workflow_late_probability", "How likely it misses its deadline.", late),
    ):
        gauge = GaugeMetricFamily(name, help_text, labels=["run_id"])
        for workflow, value in zip(shown, values, strict=True):
            # `late` of a workflow without a deadline has no sample, rather than a false 0.
            if value is not None:
                gauge.add_metric([workflow.run_id], value)
        yield gauge


#: 0 for what has not happened yet: Prometheus sees no increase, and raises no alert, where the
#: first sample of a counter is already more.
_SOURCES: dict[str, int] = dict.fromkeys(get_args(Source), 0)
_REASONS = dict.fromkeys(
    (
        "unmapped_function",
        "no_model",
        "redis_down",
        "redis_busy",
        "redis_slow",
        "redis_failed",
        "out_of_time",
        "internal_error",
    ),
    0,
)
_REJECTED = dict.fromkeys(map(str, RejectReason), 0)

#: Metric, its help, and the field of `Stats` that it shows.
_COUNTERS = (
    ("collected", "Finished tasks reported.", "collected"),
    ("sent", "Finished tasks sent to the stream.", "sent"),
    ("dropped", "Finished tasks that found no room.", "dropped"),
    ("expired_before_read", "Records gone before they were read.", "expired_before_read"),
    ("redis_outages", "Times that Redis stopped answering.", "redis_outages"),
    ("refused_reads", "Commands to read that Redis refused.", "refused_reads"),
    ("refused_writes", "Commands to write that Redis refused.", "refused_writes"),
    ("model_swaps", "Models replaced while serving.", "swaps"),
    ("cache_failures", "Models that could not be cached.", "cache_failures"),
    ("functions_forgotten", "Functions forgotten for want of room.", "functions_forgotten"),
    ("observations_skipped", "Others' tasks beyond what is followed.", "skipped"),
    ("workflow_dropped", "What of workflows found no room.", "workflow_dropped"),
    ("internal_errors", "Failures of malearn itself.", "internal_errors"),
)


def expose(stats: Callable[[], Stats], port: int, address: str = "127.0.0.1") -> Callable[[], None]:
    """Serve `http://address:port/metrics`; returns what stops it.

    `stats` is a predictor's method. Raises ImportError, saying what to install,
    without `prometheus-client`.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError as error:
        raise ImportError("A metrics endpoint needs: pip install prometheus-client") from error
    registry = CollectorRegistry()
    registry.register(StatsCollector(stats))
    server, thread = start_http_server(port, address, registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


def _one(name: str, help_text: str, value: float) -> Any:
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(name, help_text, value)


def _by(name: str, help_text: str, label: str, counts: Mapping[str, int]) -> Any:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, help_text, labels=[label])
    for key, count in counts.items():
        family.add_metric([key], count)
    return family


def _cumulative(latency: Mapping[float, int]) -> list[tuple[str, int]]:
    total, buckets = 0, []
    for bound, count in latency.items():
        total += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
    return buckets
