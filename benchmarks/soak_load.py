"""The load of a soak: one scheduler's process that asks and reports at a steady rate.

    python -m benchmarks.soak_load REDIS_URL TRACKING_URI CACHE RATE [METRICS_PORT]

runs until its standard input is closed, and prints a line of JSON a second: memory, descriptors,
latency, and the predictor's own counters; the last one after `close()`.
"""

from __future__ import annotations

import gc
import json
import math
import os
import select
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from malearn import DAGTaskPredictor
from malearn.kernel import tool_types
from malearn.serving import prometheus
from malearn.serving.stats import Stats

#: Tasks of one run: the first is finished before the others are asked for.
_TASKS = 5
_FUNCTIONS = 300  # names of functions, which come and go


def main(arguments: Sequence[str]) -> None:
    redis_url, tracking_uri, cache, rate, *metrics = arguments
    types = tool_types.declared()
    predictor = DAGTaskPredictor(
        redis_url, tracking_uri or None, cache_dir=cache, refresh_interval=1.0
    )
    stop = prometheus.expose(predictor.stats, int(metrics[0])) if metrics else None
    latencies, wrong, runs, began = list[float](), 0, 0, time.time()
    shown = began
    while not select.select([sys.stdin], [], [], 0)[0]:
        runs += 1
        for name, tool_type in types.items():
            latencies, wrong = _run(predictor, name, tool_type, runs, latencies, wrong)
        # In step with the clock, not with the machine.
        time.sleep(max(0.0, began + runs * _TASKS * len(types) / float(rate) - time.time()))
        if time.time() - shown >= 1.0:
            shown = time.time()
            _show(predictor.stats(), latencies, wrong)
            latencies = []
    if stop is not None:
        stop()
    predictor.close()
    gc.collect()
    _show(predictor.stats(), latencies, wrong)


def _run(
    predictor: DAGTaskPredictor,
    name: str,
    tool_type: tool_types.ToolType,
    number: int,
    latencies: list[float],
    wrong: int,
) -> tuple[list[float], int]:
    """One run of one tool type: each task is asked for, then reported as finished."""
    run = f"{number:08x}-0000-4000-8000-{abs(hash((name, os.getpid()))) % 16**12:012x}"
    share = (number % 50 + 1) / 51
    features = {
        f.name: round(f.minimum + share * (min(f.maximum, 1000.0) - f.minimum))
        for f in tool_type.features
    }
    before: list[str] = []
    for step in range(_TASKS):
        function = f"task{step}_{name}_{number % _FUNCTIONS}"
        asked = time.perf_counter()
        answer = predictor.estimate(function, tool_type.resource, before, features=features)
        latencies.append(time.perf_counter() - asked)
        ok = math.isfinite(answer.seconds) and 0.0 < answer.low <= answer.seconds <= answer.high
        wrong += not ok
        end = time.time()
        record = {
            "dag_id": run,
            "start_time": end - 1.0 - number % 7,
            "end_time": end,
            "status": "success",
            "curr_task_feat": features,
        }
        before = [f"{run}-{function}"]
        predictor.collect_data_for_task(before[0], function, record)
    return latencies, wrong


def _show(stats: Stats, latencies: list[float], wrong: int) -> None:
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  no Path in a loop
        pages = int(file.read().split()[1])
    sample: dict[str, Any] = {
        "rss": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "median": float(np.median(latencies)) if latencies else None,
        "p99": float(np.quantile(latencies, 0.99)) if latencies else None,
        "slowest": max(latencies, default=None),
        "wrong": wrong,
        "calls": stats.calls,
        "sources": dict(stats.sources),
        "collected": stats.collected,
        "sent": stats.sent,
        "dropped": stats.dropped,
        "queued": stats.queued,
        "rejected": dict(stats.rejected),
        "outages": stats.redis_outages,
        "swaps": stats.swaps,
        "errors": stats.internal_errors,
        "versions": {name: model.version for name, model in stats.models.items()},
    }
    print(json.dumps(sample), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
