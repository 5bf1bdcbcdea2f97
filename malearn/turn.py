"""One retraining of a tool type at a time, whoever starts it."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from malearn.home import Home
from malearn.tool_types import ToolType

__all__ = ["turn"]


@contextmanager
def turn(
    home: Home, tool_type: ToolType, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the right to train and promote `tool_type` below `home`.

    Calls `waiting` once when another process holds it, and waits. The kernel gives the right
    back when its holder dies, so nobody waits for the dead.
    """
    home.data.mkdir(parents=True, exist_ok=True)
    with (home.data / f".retrain-{tool_type.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
