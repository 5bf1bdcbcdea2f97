"""Predictions of whole runs, kept up to date on a thread of their own."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping

from malearn.kernel.workflow import Workflow, WorkflowPrediction
from malearn.serving import DAGTaskPredictor

__all__ = ["Progress"]

_log = logging.getLogger("malearn.maze")

_PAUSE = 0.2  # seconds between two rounds
_MOST_RUNS = 1_000  # that are kept in mind; the oldest goes first

_Shape = Mapping[str, tuple[str, str, list[str]]]
_Waiting = tuple[_Shape, float | None, float | None]


class Progress:
    """The latest prediction of each run that was put in; `put` returns at once."""

    def __init__(self, predictor: DAGTaskPredictor) -> None:
        self.latest: dict[str, WorkflowPrediction] = {}
        self._predictor = predictor
        self._waiting: dict[str, _Waiting] = {}
        self._known: dict[str, _Waiting] = {}
        self._wake, self._stop = threading.Event(), threading.Event()
        self._process = 0
        self._failed = False

    def put(
        self,
        run: str,
        size: int,
        shape: Callable[[], _Shape],
        arrived: float | None,
        deadline: float | None,
    ) -> None:
        """Request a new prediction of `run`, of `size` tasks; `arrived` and `deadline` are seconds
        since the epoch. `shape` is called where the run has grown since, for it takes its time.
        """
        known = self._known.get(run)
        if known is None or len(known[0]) != size:
            known = (shape(), arrived, deadline)
            # Out and in again: a dict keeps the place of a key, and the first one is dropped.
            self._known.pop(run, None)
            self._known[run] = known
            while len(self._known) > _MOST_RUNS:
                del self._known[next(iter(self._known))]
        # By run: what was waiting is replaced, so a busy dispatch costs one prediction a round.
        self._waiting[run] = known
        if self._process != os.getpid():  # the first time, or the first after a fork
            self._process = os.getpid()
            # New ones: a thread that the fork did not copy may have held the lock in an Event.
            self._wake, self._stop = threading.Event(), threading.Event()
            threading.Thread(target=self._run, name="malearn-maze", daemon=True).start()
        self._wake.set()

    def close(self) -> None:
        """Stop predicting."""
        self._stop.set()
        self._wake.set()

    def _run(self) -> None:
        wake, stop = self._wake, self._stop
        while not stop.is_set():
            wake.wait()
            # Before the work: a run that is put in meanwhile wakes the next round.
            wake.clear()
            # A copy: the event loop puts runs in meanwhile.
            for run in list(self._waiting):
                self._predict(run, *self._waiting.pop(run))
            stop.wait(_PAUSE)

    def _predict(
        self, run: str, shape: _Shape, arrived: float | None, deadline: float | None
    ) -> None:
        try:
            found = self._predictor.estimate_workflow(Workflow(run, shape, arrived, deadline))
        except Exception:  # noqa: BLE001 - the thread lives on
            if not self._failed:
                _log.exception("malearn cannot predict run %s as a whole", run)
            self._failed = True
            return
        self.latest.pop(run, None)
        self.latest[run] = found
        while len(self.latest) > _MOST_RUNS:
            del self.latest[next(iter(self.latest))]
