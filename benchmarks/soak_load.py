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

from malearn import DAGTaskPredictor, Workflow
from malearn.kernel import tool_types
from malearn.serving import prometheus
from malearn.serving.stats import Stats

#: Tasks of one run: the first is finished before the others are asked for.
_TASKS = 5
_STEPS, _STEP_SECONDS = 4, 5.0  # of a workflow, one task after the other
_FUNCTIONS = 300  # names of functions, which come and go


def main(arguments: Sequence[str]) -> None:
    redis_url, tracking_uri, cache, rate, *metrics = arguments
    types = tool_types.declared()
    predictor = DAGTaskPredictor(
        redis_url, tracking_uri or None, cache_dir=cache, refresh_interval=1.0
    )
    stop = prometheus.expose(predictor.stats, int(metrics[0])) if metrics else None
    workflows = _Workflows(predictor)
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
            wrong += workflows.step(shown)
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


class _Workflows:
    """One workflow begins at each step, about a second apart, and takes 20 of them: every fifth
    misses its deadline."""

    def __init__(self, predictor: DAGTaskPredictor) -> None:
        self._predictor, self._begun = predictor, 0
        self._going: list[tuple[Workflow, float]] = []
        self._reported: set[str] = set()

    def step(self, now: float) -> int:
        """Begin one, report what has ended by `now`, ask about all; how many answers are wrong."""
        self._begun += 1
        run = f"{self._begun:08x}-0000-4000-9000-{os.getpid():012x}"
        names = [f"{run}-task{number}_llm_process_whole" for number in range(_STEPS)]
        before = [[], *([name] for name in names)]
        shape = {n: (n[37:], "gpu", b) for n, b in zip(names, before, strict=False)}
        allowed = 0.6 if self._begun % 5 == 0 else 2.0
        deadline = now + allowed * _STEPS * _STEP_SECONDS
        self._going.append((Workflow(run, shape, now, deadline), now))
        queue = [(one, self._running(one, began, now), ()) for one, began in self._going]
        ended = now - _STEPS * _STEP_SECONDS
        for workflow, began in self._going:
            if began <= ended:
                self._reported.difference_update(workflow.order)
        self._going = [going for going in self._going if going[1] > ended]
        found = self._predictor.estimate_workflows(queue, now)
        return sum(not 0.0 <= one.low <= one.seconds <= one.high < math.inf for one in found)

    def _running(self, workflow: Workflow, began: float, now: float) -> dict[str, float]:
        """The task that runs now, and since when, once those before it are reported."""
        for number, task_id in enumerate(workflow.order):
            start = began + number * _STEP_SECONDS
            if now < start + _STEP_SECONDS:
                return {task_id: start}
            if task_id not in self._reported:
                self._reported.add(task_id)
                times = {"start_time": start, "end_time": start + _STEP_SECONDS}
                record = {"status": "success", **times}
                self._predictor.collect_data_for_task(task_id, task_id[37:], record)
        return {}


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
