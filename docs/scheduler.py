"""A small scheduler that runs whole workflows, first in order of arrival, then by what is left.

Two workers, eight queries of three steps each; the work is real, if small. The predictor answers
from what it has: run it with `python docs/scheduler.py`, with or without a Redis and an MLflow.
The first round teaches it how long each step takes; then the same work is done in both orders in
turn, of arrival and least remaining work first. It prints what the second order bought.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from statistics import fmean

from malearn import DAGTaskPredictor, Workflow
from malearn.serving import policies

WORKERS = 2
ROUNDS = 5
#: Blocks hashed by each step of a query, in thousands; some queries are long, most are short.
SIZES = (160, 120, 10, 20, 160, 10, 20, 10)

Policy = Callable[..., policies.Key]


def steps(size: int) -> list[str]:
    """The functions of a query: long ones read more."""
    kind = "book" if size > 100 else "note"
    return [f"task1_read_{kind}", f"task2_llm_process_{kind}", f"task3_llm_fuse_{kind}"]


def query(size: int, now: float) -> Workflow:
    """One query's workflow: each step waits for the one before."""
    run, names = str(uuid.uuid4()), steps(size)
    ids = [f"{run}-{name}" for name in names]
    before: list[list[str]] = [[], *([task_id] for task_id in ids[:-1])]
    tasks = {i: (n, "cpu", b) for i, n, b in zip(ids, names, before, strict=True)}
    return Workflow(run, tasks, arrived=now)


def work(size: int) -> tuple[float, float]:
    """Hash; when it began and ended."""
    started = time.time()
    block = b"block" * 500
    for _ in range(size * 100):
        hashlib.sha256(block).digest()
    return started, time.time()


def schedule(predictor: DAGTaskPredictor, policy: Policy) -> float:
    """Run all queries to their end; the mean seconds from arrival to end."""
    sizes = {(w := query(size, time.time())).run_id: (w, size) for size in SIZES}
    waiting = {run: workflow for run, (workflow, _) in sizes.items()}
    started: dict[str, dict[str, float]] = {run: {} for run in waiting}
    done: dict[str, list[str]] = {run: [] for run in waiting}
    running: dict[Future[tuple[float, float]], tuple[str, str]] = {}
    took: list[float] = []
    with ThreadPoolExecutor(WORKERS) as workers:
        while waiting or running:
            now = time.time()
            # One call for the whole queue: what is left of each workflow.
            queue = [(w, started[run], done[run]) for run, w in waiting.items()]
            left = dict(zip(waiting, predictor.estimate_workflows(queue, now), strict=True))
            ready = [
                (policy(w, left[run], now), run, task_id)
                for run, w in waiting.items()
                for task_id in w.ready(done[run], started[run])
            ]
            for _, run, task_id in sorted(ready)[: WORKERS - len(running)]:
                running[workers.submit(work, sizes[run][1])] = (run, task_id)
                started[run][task_id] = now
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run, task_id = running.pop(future)
                begun, ended = future.result()
                predictor.collect_data_for_task(
                    task_id, record_json={"start_time": begun, "end_time": ended}
                )
                del started[run][task_id]
                done[run].append(task_id)
                if len(done[run]) == len(waiting[run]):
                    arrived = waiting.pop(run).arrived
                    took.append(ended - (arrived or ended))
    return fmean(took)


def main() -> None:
    """Schedule the same work in both orders, and print what the second one bought."""
    orders = {
        "arrival": policies.arrival,
        "least remaining work": partial(policies.shortest_remaining_work, resource="cpu"),
    }
    took: dict[str, list[float]] = {name: [] for name in orders}
    with DAGTaskPredictor() as predictor:
        # In turn: whatever else the machine does slows both.
        for _ in range(ROUNDS):
            for name, policy in orders.items():
                took[name].append(schedule(predictor, policy))
        for name, seconds in took.items():
            print(f"{name:<22} mean completion {fmean(seconds):6.3f} s")
        gain = 1.0 - fmean(took["least remaining work"]) / fmean(took["arrival"])
        print(f"ordered by predictions it is {abs(gain):.0%} {'shorter' if gain > 0 else 'longer'}")
        print(predictor.stats().sources)


if __name__ == "__main__":
    main()
