"""Tool types retrained several at once: one that fails stops no other."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from malearn.flows import task_runner
from malearn.kernel.errors import InputError, MalearnError, TrainingError, UnknownToolType
from tests.flows.conftest import Cli


@pytest.mark.parametrize(
    "given",
    ["celery", "ray2://x", "process:many", "thread:0", "process:-1", "thread:²", "ray:", "dask://",
     "ray://host", "dask://:8786", "ray://host:port", "Thread", "thread:2 "],
)  # fmt: skip
def test_what_is_no_task_runner_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(task_runner.SETTING, given)
    with pytest.raises(InputError, match="MALEARN_TASK_RUNNER: must be thread or process") as error:
        task_runner.choice()
    assert str(error.value).endswith(f"not '{given}'.")


def test_a_command_refuses_it_before_a_server_is_started(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", "--home", tmp_path / "home", MALEARN_TASK_RUNNER="celery")
    assert done.returncode == 1
    assert done.stderr.startswith("malearn: MALEARN_TASK_RUNNER: must be thread or process")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "home").exists()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(task_runner.SETTING, "dask://host:8786")
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.path_importer_cache", {})
    with pytest.raises(InputError, match=r"'dask://host:8786' needs .* extra malearn\[dask\]\.$"):
        task_runner.choice()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("", None),
        ("thread", ("thread", None, None)),
        ("process:12", ("process", 12, None)),
        ("ray", ("ray", None, None)),
        ("ray://head.example.com:10001", ("ray", None, "ray://head.example.com:10001")),
        ("dask://[::1]:8786", ("dask", None, "dask://[::1]:8786")),
    ],
)
def test_each_task_runner_is_known_by_its_name(
    given: str, found: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_runner, "find_spec", lambda name: name)  # whatever is installed
    monkeypatch.setenv(task_runner.SETTING, given)
    expected = found and task_runner.TaskRunnerChoice(*found)
    assert task_runner.choice() == expected


def test_workers_elsewhere_get_servers_storage_and_names_but_no_secrets_they_do_not_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed = {"MALEARN_DATA", "MLFLOW_TRACKING_URI", "PREFECT_API_URL", "AWS_REGION"}
    for name in (*needed, "HOSTNAME_OF_MINE", "MALEARN_HTTP_TOKEN", "MALEARN_NOTIFY"):
        monkeypatch.setenv(name, "x")
    passed_on = task_runner.environment()
    assert needed <= set(passed_on)
    assert not {"HOSTNAME_OF_MINE", "MALEARN_HTTP_TOKEN", "MALEARN_NOTIFY"} & set(passed_on)


@pytest.mark.parametrize(
    "error",
    [TrainingError("llm", "no room"), UnknownToolType("x", ["y"]), InputError("a", "is bad")],
)
def test_an_error_comes_back_from_another_process_as_it_was(error: MalearnError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


@pytest.fixture
def several(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[dict[str, Any], dict[str, Exception]]]:
    """Runs a small task of each name by a task runner: "bad" fails, "deadly" ends its process."""
    from uuid import UUID

    from prefect import flow, task
    from prefect.runtime import flow_run

    @task(task_run_name="small {name}")
    def small(name: str) -> tuple[int, str]:
        if name == "bad":
            raise TrainingError(name, "no room")
        if name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid(), os.environ["MALEARN_PREFIX"]

    @flow
    def run(
        chosen: task_runner.TaskRunnerChoice, names: Sequence[str]
    ) -> tuple[dict[str, Any], dict[str, Exception]]:
        futures: dict[str, Any] = {}
        try:
            with chosen.build() as runner:
                for one in names:
                    futures[one] = runner.submit(small, {"name": one})
                return task_runner.wait(futures, lambda _: None, lambda *_: None)
        finally:
            task_runner.mark_interrupted(futures, UUID(flow_run.id))

    def by(runner: str, *names: str) -> tuple[dict[str, Any], dict[str, Exception]]:
        monkeypatch.setenv("MALEARN_PREFIX", "elsewhere")
        monkeypatch.setenv(task_runner.SETTING, runner)
        chosen = task_runner.choice()
        assert chosen is not None
        return run(chosen, names)

    return by


Several = Callable[..., tuple[dict[str, Any], dict[str, Exception]]]


def test_a_task_that_takes_its_process_with_it_stops_no_other(several: Several) -> None:
    # One process, which the last one ends.
    results, failures = several("process:1", "good", "bad", "deadly")
    assert list(results) == ["good"]
    assert results["good"][0] != os.getpid()
    assert str(failures["bad"]) == str(TrainingError("bad", "no room"))
    assert "deadly cannot be trained: its worker was lost (" in str(failures["deadly"])


def test_a_task_that_was_interrupted_is_marked_as_crashed(prefect_api: str) -> None:
    from prefect import task
    from prefect.client.orchestration import get_client
    from prefect.futures import PrefectDistributedFuture
    from prefect.states import Completed, Running, State

    class Future(PrefectDistributedFuture[None]):
        """Prefect's own asks the server for its state over a client that it never closes."""

        @property
        def state(self) -> State[None]:
            with get_client(sync_client=True) as client:
                return client.read_task_run(self.task_run_id).state or Running()

    small = task(lambda: None, name="small")
    with get_client(sync_client=True) as client:
        futures = {
            key: Future(client.create_task_run(small, None, key, name=key, state=state).id)
            for key, state in (("running", Running()), ("ended", Completed()))
        }
    task_runner.mark_interrupted(futures, uuid4())
    assert futures["ended"].state.is_completed()
    assert futures["running"].state.is_crashed()
    assert futures["running"].state.message == task_runner.INTERRUPTED


def test_threads_go_on_where_one_fails(several: Several) -> None:
    results, failures = several("thread:2", "bad", "good")
    assert results["good"] == (os.getpid(), "elsewhere")
    assert str(failures["bad"]) == str(TrainingError("bad", "no room"))


def test_ray_runs_tasks_elsewhere_and_brings_their_errors_back(several: Several) -> None:
    pytest.importorskip("prefect_ray")
    results, failures = several("ray", "bad", "good")
    assert results["good"][0] != os.getpid()
    assert results["good"][1] == "elsewhere"
    assert isinstance(failures["bad"], TrainingError)
    assert "no room" in str(failures["bad"])


def test_a_dask_elsewhere_is_reached_by_its_address(several: Several) -> None:
    pytest.importorskip("prefect_dask")
    from distributed import LocalCluster

    # Threads: another process would take as long again to import the same.
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address=None,
    ) as cluster:
        address = cluster.scheduler_address.replace("tcp://", "dask://")
        results, failures = several(address, "bad", "good")
    assert results["good"][1] == "elsewhere"
    assert "no room" in str(failures["bad"])
