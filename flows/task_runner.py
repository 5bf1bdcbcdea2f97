"""The task runner that retrains tool types, several at once, as `$MALEARN_TASK_RUNNER` names it.

`thread` and `process`, each with a number of workers after a colon, run on this machine; so do
`ray` and `dask`, as a cluster that lasts as long as the flow. `ray://host:port` and
`dask://host:port` are clusters elsewhere. Without the variable there is no task runner: tool types
are retrained one after the other in the process of the flow.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from uuid import UUID

from malearn.kernel.errors import InputError, MalearnError, TrainingError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

__all__ = ["SETTING", "TaskRunnerChoice", "choice", "environment", "mark_interrupted", "wait"]

SETTING = "MALEARN_TASK_RUNNER"
INTERRUPTED = "Its worker was lost, or the flow was interrupted, while it ran."

_LOCAL = re.compile(r"(thread|process)(?::([1-9][0-9]{0,3}))?", re.ASCII)
_CLUSTER = re.compile(r"(ray|dask)(?:://([^/:\s]+|\[[0-9a-fA-F:]+\]):([1-9][0-9]{0,4}))?", re.ASCII)
#: How long Prefect may take to record a task run that has begun, in seconds: it learns of task runs
#: by events, and late. One that it does not know by then was never begun.
_RECORDED_WITHIN = 10.0

#: What each extra brings beside Prefect.
_LIBRARIES = {"ray": ("prefect_ray", "ray"), "dask": ("prefect_dask", "distributed")}
#: Variables that a worker elsewhere needs as they are here: servers, storage, names.
_PASSED_ON = ("MALEARN_", "MLFLOW_", "PREFECT_API_", "AWS_", "AZURE_", "GOOGLE_")
_KEPT_HERE = ("MALEARN_HTTP_TOKEN", "MALEARN_NOTIFY")  # secrets that training does not need


@dataclass(frozen=True, slots=True)
class TaskRunnerChoice:
    """A task runner by its kind, with how many workers it has or where its cluster is."""

    kind: str
    workers: int | None = None
    address: str | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether its tasks run in other processes, whose log lines do not arrive here."""
        return self.kind != "thread"

    def build(self) -> Any:
        """The task runner of Prefect's, to be entered by `with`."""
        makers: dict[str, Callable[[], Any]] = {
            "thread": self._threads,
            "process": self._processes,
            "ray": self._ray,
            "dask": self._dask,
        }
        return makers[self.kind]()

    def _threads(self) -> Any:
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner(max_workers=self.workers or os.cpu_count() or 1)

    def _processes(self) -> Any:
        from prefect.task_runners import ProcessPoolTaskRunner

        return ProcessPoolTaskRunner(max_workers=self.workers, initializer=_end_with_the_flow)

    def _ray(self) -> Any:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
        # Seconds; by default a node of a busy machine is given up before it has started.
        os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
        options: dict[str, Any] = {"runtime_env": {"env_vars": environment()}}
        if self.address is None:  # nothing of a cluster of our own listens beyond this machine
            options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        runner = import_module("prefect_ray").RayTaskRunner
        return runner(address=self.address, init_kwargs=options)

    def _dask(self) -> Any:
        runner = import_module("prefect_dask").DaskTaskRunner
        # After the import, which sets it: each connection of each worker would be a line.
        logging.getLogger("distributed").setLevel(logging.ERROR)
        if self.address is not None:
            return runner(address=self.address.replace("dask://", "tcp://"))
        cluster = {"host": "127.0.0.1", "dashboard_address": None, "threads_per_worker": 1}
        return runner(cluster_kwargs=cluster)


def choice() -> TaskRunnerChoice | None:
    """What `$MALEARN_TASK_RUNNER` names; None where it is not set. Imports and starts nothing.

    Raises `InputError` for what is no task runner, and where the library of one is missing.
    """
    given = os.environ.get(SETTING, "")
    if not given:
        return None
    if found := _LOCAL.fullmatch(given):
        return TaskRunnerChoice(found[1], workers=int(found[2]) if found[2] else None)
    found = _CLUSTER.fullmatch(given)
    if found is None:
        raise InputError(
            SETTING,
            "must be thread or process, with a number of workers as in process:4 or without; or "
            "ray or dask, with an address as in ray://host:10001 or dask://host:8786 or without; "
            f"not '{given}'",
        )
    missing = [name for name in _LIBRARIES[found[1]] if find_spec(name) is None]
    if missing:
        raise InputError(
            SETTING,
            f"'{given}' needs {' and '.join(missing)}: install the extra malearn[{found[1]}]",
        )
    return TaskRunnerChoice(found[1], address=given if found[2] else None)


def environment() -> dict[str, str]:
    """The variables that workers elsewhere need: servers, storage, names."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_PASSED_ON) and name not in _KEPT_HERE
    }


def wait(
    futures: Mapping[str, Any],
    begun: Callable[[str], None],
    ended: Callable[[str, Any], None],
) -> tuple[dict[str, Any], dict[str, Exception]]:
    """The results of `futures` and the errors of those that failed, each by its name.

    `begun` is called before a future is waited for, `ended` with its result. One that fails does
    not keep the others from being waited for.
    """
    results: dict[str, Any] = {}
    failures: dict[str, Exception] = {}
    for name, future in futures.items():
        begun(name)
        try:
            results[name] = future.result()
        except MalearnError as error:
            failures[name] = error
        except Exception as error:  # noqa: BLE001 - whatever a worker died of, the others go on
            failures[name] = error if future.state.is_final() else _lost(name, error)
        else:
            ended(name, results[name])
    return results, failures


def _lost(name: str, error: Exception) -> TrainingError:
    sentence = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return TrainingError(name, f"its worker was lost ({sentence})")


def mark_interrupted(futures: Mapping[str, Any], flow_run: UUID) -> None:
    """Mark as Crashed what is still in progress of `futures` and of the flows below `flow_run`.

    Nobody else ends the run of a task whose worker is gone. Call it once no worker is left.
    """
    from prefect.client.orchestration import get_client

    from malearn.flows import worker

    unfinished = [future for future in futures.values() if not future.state.is_final()]
    if not unfinished:
        return
    deadline = time.monotonic() + _RECORDED_WITHIN
    with get_client(sync_client=True) as client:
        for future in unfinished:
            while not _crashed(client, future.task_run_id) and time.monotonic() < deadline:
                time.sleep(0.25)
        worker.crash_below(client, [flow_run], INTERRUPTED)


def _crashed(client: SyncPrefectClient, task_run: UUID) -> bool:
    """Mark a task run as Crashed; False where Prefect knows none of that id, at least not yet."""
    from prefect.client.schemas.objects import State
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
    from prefect.states import Crashed

    state: State[Any] = Crashed(message=INTERRUPTED)
    try:
        client.set_task_run_state(task_run, state, force=True)
    except ObjectNotFound:
        return False
    except PrefectHTTPStatusError as error:
        if error.response.status_code == HTTPStatus.NOT_FOUND:
            return False
        raise
    return True


def _end_with_the_flow() -> None:
    """In a worker process: end when the process of the flow does, however that ended."""
    flow = multiprocessing.parent_process()
    assert flow is not None  # it was started by one

    def follow() -> None:
        flow.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True, name="follow the flow").start()
