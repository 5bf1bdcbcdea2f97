"""Which workflows are run on which queries, in which order."""

from __future__ import annotations

import uuid
import zlib
from collections import Counter

import numpy as np

from malearn.workload.job import Run, Workflow
from malearn.workload.model_tasks import MODEL_ACTS
from malearn.workload.workflows import WORKFLOWS

__all__ = ["plan"]

REPLAYED = 0.25  # share of runs that pose an earlier query again, as real logs do


def plan(tasks: int, seed: int) -> tuple[Run, ...]:
    """Runs, their workflows evenly interleaved by share, that hold at least `tasks` typed tasks."""
    dice = np.random.default_rng((seed, tasks))
    credit = dict.fromkeys(WORKFLOWS, 0)
    asked = Counter[str]()
    runs: list[Run] = []
    while tasks > 0:
        for name, workflow in WORKFLOWS.items():
            credit[name] += workflow.share
        name = max(credit, key=credit.__getitem__)
        credit[name] -= sum(workflow.share for workflow in WORKFLOWS.values())
        tasks -= typed(WORKFLOWS[name])
        replay = asked[name] and dice.random() < REPLAYED
        query = int(dice.integers(asked[name])) if replay else asked[name]
        asked[name] = max(asked[name], query + 1)
        runs.append(_run(WORKFLOWS[name], query, seed))
    return tuple(runs)


def typed(workflow: Workflow) -> int:
    """How many of its tasks run a model, and so teach."""
    return sum(step.act in MODEL_ACTS for step in workflow.steps)


def _run(workflow: Workflow, query: int, seed: int) -> Run:
    query_id = uuid.uuid5(uuid.NAMESPACE_OID, f"malearn/{seed}/{workflow.name}/{query}")
    inputs = (seed, zlib.crc32(workflow.name.encode()), query)
    return Run(str(uuid.uuid4()), str(query_id), workflow, inputs)
