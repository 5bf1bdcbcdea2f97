"""What travels: a task that can start, the workflow it belongs to, what it leaves."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from malearn.workload.inputs import Array, Image

__all__ = ["Job", "Material", "Outcome", "Run", "Step", "Workflow"]


@dataclass(frozen=True, slots=True)
class Material:
    """What one task hands to one task after it. `samples` are at `RATE`, within ±1."""

    texts: tuple[str, ...] = ()
    prompt: str = ""
    images: tuple[Image, ...] = ()
    samples: Array | None = None
    reason: int = 0
    batch_size: int | None = None  # None: this workflow does not record it


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a task leaves: keys of its record, and material per successor function."""

    record: Mapping[str, object]
    gives: Mapping[str, Material] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One function of a workflow, the functions it waits for, and what it does."""

    function: str
    after: tuple[str, ...]
    act: Callable[[Job], Outcome]


@dataclass(frozen=True, slots=True)
class Workflow:
    """A DAG of steps. `share`: how many of every hundred or so runs are of this one."""

    name: str
    share: int
    steps: tuple[Step, ...]

    def step(self, function: str) -> Step:
        return next(step for step in self.steps if step.function == function)

    def successors(self, function: str) -> tuple[str, ...]:
        return tuple(step.function for step in self.steps if function in step.after)


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a workflow on one query; `seed` draws the query's inputs."""

    run_id: str
    query_id: str
    workflow: Workflow
    seed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """A task that can start: everything it waited for is in `inputs`, by predecessor."""

    run: Run
    function: str
    inputs: Mapping[str, Material]

    @property
    def task_id(self) -> str:
        return f"{self.run.run_id}-{self.function}"

    @property
    def successors(self) -> tuple[str, ...]:
        return self.run.workflow.successors(self.function)

    @property
    def material(self) -> Material:
        """What the first predecessor gave."""
        return next(iter(self.inputs.values()))

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of all predecessors, in the order the workflow names them."""
        return tuple(text for given in self.inputs.values() for text in given.texts)

    def dice(self) -> np.random.Generator:
        """Randomness that belongs to this query and function: the same each time it runs."""
        return np.random.default_rng((*self.run.seed, zlib.crc32(self.function.encode())))
