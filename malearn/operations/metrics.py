"""The platform's metrics: what `/metrics` shows, in Prometheus' form.

Some figures are left by flows (`MetricStore`); the rest is asked for at each scrape: the stream,
the versions in Production, and how many runs of each flow failed. A source that does not answer
leaves out its own figures, and says so in `malearn_source_up`.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from malearn.data import redis_client, stream
from malearn.kernel import tool_types
from malearn.kernel.home import Home
from malearn.kernel.hosts import is_loopback
from malearn.kernel.http_client import HttpClient
from malearn.kernel.records import RejectReason
from malearn.kernel.workflows.workflow_status import WorkflowStatus
from malearn.lifecycle.monitor_decision import Action
from malearn.operations.metric_store import MetricStore, Sample

__all__ = ["FLOWS", "METRICS", "PlatformMetrics", "ServiceHealth"]

#: Names of the flows whose runs are counted.
FLOWS = ("ingest", "lifecycle", "retrain", "maintain", "monitor", "train", "promote")
#: What `/metrics` holds beside what a predictor exposes: name, kind and help.
METRICS: dict[str, tuple[str, str]] = {
    "malearn_service_up": ("gauge", "Whether a service of the platform answers."),
    "malearn_service_restarts": ("counter", "Times that a service was started again."),
    "malearn_source_up": ("gauge", "Whether a source of these figures could be asked."),
    "malearn_stream_entries": ("gauge", "Executions in the stream, waiting for ingestion."),
    "malearn_stream_limit": ("gauge", "Entries from which the stream drops the oldest."),
    "malearn_ingest_lag_seconds": ("gauge", "Age of the oldest execution not yet ingested."),
    "malearn_ingest_timestamp_seconds": ("gauge", "When executions were last ingested."),
    "malearn_ingested_records": ("counter", "Records by tool type and what became of them."),
    "malearn_rejected_records": ("counter", "Records rejected before validation, by reason."),
    "malearn_lost_entries": ("counter", "Entries that left the stream before they were read."),
    "malearn_production_version": ("gauge", "Version that the alias Production names."),
    "malearn_production_age_seconds": ("gauge", "Age of the version in Production."),
    "malearn_gate_decisions": ("counter", "Trained versions, by what the gate decided."),
    "malearn_monitor_checks": ("counter", "Checks of the monitor, by the action they led to."),
    "malearn_monitor_timestamp_seconds": ("gauge", "When the monitor last checked a model."),
    "malearn_live_mae_seconds": ("gauge", "Mean absolute error on new executions, by predictor."),
    "malearn_drifted_inputs": ("gauge", "Inputs and errors in which the last check found drift."),
    "malearn_flow_runs": ("counter", "Runs of a flow, by the state in which they ended."),
    "malearn_disk_free_bytes": ("gauge", "Bytes free below the home."),
}

#: The same as a predictor exposes, of the workflows in progress in Maze's run stores.
_OF_WORKFLOWS = {
    "malearn_workflow_progress": ("gauge", "Share of a workflow's work that is done."),
    "malearn_workflow_expected_end": ("gauge", "When it ends, unless it waits."),
    "malearn_workflow_expected_end_low": ("gauge", "Low end of the 80 % interval."),
    "malearn_workflow_expected_end_high": ("gauge", "High end of the 80 % interval."),
    "malearn_workflow_late_probability": ("gauge", "How likely it misses its deadline."),
}
#: What flows count of each tool type: the metric, a label beside the tool type, and its values.
_COUNTED = (
    ("malearn_ingested_records", "outcome", ("accepted", "quarantined", "outliers")),
    ("malearn_gate_decisions", "decision", ("promoted", "refused")),
    ("malearn_monitor_checks", "action", tuple(map(str, Action))),
)
_MOST_WORKFLOWS = 200  # of which gauges are shown, those likeliest to be late first
_PATIENCE = 5.0  # seconds for one answer of a server
_FRESH = 10.0  # seconds for which answers of servers are used again
_ENDED = {"COMPLETED": "completed", "FAILED": "failed", "CRASHED": "crashed"}
#: Bytes read of one answer: a server that is not ours may send anything.
_LARGEST = 2**20
_log = logging.getLogger("malearn.operations")


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """One service of the platform: whether it answers, and how often it was started again."""

    name: str
    up: bool
    restarts: int = 0


class PlatformMetrics:
    """The metrics of one home. `services` gives the health of its services; servers are found in
    the environment, as everywhere. Any thread may ask.
    """

    def __init__(
        self,
        home: Home,
        services: Callable[[], Sequence[ServiceHealth]],
        workflows: Callable[[], Sequence[WorkflowStatus]] | None = None,
    ) -> None:
        self._home, self._services, self._workflows = home, services, workflows
        self._lock = threading.Lock()
        # The monotonic clock may begin at 0 with the machine: the first scrape asks all the same.
        self._asked, self._answers = -_FRESH, list[Sample]()

    def health(self) -> dict[str, Any]:
        """Whether every service answers, and which does not, for `/health`."""
        services = self._services()
        return {
            "healthy": all(service.up for service in services),
            "services": {s.name: {"up": s.up, "restarts": s.restarts} for s in services},
        }

    def text(self) -> bytes:
        """Everything, in Prometheus' text form."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Families(self.samples()))
        return generate_latest(registry)

    def samples(self) -> list[Sample]:
        """All figures; those of servers are asked for once in `_FRESH` seconds."""
        # Held while servers are asked: scrapes that meet wait for one answer, not for one each.
        with self._lock:
            if time.monotonic() - self._asked >= _FRESH:
                self._answers, self._asked = list(self._ask()), time.monotonic()
        return [*self._own(), *_with_zeros(MetricStore(self._home).read()), *self._answers]

    def _own(self) -> Iterator[Sample]:
        for service in self._services():
            labels = {"service": service.name}
            yield Sample("malearn_service_up", labels, service.up)
            yield Sample("malearn_service_restarts", labels, service.restarts)
        # f_bavail, not f_bfree: what is reserved for root is of no use to our servers.
        disk = os.statvfs(self._home.root)
        yield Sample("malearn_disk_free_bytes", {}, disk.f_bavail * disk.f_frsize)

    def _ask(self) -> Iterator[Sample]:
        sources = {"Redis": _stream, "MLflow": _production, "Prefect": _flow_runs}
        if self._workflows is not None:
            known = self._workflows
            sources["Maze"] = lambda: _of_workflows(known()[:_MOST_WORKFLOWS])
        for name, source in sources.items():
            try:
                found = list(source())
            except Exception as error:  # noqa: BLE001  whatever a server answers, the rest is shown
                _log.debug("No metrics of %s: %s", name, error)
                yield Sample("malearn_source_up", {"source": name}, 0)
                continue
            yield Sample("malearn_source_up", {"source": name}, 1)
            yield from found


