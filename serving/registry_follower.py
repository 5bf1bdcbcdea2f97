"""The thread that follows the registry."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["RegistryFollower"]


class RegistryFollower:
    """Calls `follow` every `interval` seconds, until it is stopped.

    `refreshed` is set once that was done for the first time; `on_error` is called where it failed,
    within the handling of the error.
    """

    def __init__(
        self, follow: Callable[[], bool], interval: float, on_error: Callable[[str], object]
    ) -> None:
        self._follow, self._interval, self._on_error = follow, interval, on_error
        self.refreshed = threading.Event()
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to follow, on a thread of its own."""
        # A daemon: one exchange with a registry may take 30 s, for which no process should wait.
        threading.Thread(target=self._run, name="malearn-registry", daemon=True).start()

    def refresh(self) -> bool:
        """Follow now, on this thread; what `follow` returns."""
        followed = self._follow()
        self.refreshed.set()
        return followed

    def stop(self) -> None:
        """Let the refresh at hand be the last; it is not waited for."""
        self._stop.set()

    def after_fork(self) -> None:
        """Forget the parent's thread, of which the child has none."""
        # The parent's may be set, or its lock held, by a thread that is not here.
        self._stop, self.refreshed = threading.Event(), threading.Event()

    def _run(self) -> None:
        stop = self._stop
        while not stop.is_set():
            try:
                self.refresh()
            except Exception:  # noqa: BLE001 - the thread must live on
                self._on_error("refresh")
            stop.wait(min(self._interval, threading.TIMEOUT_MAX))
