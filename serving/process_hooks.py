"""How a process ends or forks, and what then becomes of its predictors.

What was reported just before the end must still reach Redis. `atexit` covers a scheduler that
returns or raises. It does not run in a child of `multiprocessing`, which has finalizers of its
own, nor on SIGTERM, whose default is to end the process at once.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import weakref
from types import FrameType
from typing import Protocol

__all__ = ["Hooked", "add", "install", "remove"]

#: Seconds for what is left to be sent when the process ends.
_EXIT_TIMEOUT = 1.0


class Hooked(Protocol):
    """What is closed at the end of a process, and goes on by itself after a fork."""

    def close(self, timeout: float) -> None: ...

    def after_fork(self) -> None: ...


_alive: weakref.WeakSet[Hooked] = weakref.WeakSet()
_finalizer_of = 0  # the process that has a finalizer of `multiprocessing`


def add(predictor: Hooked) -> None:
    """From now on `predictor` is closed at the end, and prepared after a fork."""
    _alive.add(predictor)


def remove(predictor: Hooked) -> None:
    """`predictor` is closed already."""
    _alive.discard(predictor)


def install() -> None:
    """Be called at the end of this process, by whichever way it comes. Safe to repeat.

    SIGTERM is only taken where it still has its default, and from the main thread, for no
    other may. Whoever sets a handler later replaces ours, and `atexit` does the work when that
    handler ends the program.
    """
    global _finalizer_of
    util = sys.modules.get("multiprocessing.util")  # loaded in each child that it started
    if util is not None and _finalizer_of != os.getpid():
        _finalizer_of = os.getpid()
        # Without a priority it would not run; from 0 on it does before the process waits for its
        # own children. Each child begins with an empty list of finalizers.
        util.Finalize(None, _close_all, exitpriority=0)
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _close_all() -> None:
    # A copy: closing takes the predictor out of the set.
    for predictor in list(_alive):
        predictor.close(_EXIT_TIMEOUT)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    """Send what is left, then end as if nobody had caught the signal."""
    _close_all()
    # So that the exit status still says which signal ended the process.
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def _after_fork() -> None:
    for predictor in list(_alive):
        predictor.after_fork()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_close_all)
