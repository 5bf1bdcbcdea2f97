"""Plugging malearn into Maze's classes, in this process, and unplugging it again.

Maze has no hook. Its estimator is replaced by a subclass that asks malearn first, and four
methods of its dispatcher are wrapped: they receive what the estimator does not: the run and the
predecessors of a task, and its outcome.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from malearn.integrations.maze import target, warm_start
from malearn.integrations.maze.adapter import Adapter
from malearn.integrations.maze.target import Target
from malearn.kernel import generic
from malearn.kernel.home import Home
from malearn.serving import DAGTaskPredictor

__all__ = ["install", "uninstall"]

_log = logging.getLogger("malearn.maze")

_INIT = "__init__"
_STATIC = "_static_scheduling_context"
_DYNAMIC = "_dynamic_scheduling_context"
_OBSERVE = "_observe_task_runtime"
#: What an estimator of ours has, and none of Maze's.
_OURS = "from_malearn"

_lock = threading.Lock()
#: What is plugged in: the adapter, Maze's class, and its own methods by name.
_installed: tuple[Adapter, type[Any], dict[str, Any]] | None = None


def install(predictor: DAGTaskPredictor | None = None) -> Adapter:
    """Let Maze's scheduler in this process predict with malearn; call it before Maze starts.

    Without a `predictor` one is built for `$MALEARN_REDIS_URL`, where that is set, and
    `$MLFLOW_TRACKING_URI`; it begins with what the run store in `$MAZE_WORKSPACE_DIR` tells of
    earlier runs. Safe to repeat. Raises `IntegrationError`, having changed nothing, where Maze
    is not installed or not as it is known.
    """
    global _installed
    with _lock:
        if _installed is not None:
            if predictor is not None:
                _installed[0].use(predictor)
            return _installed[0]
        # Everything that can fail comes before the first method is replaced.
        maze = target.find()
        if predictor is None:
            predictor = _predictor()
            warm_start.begin(predictor)
        adapter = Adapter(predictor)
        wrapped = _wrapped(adapter, maze)
        # `__dict__`, not getattr: an inherited method is not to be put back into the subclass.
        own = {name: maze.path.__dict__.get(name) for name in wrapped}
        for name, method in wrapped.items():
            setattr(maze.path, name, method)
        _installed = (adapter, maze.path, own)
        return adapter


def uninstall() -> None:
    """Give Maze its own methods back and close the predictor; estimators in use answer on."""
    global _installed
    with _lock:
        if _installed is None:
            return
        adapter, path, own = _installed
        for name, method in own.items():
            if method is None:  # it was inherited
                delattr(path, name)
            else:
                setattr(path, name, method)
        _installed = None
        adapter.close()


def _predictor() -> DAGTaskPredictor:
    """One that reads and writes no Redis but a given one: Maze's head has Ray on port 6379."""
    return DAGTaskPredictor(
        redis_url=os.environ.get("MALEARN_REDIS_URL", ""),
        tool_types=generic.with_generic(generic.declared(Home.find())),
    )


def _wrapped(adapter: Adapter, maze: Target) -> dict[str, Callable[..., Any]]:
    """The methods that take the place of Maze's, by name; each calls the one it replaces."""
    path, estimator = maze.path, _estimator(adapter, maze)
    init, static, dynamic, observe = (
        getattr(path, name) for name in (_INIT, _STATIC, _DYNAMIC, _OBSERVE)
    )

    left_alone: set[type[Any]] = set()

    def plug(self: Any) -> None:
        """Replace the estimator, unless it is ours already or somebody else's."""
        own = getattr(self, "runtime_estimator", None)
        if isinstance(own, estimator):
            return
        # Not isinstance: a subclass is somebody else's, who wants it asked; but for one of ours
        # from before an `uninstall`, which would ask a predictor that is closed.
        if own is None or type(own) is maze.estimator or hasattr(own, _OURS):
            self.runtime_estimator = estimator.continuing(own)
        elif type(own) not in left_alone:  # once: this is asked at every dispatch
            left_alone.add(type(own))
            _log.warning("Maze's estimator is a %s, which is left alone", type(own).__name__)

    @functools.wraps(init)
    def new_init(self: Any, *given: Any, **named: Any) -> None:
        init(self, *given, **named)
        plug(self)

    @functools.wraps(static)
    def new_static(
        self: Any, workflow: Any, task_id: Any, submit_id: Any, *more: Any, **named: Any
    ) -> Any:
        # Again: its object may be older than `install`, or have got another estimator since.
        plug(self)

        def parents() -> Iterable[Any]:
            found: Iterable[Any] = workflow.graph.predecessors(task_id)
            return found

        with adapter.asking(submit_id, parents):
            found = static(self, workflow, task_id, submit_id, *more, **named)
        run = _attribute(self, "static_runs", submit_id)
        adapter.follow(
            submit_id,
            getattr(workflow, "tasks", {}),
            lambda: {t: list(workflow.graph.predecessors(t)) for t in workflow.tasks},
            _of_run(run, "created_time"),
            _of_run(run, "deadline_time"),
        )
        return found

    @functools.wraps(dynamic)
    def new_dynamic(self: Any, dynamic_run: Any, task: Any, *more: Any, **named: Any) -> Any:
        plug(self)
        run = getattr(dynamic_run, "run_id", "")

        def parents() -> Iterable[Any]:
            found: Iterable[Any] = dynamic_run.task_parents.get(task.task_id, ())
            return found

        with adapter.asking(run, parents):
            found = dynamic(self, dynamic_run, task, *more, **named)
        adapter.follow(
            run,
            getattr(dynamic_run, "tasks", {}),
            lambda: dict(dynamic_run.task_parents),
            _of_run(dynamic_run, "created_time"),
            _of_run(dynamic_run, "deadline_time"),
        )
        return found

    @functools.wraps(observe)
    def new_observe(
        self: Any, task: Any, message_data: Mapping[str, Any], *more: Any, **named: Any
    ) -> Any:
        # Ours first, which raises nothing; Maze's own may.
        adapter.observe(task, message_data, success=bool(named.get("success", True)))
        return observe(self, task, message_data, *more, **named)

    return {_INIT: new_init, _STATIC: new_static, _DYNAMIC: new_dynamic, _OBSERVE: new_observe}


def _estimator(adapter: Adapter, maze: Target) -> Any:
    """Maze's estimator, asking malearn first."""

    base: Any = maze.estimator

    class MalearnEstimator(base):  # type: ignore[misc]  # known only now
        """Maze's runtime estimator with malearn's predictions, its own where there is none."""

        from_malearn = True

        @classmethod
        def continuing(cls, own: Any) -> Any:
            """One that goes on from what `own` has observed; None begins afresh."""
            # Without __init__, whose arguments are not known; the state is all in the attributes.
            made = cls() if own is None else cls.__new__(cls)
            made.__dict__.update(vars(own) if own is not None else {})
            return made

        def predict(self, task: Any) -> Any:
            try:
                own = super().predict(task)
            except Exception:  # noqa: BLE001 - it would stop Maze's dispatch
                own = None
            return adapter.predict(task, own, maze.prediction)

    return MalearnEstimator


def _attribute(owner: Any, name: str, key: Any) -> Any:
    found = getattr(owner, name, None)
    return found.get(key) if isinstance(found, Mapping) else None


def _of_run(run: Any, name: str) -> Any:
    return run.get(name) if isinstance(run, Mapping) else getattr(run, name, None)
