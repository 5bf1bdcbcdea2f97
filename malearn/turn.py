"""One at a time: whoever changes the datasets below a home takes a turn."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from malearn.home import Home

__all__ = ["of"]


@contextmanager
def of(home: Home) -> Iterator[None]:
    """Wait for the turn of this process; the lock goes with the process that holds it."""
    home.data.mkdir(parents=True, exist_ok=True)
    with (home.data / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
