"""A small scheduler that runs the ready task with the highest DAPS score first.

Two workers, a few queries of three steps each; the work is real, if small.
Run it with `python docs/scheduler.py`, with or without a Redis and an MLflow:
the predictor answers from what it has.
"""

from __future__ import annotations

import hashlib
import heapq
import time
import uuid
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from malearn import DAGTaskPredictor
from malearn.serving import daps

STEPS = ("task1_read", "task2_llm_process_draft", "task3_llm_process_answer")
QUERIES = {str(uuid.uuid4()): size for size in (40, 10, 160, 80)}


def work(size: int) -> tuple[float, float]:
    """Hash so many times ten thousand blocks; when it began and ended."""
    started = time.time()
    for _ in range(size * 10_000):
        hashlib.sha256(b"block").digest()
    return started, time.time()


def main() -> None:
    """Schedule every query's steps to their end."""
    with DAGTaskPredictor() as predictor, ThreadPoolExecutor(2) as workers:
        ready: list[tuple[float, str, int]] = []
        running: dict[Future[tuple[float, float]], tuple[str, int]] = {}

        def make_ready(run: str, step: int) -> None:
            before = [f"{run}-{STEPS[step - 1]}"] if step else []
            seconds = predictor.predict(STEPS[step], "cpu", before)
            remaining = len(STEPS) - step
            rank = daps.score(
                daps.urgency(remaining, len(STEPS)),
                daps.criticality(seconds, expected_dag_seconds=seconds * remaining),
            )
            heapq.heappush(ready, (-rank, run, step))
            print(f"{run[:8]} {STEPS[step]:<26} expected {seconds:6.2f} s, score {rank:.2f}")

        for run in QUERIES:
            make_ready(run, 0)
        while ready or running:
            while ready and len(running) < 2:
                _, run, step = heapq.heappop(ready)
                running[workers.submit(work, QUERIES[run])] = (run, step)
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                run, step = running.pop(done)
                started, ended = done.result()
                size = {"text_length": QUERIES[run] * 1000, "token_count": QUERIES[run] * 200}
                after = {STEPS[step + 1]: size} if step + 1 < len(STEPS) else {}
                record = {
                    "start_time": started,
                    "end_time": ended,
                    "curr_task_feat": size,
                    "succ_task_feat": after,
                }
                predictor.collect_data_for_task(f"{run}-{STEPS[step]}", STEPS[step], record)
                if after:
                    make_ready(run, step + 1)
        print(predictor.stats().sources)


if __name__ == "__main__":
    main()
