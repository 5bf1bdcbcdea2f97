"""The workflows that clients have declared, in bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus

from malearn.integrations.http import bodies
from malearn.integrations.http.bodies import ProgressBody, QueueBody, WorkflowBody, WorkflowTaskBody
from malearn.integrations.http.refused import RequestRefused
from malearn.kernel.errors import WorkflowError
from malearn.kernel.workflow import Workflow, WorkflowPrediction
from malearn.serving import policies
from malearn.serving.predictor import DAGTaskPredictor

__all__ = ["HeldWorkflows"]

#: Workflows that are kept, and tasks of all of them together; those not used for longest go first.
#: Clients that end without deleting their workflows must not fill the memory.
MOST_HELD, MOST_TASKS_HELD = 10_000, 500_000

_POLICIES: Mapping[str, Callable[[Workflow, WorkflowPrediction, float], policies.Key]] = {
    "arrival": policies.arrival,
    "fewest_tasks": policies.fewest_tasks,
    "shortest_remaining_work": policies.shortest_remaining_work,
    "aged": policies.aged,
    "earliest_deadline": policies.earliest_deadline,
    "triage": policies.triage,
}


class HeldWorkflows:
    """Workflows by run id, and their predictions by `predictor`. Threads may share it.

    `dropped` counts those that had to make room. Methods raise `RequestRefused`.
    """

    def __init__(self, predictor: DAGTaskPredictor) -> None:
        self.dropped = 0
        self._predictor = predictor
        self._lock = threading.Lock()  # also while they are predicted: an appended task waits
        self._held: OrderedDict[str, Workflow] = OrderedDict()
        self._tasks = 0

    def __len__(self) -> int:
        return len(self._held)

    def put(self, run_id: str, declared: WorkflowBody) -> int:
        """Hold a workflow in place of any of its id; returns how many tasks it has."""
        tasks = {task_id: _given(task) for task_id, task in declared.tasks.items()}
        # Outside of the lock: checking a large workflow takes milliseconds.
        with _sentences():
            workflow = Workflow(
                run_id, tasks, declared.arrived, declared.deadline, dict(declared.context)
            )
        with self._lock:
            self._forget(run_id)
            self._held[run_id] = workflow
            self._tasks += len(workflow)
            self._make_room()
        return len(workflow)

    def append(self, run_id: str, tasks: Mapping[str, WorkflowTaskBody]) -> int:
        """Add tasks to a workflow, all of them or none; returns how many it has now."""
        with self._lock:
            workflow = self._get(run_id)
            if len(workflow) + len(tasks) > bodies.MOST_TASKS:
                raise RequestRefused(
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                    f"Workflow {run_id} would have more than {bodies.MOST_TASKS} tasks.",
                )
            with _sentences():
                # All before the first is appended, for an append cannot be undone.
                _check_appendable(workflow, tasks)
                for task_id, task in tasks.items():
                    workflow.append(task_id, *_given(task))
            self._tasks += len(tasks)
            self._make_room()
            return len(workflow)

    def remove(self, run_id: str) -> None:
        """Hold a workflow no longer."""
        with self._lock:
            self._get(run_id)
            self._forget(run_id)

    def predict(self, run_id: str, progress: ProgressBody) -> WorkflowPrediction:
        """What is left of one workflow."""
        with self._lock:
            workflow = self._get(run_id)
            return self._predictor.estimate_workflow(
                workflow, progress.running, progress.done, progress.now
            )

    def predict_queue(
        self, queue: QueueBody, now: float
    ) -> tuple[dict[str, WorkflowPrediction], list[str] | None]:
        """What is left of each, and their order by the policy that was asked for, if any."""
        with self._lock:
            workflows = [self._get(queued.run_id) for queued in queue.workflows]
            waiting = [
                (workflow, queued.running, queued.done)
                for workflow, queued in zip(workflows, queue.workflows, strict=True)
            ]
            left = self._predictor.estimate_workflows(waiting, now)
            found = {w.run_id: one for w, one in zip(workflows, left, strict=True)}
            if queue.policy is None:
                return found, None
            key = _POLICIES[queue.policy]
            keys = {w.run_id: key(w, found[w.run_id], now) for w in workflows}
        return found, sorted(keys, key=lambda run_id: keys[run_id])

    def _get(self, run_id: str) -> Workflow:
        workflow = self._held.get(run_id)
        if workflow is None:
            raise RequestRefused(
                HTTPStatus.NOT_FOUND,
                f"Workflow {run_id} is not known: declare it with PUT /workflows/{run_id}; one "
                "that was not asked about for long may have been dropped.",
            )
        # The order of the dict is that of use: the first one makes room.
        self._held.move_to_end(run_id)
        return workflow

    def _forget(self, run_id: str) -> None:
        workflow = self._held.pop(run_id, None)
        self._tasks -= 0 if workflow is None else len(workflow)

    def _make_room(self) -> None:
        while len(self._held) > MOST_HELD or self._tasks > MOST_TASKS_HELD:
            self._forget(next(iter(self._held)))
            self.dropped += 1


class _sentences:  # noqa: N801 - used as a statement
    """A workflow whose tasks do not hold together is refused with the error's sentence."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, WorkflowError):
            raise RequestRefused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error


def _given(task: WorkflowTaskBody) -> tuple[str, str, Sequence[str]]:
    return task.task_name, task.task_type, task.predecessors


def _check_appendable(workflow: Workflow, tasks: Mapping[str, WorkflowTaskBody]) -> None:
    """Raise `WorkflowError` for tasks of which not all could be appended in their order."""
    known: set[str] = set(workflow.tasks)
    for task_id, task in tasks.items():
        if task_id in known:
            raise WorkflowError(workflow.run_id, f"task {task_id} was added before")
        if missing := _first(name for name in task.predecessors if name not in known):
            raise WorkflowError(workflow.run_id, f"task {task_id} waits for {missing}, not a task")
        known.add(task_id)


def _first(names: Iterable[str]) -> str | None:
    return next(iter(names), None)
