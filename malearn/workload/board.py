"""Which tasks can start: each when all that it waits for has finished."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from malearn.workload.job import Job, Material, Run

__all__ = ["Board"]


class Board:
    """Which tasks can start, wait or are done. Earlier runs go first."""

    __slots__ = ("_given", "_ready", "_runs", "left")

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = {run.run_id: (order, run) for order, run in enumerate(runs)}
        self._given: dict[str, dict[str, dict[str, Material]]] = {}
        self._ready: list[tuple[int, int, str, str]] = []
        self.left = 0
        for run in runs:
            steps = run.workflow.steps
            self.left += len(steps)
            self._given[run.run_id] = {step.function: {} for step in steps}
            self._release(run, [step.function for step in steps])

    def take(self) -> Job | None:
        """The next task whose predecessors all finished; None while there is none."""
        if not self._ready:
            return None
        _, _, run_id, function = heapq.heappop(self._ready)
        given = self._given[run_id].pop(function)
        run = self._runs[run_id][1]
        after = run.workflow.step(function).after
        return Job(run, function, {name: given[name] for name in after})

    def finish(self, job: Job, gives: Mapping[str, Material]) -> None:
        """Hand what `job` gave to its successors; those that have all can start."""
        self.left -= 1
        for successor in job.successors:
            self._given[job.run.run_id][successor][job.function] = gives[successor]
        self._release(job.run, job.successors)

    def _release(self, run: Run, functions: Sequence[str]) -> None:
        """Those of `functions` that wait for nothing more can start."""
        given = self._given[run.run_id]
        for index, step in enumerate(run.workflow.steps):
            if step.function in functions and len(given[step.function]) == len(step.after):
                order = self._runs[run.run_id][0]
                heapq.heappush(self._ready, (order, index, run.run_id, step.function))
