"""What Maze's scheduler knows of a task when it asks for its duration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from malearn.data.maze import run_file, task_record
from malearn.kernel.reading import run_ids
from malearn.kernel.tool_types import resource_name

__all__ = ["Asked", "of", "shape"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One task: ids as malearn has them, empty where the run is not known."""

    function: str
    kind: str
    task_id: str
    predecessors: tuple[str, ...]
    context: dict[str, object]


def of(task: Any, run: str = "", parents: Iterable[Any] = ()) -> Asked:
    """`task`, which waits for the tasks `parents` of the run `run`."""
    own = _text(getattr(task, "task_id", ""))
    model, backend = run_file.anchor(getattr(task, "model_anchor", None))
    return Asked(
        _text(getattr(task, "task_name", "")),
        resource_name(_text(getattr(task, "task_kind", ""))),
        run_ids.of_task(run, own) if run and own else "",
        tuple(run_ids.of_task(run, str(parent)) for parent in parents) if run else (),
        task_record.context(model, backend),
    )


def shape(
    run: str, tasks: dict[Any, Any], parents: dict[Any, Iterable[Any]]
) -> dict[str, tuple[str, str, list[str]]]:
    """The tasks of a whole run, as `Workflow` takes them."""
    found = {}
    for task_id, task in list(tasks.items()):
        # A workflow refuses predecessors that are not among its tasks.
        one = of(task, run, [p for p in parents.get(task_id, ()) if p in tasks])
        key = run_ids.of_task(run, str(task_id))
        found[key] = (one.function, one.kind or "cpu", list(one.predecessors))
    return found


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""
