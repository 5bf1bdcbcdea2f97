"""`Adapter`: the interface between Maze's head process and malearn's predictor.

Everything here runs on Maze's event loop, in its dispatch: it computes for microseconds, waits
for nothing and raises nothing. Where malearn knows nothing, or fails, Maze's own estimate stands.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from malearn.data.maze import task_record
from malearn.integrations.maze import asked
from malearn.integrations.maze.asked import Asked
from malearn.integrations.maze.progress import Progress
from malearn.kernel.prediction import Prediction
from malearn.kernel.workflow import WorkflowPrediction
from malearn.serving import DAGTaskPredictor

__all__ = ["Adapter"]

_log = logging.getLogger("malearn.maze")

#: Where Maze's own estimate is no number, by kind: what its defaults are today, in seconds.
_DEFAULTS = {"gpu": 60.0, "cpu": 30.0, "io": 10.0}


class Adapter:
    """One head process's malearn: `predictor` answers, and learns from what is observed.

    `failures` counts what went wrong inside; each was answered by Maze's own estimate.
    """

    def __init__(self, predictor: DAGTaskPredictor) -> None:
        self.failures = 0
        # Maze's methods within `asking` are no coroutines (`target` checks it), so no other task of
        # the event loop comes between.
        self._asking = threading.local()
        self.use(predictor)

    def use(self, predictor: DAGTaskPredictor) -> None:
        """Ask `predictor` from now on."""
        predictor.reads_results = False  # Maze keeps no results in Redis
        self.predictor, self._progress = predictor, Progress(predictor)

    @property
    def workflows(self) -> Mapping[str, WorkflowPrediction]:
        """What is left of each run in progress, by run id, as far as it is known."""
        return self._progress.latest

    @contextmanager
    def asking(self, run: object, parents: Callable[[], Iterable[Any]]) -> Iterator[None]:
        """While this lasts, predictions are for tasks of `run` that wait for `parents`."""
        before = getattr(self._asking, "about", None)
        try:
            self._asking.about = (str(run or ""), tuple(parents()))
        except Exception:  # noqa: BLE001 - the answer is worse without, and no more
            self._failed("reading a task's predecessors")
            self._asking.about = (str(run or ""), ())
        try:
            yield
        finally:
            self._asking.about = before

    def predict(self, task: Any, own: Any, prediction: type[Any]) -> Any:
        """The `prediction` that Maze goes by: ours, or `own` where it is a number.

        `own` is Maze's estimate, None where Maze itself failed.
        """
        kind = str(getattr(own, "task_kind", None) or getattr(task, "task_kind", None) or "cpu")
        try:
            about = asked.of(task, *(getattr(self._asking, "about", None) or ("", ())))
            answer, source = self._answer(about)
            if answer is not None:
                return prediction(
                    predicted_duration=answer.seconds,
                    prediction_source=source,
                    confidence=answer.confidence,
                    sample_count=self.predictor.observed(about.function),
                    task_kind=kind,
                    code_hash=getattr(own, "code_hash", None),
                )
        except Exception:  # noqa: BLE001 - an exception here would stop Maze's dispatch
            self._failed("predicting")
            about = None
        own = _usable(own, kind, prediction)
        # Else the predictor would compare the outcome with an answer that nobody used.
        if about is not None and about.task_id:
            self.predictor.used(about.task_id, own.predicted_duration)
        return own

    def observe(self, task: Any, message: Mapping[str, Any], *, success: bool) -> None:
        """Record an attempt at `task` that ended, from the `message` that Maze got of it."""
        try:
            run = str(message.get("workflow_id") or "")
            about = asked.of(task, run)
            if not about.task_id:
                return
            result = message.get("result")
            start, end = message.get("started_at"), message.get("finished_at")
            if (start is None or end is None) and isinstance(result, Mapping):
                # Times of the worker, where the message of the dispatcher has none.
                start, end = result.get("start_time"), result.get("end_time")
            task_id = about.task_id
            if not success:
                # An id of its own: the task is tried again, and that attempt counts as the task.
                task_id = f"{task_id}#{message.get('attempt') or 1}"
                result = {"status": "failed"}
            said = task_record.record(run, start, end, result, about.context)
            # For what it remembers: the record names the function alone.
            self.predictor.tool_type_of(about.function, about.kind, about.context)
            self.predictor.collect_data_for_task(task_id, about.function, said)
        except Exception:  # noqa: BLE001 - Maze's dispatch goes on
            self._failed("observing")

    def follow(
        self,
        run: object,
        tasks: Mapping[Any, Any],
        parents: Callable[[], Mapping[Any, Iterable[Any]]],
        arrived: object = None,
        deadline: object = None,
    ) -> None:
        """Keep the prediction of a whole run up to date, on a thread of its own."""
        try:
            name = str(run or "")
            if name:
                self._progress.put(
                    name,
                    len(tasks),
                    lambda: asked.shape(name, dict(tasks), dict(parents())),
                    _number(arrived),
                    _number(deadline),
                )
        except Exception:  # noqa: BLE001 - Maze's dispatch goes on
            self._failed("following a run")

    def close(self) -> None:
        """Send what is left, and stop."""
        self._progress.close()
        self.predictor.close()

    def _answer(self, about: Asked) -> tuple[Prediction | None, str]:
        """The predictor's answer and what Maze calls its source; None where it knows nothing."""
        if not about.function:
            return None, ""
        answer = self.predictor.estimate(
            about.function,
            about.kind or None,
            about.predecessors,
            features=about.context or None,
            task_id=about.task_id or None,
        )
        # A static default of ours is no better than Maze's own.
        if answer.source == "heuristic" or not 0.0 < answer.seconds < math.inf:
            return None, ""
        if answer.source == "tool_history" and self.predictor.is_generic(about.function):
            return None, ""  # an average of unlike tasks: Maze has one of its own
        version = "" if answer.model_version is None else f":v{answer.model_version}"
        return answer, f"malearn:{answer.source}{version}"

    def _failed(self, where: str) -> None:
        """Our own failure: counted, and shown once."""
        self.failures += 1
        # Once: a failure that lasts would write a traceback at every dispatch.
        if self.failures == 1:
            _log.exception("malearn failed in %s; Maze's own estimate is used", where)


def _usable(own: Any, kind: str, prediction: type[Any]) -> Any:
    """Maze's estimate where it is finite and positive, else the default of its kind."""
    seconds = _number(getattr(own, "predicted_duration", None))
    if seconds is not None and seconds > 0.0:
        return own
    return prediction(
        predicted_duration=_DEFAULTS.get(kind, _DEFAULTS["cpu"]),
        prediction_source="task_kind_default",
        confidence=0.0,
        sample_count=0,
        task_kind=kind,
        code_hash=getattr(own, "code_hash", None),
    )


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
