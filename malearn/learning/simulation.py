"""A discrete-event replay of one run's workflows under one policy and one predictor.

Workflows arrive, tasks that are ready wait for a slot of their resource, the policy decides whose
turn it is, and each takes the seconds that it really took. The predictor is called as a
scheduler would call it: it knows nothing that has not ended in the simulation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import simpy

from malearn.kernel import policies
from malearn.kernel.policies import Key
from malearn.learning.simulated_predictors import Predictor, SimulatedWorkflow
from malearn.learning.traces import WorkflowTrace

__all__ = ["POLICIES", "WITHOUT_SECONDS", "WITH_DEADLINES", "Completion", "Policy", "simulate"]


@dataclass(frozen=True, slots=True)
class Completion:
    """One workflow's arrival and end and its deadline, in seconds, and when each task ran."""

    trace: WorkflowTrace
    arrived: float
    ended: float
    deadline: float | None
    tasks: Mapping[str, tuple[float, float]]

    @property
    def seconds(self) -> float:
        """From arrival to end."""
        return self.ended - self.arrived

    @property
    def late(self) -> bool:
        """Whether it ended after its deadline; never without one."""
        return self.deadline is not None and self.ended > self.deadline


@dataclass(slots=True)
class _Board:
    """What a policy may read beyond one workflow."""

    resource: str
    average_completion: float = 0.0
    most_tasks: int = 0


#: What waits: its workflow, its id, when it became ready.
_Waiting = tuple[SimulatedWorkflow, str, float]
Policy = Callable[[SimulatedWorkflow, str, float, float, _Board], Key]


def _of_workflow(key: Callable[..., Key], *, by_resource: bool = True) -> Policy:
    def policy(
        live: SimulatedWorkflow, task_id: str, ready: float, now: float, board: _Board
    ) -> Key:
        if by_resource:
            return key(live.workflow, live.left, now, board.resource)
        return key(live.workflow, live.left, now)

    return policy


def _fcfs(live: SimulatedWorkflow, task_id: str, ready: float, now: float, board: _Board) -> Key:
    return (ready,)


def _hacs(live: SimulatedWorkflow, task_id: str, ready: float, now: float, board: _Board) -> Key:
    assert live.left is not None
    average = board.average_completion
    return policies.hacs(live.workflow, live.left, now, task_id, average, board.resource)


def _daps(live: SimulatedWorkflow, task_id: str, ready: float, now: float, board: _Board) -> Key:
    assert live.left is not None
    return policies.daps(live.workflow, live.left, now, task_id, board.most_tasks, board.resource)


#: By the name under which results are reported; the smallest key runs first.
POLICIES: Mapping[str, Policy] = {
    "fcfs": _fcfs,
    "arrival": _of_workflow(policies.arrival, by_resource=False),
    "fewest_tasks": _of_workflow(policies.fewest_tasks),
    "daps": _daps,
    "hacs": _hacs,
    "edf": _of_workflow(policies.earliest_deadline, by_resource=False),
    "srw": _of_workflow(policies.shortest_remaining_work),
    "aged": _of_workflow(policies.aged),
    "triage": _of_workflow(policies.triage),
}

#: Policies whose order does not depend on what is predicted.
WITHOUT_SECONDS = frozenset({"fcfs", "arrival", "fewest_tasks", "edf"})

#: Policies whose order depends on deadlines.
WITH_DEADLINES = frozenset({"edf", "triage"})


def simulate(
    arrivals: Sequence[tuple[float, WorkflowTrace]],
    policy: str,
    predictor: Predictor,
    slots: Mapping[str, int],
    deadline: float | Callable[[WorkflowTrace], float] | None = None,
    *,
    probe: Callable[[SimulatedWorkflow, float], None] | None = None,
) -> list[Completion]:
    """Replay workflows that arrive at the times given, in seconds; in order of their ends.

    `slots` are the tasks of a resource that may run at once, without limit where it names none.
    Each workflow's deadline is its arrival and `deadline` times its true critical path; it may be
    given as a function of the workflow. `probe`
    is called with each workflow when half of that path has passed; it only makes sense where
    nothing has to wait.
    """
    return _Scheduler(policy, predictor, slots, deadline, probe).run(arrivals)


