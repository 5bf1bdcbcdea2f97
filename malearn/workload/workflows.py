"""The workflows, which are those of Maze's own logs, and the plan of which run when."""

from __future__ import annotations

import json
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from malearn.workload import tasks
from malearn.workload.tasks import MODEL_TASKS, Input, Perform, WorkloadTask

__all__ = ["WORKFLOWS", "Run", "plan"]

REPEATED = 0.25  # share of runs that ask an earlier query again, as in real logs


@dataclass(frozen=True, slots=True)
class WorkflowTemplate:
    """Steps in an order in which they can run: function, what it does, which it waits for."""

    share: int  # of the runs, in proportion to the shares of the others
    steps: Mapping[str, tuple[Perform, tuple[str, ...]]]

    @property
    def model_tasks(self) -> int:
        return sum(perform in MODEL_TASKS for perform, _ in self.steps.values())

    def successors(self, function: str) -> tuple[str, ...]:
        return tuple(name for name, (_, after) in self.steps.items() if function in after)


_LOOKS = tuple(f"task4{letter}_vlm_process" for letter in "abcd")

_ANSWERS = ("task3_llm_process_qwen", "task4_llm_process_deepseek")
WORKFLOWS = {
    "gaia/speech": WorkflowTemplate(
        3,
        {
            "task1_speech_process": (tasks.open_audio, ()),
            "task2_speech_process": (tasks.transcribe, ("task1_speech_process",)),
            **dict.fromkeys(_ANSWERS, (tasks.answer, ("task2_speech_process",))),
            "task5_llm_fuse_answer": (tasks.fuse, _ANSWERS),
        },
    ),
    "openagi/multimodal_vqa_complex": WorkflowTemplate(
        1,
        {
            "task2_read_file": (tasks.read_pictures, ()),
            "task3_file_process": (tasks.deal_pictures, ("task2_read_file",)),
            **dict.fromkeys(_LOOKS, (tasks.look, ("task3_file_process",))),
            "task5_output_final_answer": (tasks.conclude, _LOOKS),
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a workflow on one query."""

    run_id: str
    query_id: str
    name: str  # of the workflow
    seed: tuple[int, ...]  # draws the query's inputs

    def records(self) -> Iterator[tuple[str, str]]:
        """Perform its tasks one after the other: the id of each, and its record as JSON."""
        workflow = WORKFLOWS[self.name]
        handed: dict[tuple[str, str], Input] = {}
        for function, (perform, after) in workflow.steps.items():
            inputs = tuple(handed.pop((name, function)) for name in after)
            task = WorkloadTask(function, workflow.successors(function), inputs, self.seed)
            start = time.time()
            result = perform(task)
            times = {"start_time": start, "end_time": time.time()}
            handed |= {(function, name): given for name, given in result.gives.items()}
            record = {"dag_id": self.query_id, **result.record, **times}
            yield f"{self.run_id}-{function}", json.dumps(record)


def plan(model_tasks: int, seed: int) -> tuple[Run, ...]:
    """Runs that hold at least so many model tasks, their workflows interleaved by share."""
    rng = np.random.default_rng((seed, model_tasks))
    credit = dict.fromkeys(WORKFLOWS, 0)
    asked = Counter[str]()
    runs: list[Run] = []
    # Smooth weighted round robin: workflows alternate by share instead of coming in blocks.
    while model_tasks > 0:
        for name, workflow in WORKFLOWS.items():
            credit[name] += workflow.share
        name = max(credit, key=credit.__getitem__)
        credit[name] -= sum(workflow.share for workflow in WORKFLOWS.values())
        model_tasks -= WORKFLOWS[name].model_tasks
        repeat = asked[name] and rng.random() < REPEATED
        query = int(rng.integers(asked[name])) if repeat else asked[name]
        asked[name] = max(asked[name], query + 1)
        # uuid5: the same query has the same id in every plan of this seed.
        query_id = uuid.uuid5(uuid.NAMESPACE_OID, f"malearn/{seed}/{name}/{query}")
        inputs = (seed, zlib.crc32(name.encode()), query)
        # uuid4: a run of the same seed is another one; ingestion would drop its tasks as known.
        runs.append(Run(str(uuid.uuid4()), str(query_id), name, inputs))
    return tuple(runs)
