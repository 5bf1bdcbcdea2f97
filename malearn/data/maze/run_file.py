"""`run.json`: what Maze knows of one run as a whole, and of each of its tasks.

Maze rewrites the file while the run goes on, and it grows with every result, so that only what
is named here is decoded. What has another type than expected counts as absent.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from malearn.kernel import features

__all__ = ["RunFile", "TaskNode", "read"]

#: The statuses of a run in progress.
_GOING_ON = {"created", "submitted", "pending", "queued", "ready", "running", "active", "paused"}
#: Readings of a file that is being rewritten, and seconds between two.
_ATTEMPTS, _PAUSE = 3, 0.02


@dataclass(frozen=True, slots=True)
class TaskNode:
    """What is known of a task before it runs. `parents` is None where they are not given."""

    function: str = ""
    kind: str = ""
    parents: tuple[str, ...] | None = None
    model: str = ""
    backend: str = ""
    #: How it ended, where the events lack it: status, end in seconds since the epoch,
    #: seconds that it took, result.
    ended: tuple[str, float | None, float | None, Any] = ("", None, None, None)


@dataclass(frozen=True, slots=True)
class RunFile:
    """One run. Times are seconds since the epoch, None where unknown."""

    run_id: str = ""
    workflow_id: str = ""
    is_over: bool = False
    arrived: float | None = None
    deadline: float | None = None
    tasks: Mapping[str, TaskNode] = field(default_factory=dict)
    finished: float | None = None


class _Run(msgspec.Struct):
    run_id: Any = None
    workflow_id: Any = None
    status: Any = None
    created_time: Any = None
    submitted_time: Any = None
    started_time: Any = None
    finished_time: Any = None
    deadline_time: Any = None
    graph: Any = None
    task_nodes: Any = None


_decoder = msgspec.json.Decoder(_Run)


def read(path: Path) -> RunFile | None:
    """The run in `path`; None where there is no such file, or nothing readable in it."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE)
        try:
            raw = path.read_bytes()
        except OSError:
            return None
        if (found := _decode(raw)) is not None:
            return _run(found)
    return None


def node(given: Mapping[str, Any], parents: tuple[str, ...] | None = None) -> TaskNode:
    """A task as `task_nodes`, `append_task` and others describe it."""
    model, backend = anchor(given.get("model_anchor"))
    if parents is None:
        parents = _names(given.get("parents"))
    end = features.finite(given.get("finished_time")) or features.finite(given.get("finish_time"))
    ended = (
        _text(given.get("status")),
        end,
        features.finite(given.get("duration_seconds")),
        given.get("result_summary"),
    )
    kind = _text(given.get("task_kind"))
    return TaskNode(_text(given.get("task_name")), kind, parents, model, backend, ended)


def anchor(given: object) -> tuple[str, str]:
    """Model and backend of a `model_anchor`, each "" where it names none."""
    if isinstance(given, str):
        return given, ""
    if not isinstance(given, Mapping):
        return "", ""
    model = given.get("local_model") or given.get("model") or given.get("model_name")
    return _text(model), _text(given.get("backend"))


def _decode(raw: bytes) -> _Run | None:
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:  # NaN and Infinity, which Python's own writer emits, are no strict JSON
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    return _Run(**{name: value.get(name) for name in _Run.__struct_fields__})


def _run(found: _Run) -> RunFile:
    nodes = found.task_nodes if isinstance(found.task_nodes, dict) else {}
    parents = _parents(found.graph, nodes)
    tasks = {
        str(task_id): node(given, parents[task_id])
        for task_id, given in nodes.items()
        if isinstance(given, dict)
    }
    times = (found.submitted_time, found.created_time, found.started_time)
    known = [time for time in map(features.finite, times) if time is not None]
    status = _text(found.status).lower()
    # States that are not known here count as over: a run must not be held back for ever.
    is_over = bool(status) and status not in _GOING_ON
    finished = features.finite(found.finished_time)
    return RunFile(
        _text(found.run_id),
        _text(found.workflow_id),
        is_over or finished is not None,
        min(known, default=None),
        features.finite(found.deadline_time),
        tasks,
        finished,
    )


def _parents(graph: object, nodes: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The tasks that each waits for: by the graph's edges, and by the tasks' own lists."""
    # Dicts as ordered sets: the same file gives the same order of parents.
    found: dict[str, dict[str, None]] = defaultdict(dict)
    edges = graph.get("edges") if isinstance(graph, dict) else None
    for edge in edges if isinstance(edges, list) else []:
        source = edge.get("source") if isinstance(edge, dict) else None
        if isinstance(source, str) and source in nodes:
            found[str(edge.get("target"))][source] = None
    for task_id, given in nodes.items():
        if not isinstance(given, dict):
            continue
        for parent in _names(given.get("parents")) or ():
            if parent in nodes:
                found[task_id][parent] = None
        for child in _names(given.get("children")) or ():
            found[child][task_id] = None
    return {task_id: tuple(found.get(task_id, ())) for task_id in nodes}


def _names(given: object) -> tuple[str, ...] | None:
    if not isinstance(given, list):
        return None
    return tuple(name for name in given if isinstance(name, str))


def _text(given: object) -> str:
    return given.strip() if isinstance(given, str) else ""
