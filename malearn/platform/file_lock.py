"""An advisory file lock (flock) that the kernel releases when its holder dies, however it dies.

It is an open descriptor. It is not inherited over exec unless passed on, and a forked child
closes its copy.
"""

from __future__ import annotations

import fcntl
import os
from functools import cache
from pathlib import Path
from weakref import WeakSet

__all__ = ["FileLock"]


class FileLock:
    """A lock on `path`: exclusive, for one holder, or shared by many."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor = path, descriptor
        _open_locks().add(self)

    @classmethod
    def shared(cls, path: Path) -> FileLock:
        """A shared lock; waits while another holds it exclusively, which takes microseconds."""
        lock = cls(path, _open(path))
        # flock, not lockf: this lock belongs to the open file, so it passes to a child with the
        # descriptor, and closing another descriptor of the same file does not release it.
        fcntl.flock(lock.descriptor, fcntl.LOCK_SH)
        return lock

    @classmethod
    def try_exclusive(cls, path: Path) -> FileLock | None:
        """An exclusive lock, or None when another process holds it in any way."""
        lock = cls(path, _open(path))
        if lock.try_upgrade():
            return lock
        lock.release()
        return None

    def try_upgrade(self) -> bool:
        """Make the lock exclusive. False when others share it: then not even the shared lock
        is certain any more, because flock gives the old one up before it asks for the new.
        """
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Close the descriptor. Copies passed to other processes keep the lock."""
        # At once -1, so that a second call cannot close a descriptor that was given out again.
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@cache
def _open_locks() -> WeakSet[FileLock]:
    """The locks of this process. The first call arranges that forked children close theirs:
    else a stray worker process would keep servers up that nobody uses.
    """
    # Weak: the list must not keep locks that nobody holds any more.
    locks: WeakSet[FileLock] = WeakSet()

    def release_all() -> None:
        for lock in locks:
            lock.release()

    os.register_at_fork(after_in_child=release_all)
    return locks


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