class _Scheduler:
    def __init__(
        self,
        policy: str,
        predictor: Predictor,
        slots: Mapping[str, int],
        deadline: float | Callable[[WorkflowTrace], float] | None,
        probe: Callable[[SimulatedWorkflow, float], None] | None,
    ) -> None:
        self._env = simpy.Environment()
        self._policy, self._predictor = POLICIES[policy], predictor
        self._free = dict(slots)
        self._deadline, self._probe = deadline, probe
        self._waiting: dict[str, list[_Waiting]] = defaultdict(list)
        self._boards = {resource: _Board(resource) for resource in slots}
        self._times: dict[str, tuple[float, float]] = {}
        self._completed: list[Completion] = []

    def run(self, arrivals: Sequence[tuple[float, WorkflowTrace]]) -> list[Completion]:
        for at, trace in arrivals:
            self._env.process(self._workflow(at, trace))
        self._env.run()
        return self._completed

    def _workflow(self, at: float, trace: WorkflowTrace) -> Generator[Any, Any, None]:
        yield self._env.timeout(at)
        path = trace.critical_path
        factor = self._deadline(trace) if callable(self._deadline) else self._deadline
        deadline = None if factor is None else at + factor * path
        live = SimulatedWorkflow(trace, trace.workflow(at, deadline))
        for resource, board in self._boards.items():
            here = sum(task.resource == resource for task in live.workflow.tasks.values())
            board.most_tasks = max(board.most_tasks, here)
        self._predictor.expect([live], at)
        self._make_ready(live, live.workflow.ready(()))
        if self._probe is not None:
            self._probe(live, 0.0)
            yield self._env.timeout(path / 2.0)
            self._predictor.expect([live], self._env.now)
            self._probe(live, 0.5)

    def _make_ready(self, live: SimulatedWorkflow, task_ids: Sequence[str]) -> None:
        changed = set()
        for task_id in task_ids:
            resource = live.workflow.tasks[task_id].resource
            if resource in self._free:
                self._waiting[resource].append((live, task_id, self._env.now))
                changed.add(resource)
            else:
                self._env.process(self._task(live, task_id))
        for resource in sorted(changed):
            self._dispatch(resource)

    def _dispatch(self, resource: str) -> None:
        """Start what waits while there is a free slot."""
        waiting, now = self._waiting[resource], self._env.now
        # Where nothing has to be chosen, no estimate is needed.
        if 0 < self._free[resource] < len(waiting):
            lives = {id(live): live for live, _, _ in waiting}
            self._predictor.expect(list(lives.values()), now)
        while waiting and self._free[resource]:
            # First come, first served, unless tasks compete for the slots that are free.
            chosen = 0
            if len(waiting) > self._free[resource]:
                board = self._boards[resource]
                keys = [
                    # Ties in the policy's key go to whoever has waited longest.
                    (self._policy(live, task_id, ready, now, board), ready)
                    for live, task_id, ready in waiting
                ]
                chosen = min(range(len(keys)), key=keys.__getitem__)
            live, task_id, _ = waiting.pop(chosen)
            self._free[resource] -= 1
            self._env.process(self._task(live, task_id))

    def _task(self, live: SimulatedWorkflow, task_id: str) -> Generator[Any, Any, None]:
        trace, start = live.trace.tasks[task_id], self._env.now
        live.running[task_id] = start
        yield self._env.timeout(trace.seconds)
        end = self._env.now
        del live.running[task_id]
        record = trace.record
        live.done[task_id] = (
            None if record is None else msgspec.structs.replace(record, start=start, end=end)
        )
        self._times[task_id] = start, end
        # Learnt before anything is estimated again, as in a scheduler.
        self._predictor.ended(live, trace, start, end)
        live.expected.pop(task_id, None)
        resource = live.workflow.tasks[task_id].resource
        if resource in self._free:
            # Free before successors are made ready, so that they compete for this very slot.
            self._free[resource] += 1
        if len(live.done) == len(live.workflow):
            self._finish(live)
        else:
            # What learns nothing is asked only where tasks compete.
            if self._predictor.learns:
                self._predictor.expect([live], end)
            after = [
                other
                for other, task in live.workflow.tasks.items()
                if task_id in task.predecessors and live.done.keys() >= set(task.predecessors)
            ]
            self._make_ready(live, after)
        if resource in self._free:
            self._dispatch(resource)

    def _finish(self, live: SimulatedWorkflow) -> None:
        self._predictor.finished(live)
        workflow, now = live.workflow, self._env.now
        assert workflow.arrived is not None
        times = {task_id: self._times.pop(task_id) for task_id in workflow.tasks}
        done = Completion(live.trace, workflow.arrived, now, workflow.deadline, times)
        self._completed.append(done)
        for board in self._boards.values():
            n = len(self._completed)
            board.average_completion += (done.seconds - board.average_completion) / n
