"""One at a time: whoever writes datasets below a home, or retrains a tool type, takes a turn.

Turns are file locks: the kernel gives one back when its holder dies, so nobody waits for the
dead.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolType

__all__ = ["to_retrain", "to_write"]


@contextmanager
def to_write(home: Home) -> Iterator[None]:
    """Wait for the turn to change what is in the datasets below `home`."""
    with _turn(home, ".lock", lambda: None):
        yield


@contextmanager
def to_retrain(
    home: Home, tool_type: ToolType, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Wait for the turn to train and promote `tool_type`; calls `waiting` where it is taken."""
    with _turn(home, f".retrain-{tool_type.name}.lock", waiting):
        yield


@contextmanager
def _turn(home: Home, name: str, waiting: Callable[[], None]) -> Iterator[None]:
    home.data.mkdir(parents=True, exist_ok=True)
    with (home.data / name).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
