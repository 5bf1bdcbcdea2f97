"""Predictions of whole runs, kept up to date on a thread of their own."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping

from malearn.kernel.workflow import Workflow, WorkflowPrediction
from malearn.serving import DAGTaskPredictor

__all__ = ["Progress"]

_log = logging.getLogger("malearn.maze")

_PAUSE = 0.2  # seconds between two rounds
_MOST_RUNS = 1_000  # whose latest prediction is kept; the oldest goes first

_Shape = Mapping[str, tuple[str, str, list[str]]]
_Waiting = tuple[_Shape, float | None, float | None]


class Progress:
    """The latest prediction of each run that was put in; `put` returns at once."""

    def __init__(self, predictor: DAGTaskPredictor) -> None:
        self.latest: dict[str, WorkflowPrediction] = {}
        self._predictor = predictor
        self._waiting: dict[str, _Waiting] = {}
        self._wake, self._stop = threading.Event(), threading.Event()
        self._process = 0
        self._failed = False

    def put(self, run: str, shape: _Shape, arrived: float | None, deadline: float | None) -> None:
        """Predict `run` anew, soon; `arrived` and `deadline` are seconds since the epoch."""
        self._waiting[run] = (shape, arrived, deadline)
        if self._process != os.getpid():  # the first time, or the first after a fork
            self._process = os.getpid()
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
            wake.clear()
            while self._waiting and not stop.is_set():
                run = next(iter(self._waiting))
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
