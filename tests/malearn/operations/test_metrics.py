"""`/metrics` and `/health` show what the platform does, to this machine alone."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import redis

from malearn.kernel.home import Home
from malearn.operations.endpoint import Endpoint
from malearn.operations.metric_store import MetricStore, Sample
from malearn.operations.metrics import METRICS, PlatformMetrics, ServiceHealth

NOWHERE = "http://127.0.0.1:1"


class Services:
    """What a supervisor would say."""

    def __init__(self) -> None:
        self.health = [ServiceHealth("Redis", True), ServiceHealth("MLflow", True, restarts=2)]

    def __call__(self) -> list[ServiceHealth]:
        return self.health


@pytest.fixture
def services() -> Services:
    return Services()


@pytest.fixture
def address(
    home: Home, services: Services, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The endpoint of a home whose Redis is up, and whose MLflow and Prefect are away."""
    home.root.mkdir()
    monkeypatch.setenv("MALEARN_REDIS_URL", redis_url)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    monkeypatch.setenv("PREFECT_API_URL", f"{NOWHERE}/api")
    with Endpoint(PlatformMetrics(home, services), 0) as endpoint:
        yield endpoint.url


def ask(address: str, path: str, host: str | None = None) -> tuple[int, str]:
    place = urlsplit(address).netloc
    connection = http.client.HTTPConnection(place, timeout=30)
    connection.request("GET", path, headers={"Host": host or place})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def test_the_stream_the_services_and_what_flows_left_are_shown(
    address: str, home: Home, redis_client: redis.Redis
) -> None:
    ten_minutes_ago = int(time.time() * 1000) - 600_000
    for n in range(3):
        redis_client.xadd("malearn:executions", {"e": "x"}, id=f"{ten_minutes_ago}-{n + 1}")
    rejected = Sample("malearn_rejected_records", {"reason": "no_times"}, 2)
    for _ in range(2):
        MetricStore(home).update(add=[rejected])
    status, text = ask(address, "/metrics")
    lines = text.splitlines()
    assert status == 200
    assert "malearn_stream_entries 3.0" in lines
    assert 'malearn_service_restarts_total{service="MLflow"} 2.0' in lines
    assert 'malearn_rejected_records_total{reason="no_times"} 4.0' in lines
    (lag,) = (line for line in lines if line.startswith("malearn_ingest_lag_seconds "))
    assert 599 < float(lag.split()[1]) < 1200
    assert {f"# HELP {n}" + "_total" * (kind == "counter") for n, (kind, _) in METRICS.items()} <= {
        " ".join(line.split()[:3]) for line in lines
    }


def test_what_has_not_happened_yet_is_shown_as_0(address: str, home: Home) -> None:
    """Prometheus sees no increase where the first sample of a counter is already more."""
    decided = {"tool_type": "llm_process", "decision": "promoted"}
    MetricStore(home).update(add=[Sample("malearn_gate_decisions", decided, 2)])
    lines = ask(address, "/metrics")[1].splitlines()
    for line in (
        "malearn_lost_entries_total 0.0",
        'malearn_rejected_records_total{reason="no_times"} 0.0',
        'malearn_ingested_records_total{outcome="accepted",tool_type="llm_process"} 0.0',
        'malearn_gate_decisions_total{decision="promoted",tool_type="llm_process"} 2.0',
        'malearn_gate_decisions_total{decision="refused",tool_type="llm_process"} 0.0',
        'malearn_monitor_checks_total{action="roll_back",tool_type="vlm_process"} 0.0',
    ):
        assert lines.count(line) == 1, line


def test_a_source_that_is_away_is_named_and_the_rest_is_shown(address: str) -> None:
    lines = ask(address, "/metrics")[1].splitlines()
    assert 'malearn_source_up{source="Redis"} 1.0' in lines
    assert 'malearn_source_up{source="MLflow"} 0.0' in lines
    assert 'malearn_source_up{source="Prefect"} 0.0' in lines


def test_health_is_503_while_a_service_is_down(address: str, services: Services) -> None:
    assert ask(address, "/health")[0] == 200
    services.health.append(ServiceHealth("Prefect", False))
    status, text = ask(address, "/health")
    said = json.loads(text)
    assert (status, said["healthy"]) == (503, False)
    assert said["services"]["Prefect"] == {"up": False, "restarts": 0}
    assert ask(address, "/live") == (200, "alive\n")


@pytest.mark.parametrize("host", ["evil.example.com", "evil.example.com:80", "10.0.0.1:9464", ""])
def test_a_foreign_host_is_refused(address: str, host: str) -> None:
    """A page that gave its own name loopback's address reads nothing."""
    place = urlsplit(address).netloc
    connection = http.client.HTTPConnection(place, timeout=30)
    connection.putrequest("GET", "/metrics", skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, b"malearn_" in answer.read()) == (403, False)
    connection.close()


def test_localhost_is_no_foreign_host(address: str) -> None:
    assert ask(address, "/health", f"localhost:{urlsplit(address).port}")[0] == 200


def test_counts_of_flows_that_end_at_once_add_up(home: Home) -> None:
    one = Sample("malearn_lost_entries", {}, 1)
    threads = [
        threading.Thread(target=lambda: [MetricStore(home).update(add=[one]) for _ in range(20)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert MetricStore(home).read() == [Sample("malearn_lost_entries", {}, 80.0)]


def test_figures_that_cannot_be_read_begin_again(home: Home) -> None:
    store = MetricStore(home)
    store.update(put=[Sample("malearn_drifted_inputs", {"tool_type": "a"}, 1)])
    (home.state / "metrics" / "figures.json").write_text("[1")
    store.update(put=[Sample("malearn_drifted_inputs", {"tool_type": "b"}, 2)])
    assert [s.labels["tool_type"] for s in store.read()] == ["b"]
