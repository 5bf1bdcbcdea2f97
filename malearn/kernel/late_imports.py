"""Imports made when first needed, in background threads, which a fork must not cut in two.

The child of a fork has only the thread that forked. A module that another was importing would stay
half made there for ever, with its lock held by nobody who could release it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["uninterrupted"]

#: Seconds for which a fork waits for an import at most: whoever forks while it imports what the
#: other thread waits for would wait for ever.
_PATIENCE = 10.0

# Reentrant: one late import may lead to another on the same thread.
_lock = threading.RLock()
_waited = False  # whether the fork under way holds the lock


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Forks of this process wait until the `with`, which imports something, is left."""
    with _lock:
        yield


def _before_fork() -> None:
    global _waited
    _waited = _lock.acquire(timeout=_PATIENCE)


def _after_in_parent() -> None:
    if _waited:
        _lock.release()


def _after_in_child() -> None:
    global _lock
    # The parent's is held by the thread that forked, or by one that is not here.
    _lock = threading.RLock()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
