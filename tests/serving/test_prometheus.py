"""Prometheus reads from a predictor what `stats()` says."""

from __future__ import annotations

import socket
from typing import Any
from urllib.request import urlopen

from malearn.serving import prometheus


def test_an_endpoint_tells_what_stats_tell(predictor: Any, record: Any) -> None:
    p = predictor()
    p.predict("nobody_knows", "gpu", [])
    p.collect_data_for_task("t", "step", record(status="failed"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stop = prometheus.expose(p.stats, port)
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            page = response.read().decode()
    finally:
        stop()
    assert 'malearn_predictions_total{source="heuristic"} 1.0' in page
    assert 'malearn_fallbacks_total{reason="unmapped_function"} 1.0' in page
    assert 'malearn_rejected_total{reason="soft_failed"} 1.0' in page
    assert 'malearn_call_seconds_bucket{le="+Inf"} 1.0' in page
    assert "malearn_queue" in page
    # What has not happened yet is 0, so that Prometheus sees it increase when it does.
    assert 'malearn_predictions_total{source="model"} 0.0' in page
    assert 'malearn_fallbacks_total{reason="redis_down"} 0.0' in page
    assert 'malearn_rejected_total{reason="bad_times"} 0.0' in page
