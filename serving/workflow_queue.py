"""What a scheduler hands in with a queue of workflows, as far as it can be made sense of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from malearn.kernel.reading.believable import LONGEST

__all__ = ["clock", "entry"]

#: Not even nanoseconds since the epoch come near it.
_LATEST = 1e19


def clock(now: Any) -> float | None:
    """`now` in seconds; None for what is no time."""
    try:
        # Not `features.finite`: a replay's clock may be a number of numpy's.
        seconds = float(now)
    except Exception:  # noqa: BLE001 - whatever it is, it must not cost an answer
        return None
    return seconds if abs(seconds) < _LATEST else None


def entry(queued: Any, now: float) -> Any:
    """`queued` as `(workflow, running, done)`, None counting as nothing running or done.

    A task that is said to run since a time that is none, or longer ago than any task takes, counts
    as started `now`. What is no such entry is left as it is.
    """
    if not (isinstance(queued, list | tuple) and len(queued) == 3):
        return queued
    workflow, running, done = queued
    if isinstance(running, Mapping):
        # Of nearly all all are plain numbers.
        if not all(type(at) is float and abs(now - at) < LONGEST for at in running.values()):
            running = {task_id: _start(at, now) for task_id, at in running.items()}
    elif running is None:
        running = {}
    return workflow, running, () if done is None else done


def _start(given: object, now: float) -> float:
    seconds = clock(given)
    return seconds if seconds is not None and abs(now - seconds) < LONGEST else now
