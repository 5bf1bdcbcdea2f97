"""File locks that the kernel gives back when their holder dies, however it dies.

A lease is an open descriptor with an advisory lock (flock). It is not inherited over exec
unless passed on, and a forked child lets go of its copy.
"""

from __future__ import annotations

import fcntl
import os
from functools import cache
from pathlib import Path
from weakref import WeakSet

__all__ = ["Lease"]


class Lease:
    """A lock on `path`: `exclusive` for one holder, otherwise shared by many."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor
        _held().add(self)

    @classmethod
    def share(cls, path: Path) -> Lease:
        """A shared lease; waits while another holds it alone, which takes microseconds."""
        lease = cls(path, _open(path))
        fcntl.flock(lease.descriptor, fcntl.LOCK_SH)
        return lease

    @classmethod
    def take(cls, path: Path) -> Lease | None:
        """The lease alone, or None when another holds it."""
        lease = cls(path, _open(path))
        if lease.alone():
            return lease
        lease.close()
        return None

    def alone(self) -> bool:
        """Make the lease exclusive. False when others share it; it may then be lost."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Let go. Copies passed to other processes keep the lock."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@cache
def _held() -> WeakSet[Lease]:
    """The leases of this process; the first call arranges that forked children drop theirs."""
    held: WeakSet[Lease] = WeakSet()

    def drop() -> None:
        for lease in held:
            lease.close()

    os.register_at_fork(after_in_child=drop)
    return held


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