class _Families:
    """A collector of `prometheus-client`: every declared metric, with its samples."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = list(samples)

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
        for name, (kind, text) in (METRICS | _OF_WORKFLOWS).items():
            found = [sample for sample in self._samples if sample.name == name]
            names = sorted({label for sample in found for label in sample.labels})
            family = kinds[kind](name, text, labels=names)
            for sample in found:
                labels = [sample.labels.get(label, "") for label in names]
                family.add_metric(labels, sample.value)
            yield family


def _with_zeros(stored: Sequence[Sample]) -> Iterator[Sample]:
    """`stored`, and 0 for what has not happened yet: Prometheus sees no increase, and raises no
    alert, where the first sample of a counter is already more.
    """
    known = {(sample.name, frozenset(sample.labels.items())) for sample in stored}
    yield from stored
    for name, labels in _counted():
        if (name, frozenset(labels.items())) not in known:
            yield Sample(name, labels, 0)


def _counted() -> Iterator[tuple[str, dict[str, str]]]:
    """What flows count, with its labels."""
    yield "malearn_lost_entries", {}
    for reason in RejectReason:
        yield "malearn_rejected_records", {"reason": str(reason)}
    for tool_type in tool_types.declared():
        for metric, label, values in _COUNTED:
            for value in values:
                yield metric, {"tool_type": tool_type, label: value}


def _stream() -> Iterator[Sample]:
    url = os.environ[redis_client.REDIS_SETTING]
    keys = stream.existing(url)
    states = [stream.state_of(url, key) for key in keys]
    yield Sample("malearn_stream_entries", {}, sum(state.length for state in states))
    yield Sample("malearn_stream_limit", {}, sum(state.limit for state in states))
    with redis_client.connected(url) as client:
        answers: list[Any] = [client.xrange(key, count=1) for key in keys]
    oldest = [entry for entries in answers for entry in entries]
    now = time.time()
    # Redis begins an entry's id with the milliseconds since the epoch when it was added.
    lags = (now - int(entry_id.split(b"-")[0]) / 1e3 for entry_id, _ in oldest)
    yield Sample("malearn_ingest_lag_seconds", {}, max([0.0, *lags]))


def _of_workflows(shown: Sequence[WorkflowStatus]) -> Iterator[Sample]:
    for one in shown:
        end, low, high = one.expected_end
        values = {
            "progress": one.progress,
            "expected_end": end,
            "expected_end_low": low,
            "expected_end_high": high,
            "late_probability": one.late,
        }
        for name, value in values.items():
            # `late` of a workflow without a deadline has no sample, rather than a false 0.
            if value is not None:
                yield Sample(f"malearn_workflow_{name}", {"run_id": one.run_id}, value)


def _production() -> Iterator[Sample]:
    client = HttpClient(os.environ["MLFLOW_TRACKING_URI"], _PATIENCE)
    for name, tool_type in tool_types.declared().items():
        model = quote(tool_type.registered_model)
        path = f"/api/2.0/mlflow/registered-models/alias?name={model}&alias=Production"
        answer = client.get(path, _LARGEST, time.monotonic() + _PATIENCE)
        if answer.status in (400, 404):  # MLflow's answer where there is no such alias
            continue
        version = json.loads(answer.body)["model_version"]
        # Milliseconds, as a string: MLflow's JSON follows protobuf, which writes 64-bit numbers so.
        age = time.time() - int(version["creation_timestamp"]) / 1e3
        yield Sample("malearn_production_version", {"tool_type": name}, int(version["version"]))
        yield Sample("malearn_production_age_seconds", {"tool_type": name}, max(age, 0.0))


def _flow_runs() -> Iterator[Sample]:
    url = os.environ["PREFECT_API_URL"].rstrip("/")
    here = is_loopback(urlsplit(url).hostname or "")
    # Plain HTTP: importing Prefect's client costs seconds and 80 MB. A proxy of the environment
    # cannot reach this machine's loopback.
    opener = build_opener(ProxyHandler({})) if here else build_opener()
    headers = {"Content-Type": "application/json"}
    # A server of one's own asks for the login, Prefect Cloud for the key.
    if login := os.environ.get("PREFECT_API_AUTH_STRING", ""):
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    elif key := os.environ.get("PREFECT_API_KEY", ""):
        headers["Authorization"] = f"Bearer {key}"
    for flow in FLOWS:
        for state, shown in _ENDED.items():
            which = {
                "flows": {"name": {"any_": [flow]}},
                "flow_runs": {"state": {"type": {"any_": [state]}}},
            }
            asked = Request(f"{url}/flow_runs/count", json.dumps(which).encode(), headers)
            with opener.open(asked, timeout=_PATIENCE) as answer:
                count = int(answer.read(_LARGEST))
            yield Sample("malearn_flow_runs", {"flow": flow, "state": shown}, count)
