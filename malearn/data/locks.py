"""Locks between processes: one writer of the datasets below a home, one retraining a tool type.

They are file locks, which the operating system releases when their holder dies.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolType

__all__ = ["dataset_lock", "retrain_lock"]


@contextmanager
def dataset_lock(home: Home) -> Iterator[None]:
    """Hold the lock that every writer of the datasets below `home` takes; waits for it."""
    with _locked(home, ".lock", lambda: None):
        yield


@contextmanager
def retrain_lock(
    home: Home, tool_type: ToolType, waiting: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lock for training and promoting `tool_type`; calls `waiting` where it must wait."""
    with _locked(home, f".retrain-{tool_type.name}.lock", waiting):
        yield


@contextmanager
def _locked(home: Home, name: str, waiting: Callable[[], None]) -> Iterator[None]:
    home.data.mkdir(parents=True, exist_ok=True)
    with (home.data / name).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
