"""malearn inside Maze's head process: it answers, learns, and never gets in the way."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from malearn import maze
from malearn.data.maze import outcomes, run, store
from malearn.data.stream import Stream
from malearn.integrations.maze import Adapter, target, warm_start
from malearn.kernel import generic
from malearn.kernel.errors import IntegrationError
from malearn.kernel.home import Home
from malearn.kernel.prediction import Prediction
from malearn.kernel.reading import run_ids
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import declared
from malearn.platform import EmbeddedRedis
from malearn.serving import DAGTaskPredictor

RUN = "18e5d7d8-f37a-4a88-8eb1-074882395c8b"
ANSWER = {"text_length": 500, "token_count": 125, "reason": 1}
SAID = {"succ_task_feat": {"task2_llm_process_qwen": ANSWER}}
Head = Callable[[], Any]


@pytest.fixture
def predictor(tmp_path: Path) -> Iterator[DAGTaskPredictor]:
    """One without Redis and MLflow."""
    types = generic.with_generic(declared())
    with DAGTaskPredictor(redis_url="", cache_dir=tmp_path / "cache", tool_types=types) as made:
        yield made


class Workflow:
    """A static workflow of Maze."""

    def __init__(self, edges: Mapping[str, tuple[str, ...]], tasks: Mapping[str, Any]) -> None:
        self.tasks = dict(tasks)
        self.graph = SimpleNamespace(
            predecessors=lambda task_id: iter(edges.get(task_id, ())), graph={}
        )


def task(task_id: str, name: str, kind: str = "gpu", anchor: object = None) -> Any:
    return SimpleNamespace(
        task_id=task_id, task_name=name, task_kind=kind, model_anchor=anchor, resources={}
    )


def chain() -> Workflow:
    tasks = {
        "task_a": task("task_a", "read_pages", "cpu"),
        "task_b": task("task_b", "task2_llm_process_qwen"),
    }
    return Workflow({"task_b": ("task_a",)}, tasks)


def ended(seconds: float, result: object = None, run: str = RUN, **more: Any) -> dict[str, Any]:
    now = time.time()
    times = {"started_at": now - seconds, "finished_at": now}
    return {"workflow_id": run, "result": result, "node_id": "n"} | times | more


def teach(path: Any, flow: Workflow, seconds: float, times: int = 3) -> None:
    """Let the chain run a few times."""
    for number in range(times):
        run = f"{RUN[:-2]}{number:02d}"
        path._observe_task_runtime(flow.tasks["task_a"], ended(0.1, SAID, run), success=True)
        done = ended(seconds, {"curr_task_feat": ANSWER}, run)
        path._observe_task_runtime(flow.tasks["task_b"], done, success=True)


def test_predictions_carry_where_they_come_from_and_what_they_stand_on(
    head: Head, predictor: DAGTaskPredictor
) -> None:
    maze.install(predictor)
    path, flow = head(), chain()
    first = path._static_scheduling_context(flow, "task_b", RUN)
    assert (first["predicted_duration"], first["prediction_source"]) == (60.0, "task_kind_default")
    teach(path, flow, 7.0)
    found = path._static_scheduling_context(flow, "task_b", RUN)
    assert found["prediction_source"] == "malearn:function_history"
    assert found["predicted_duration"] == pytest.approx(7.0, rel=0.05)
    assert found["prediction_sample_count"] == 3
    assert 0.0 < found["prediction_confidence"] <= 1.0
    assert found["code_hash"] == "hash"


def test_a_model_is_named_with_its_version(
    head: Head, predictor: DAGTaskPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    maze.install(predictor)
    path = head()
    answer = Prediction(3.5, 3.0, 4.0, "model", 7, 0.8)
    monkeypatch.setattr(predictor, "estimate", lambda *given, **named: answer)
    found = path._static_scheduling_context(chain(), "task_b", RUN)
    assert (found["predicted_duration"], found["prediction_source"]) == (3.5, "malearn:model:v7")


def test_the_predictor_is_asked_with_the_run_the_predecessors_and_the_context(
    head: Head, predictor: DAGTaskPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    real = predictor.estimate

    def estimate(*given: Any, **named: Any) -> Prediction:
        asked.append((*given, named))
        return real(*given, **named)

    monkeypatch.setattr(predictor, "estimate", estimate)
    maze.install(predictor)
    path, flow = head(), chain()
    flow.tasks["task_b"].model_anchor = {"local_model": "Qwen3-8B", "backend": "vllm"}
    path._static_scheduling_context(flow, "task_b", RUN)
    dynamic = SimpleNamespace(run_id=RUN, tasks=flow.tasks, task_parents={"task_b": {"task_a"}})
    path._dynamic_scheduling_context(dynamic, flow.tasks["task_b"])
    path.runtime_estimator.predict(flow.tasks["task_b"])  # by somebody who knows no run
    named = {"features": {"model": "Qwen3-8B", "backend": "vllm"}, "task_id": f"{RUN}-task_b"}
    whole = ("task2_llm_process_qwen", "gpu", (f"{RUN}-task_a",), named)
    alone = ("task2_llm_process_qwen", "gpu", (), named | {"task_id": None})
    assert asked == [whole, whole, alone]


@pytest.mark.parametrize("answer", [math.inf, math.nan, 0.0, -1.0])
def test_what_is_no_duration_never_reaches_the_queue(
    head: Head, predictor: DAGTaskPredictor, monkeypatch: pytest.MonkeyPatch, answer: float
) -> None:
    """`inf` would sort first for ever; Maze's own is no better where it is one."""
    maze.install(predictor)
    path, flow = head(), chain()
    monkeypatch.setattr(
        predictor, "estimate", lambda *g, **n: Prediction(answer, answer, answer, "model", 1)
    )
    path.runtime_estimator.averages["gpu"] = 5.0
    found = path._static_scheduling_context(flow, "task_b", RUN)
    assert (found["predicted_duration"], found["prediction_source"]) == (5.0, "task_kind_ema")
    path.runtime_estimator.broken = answer
    found = path._static_scheduling_context(flow, "task_b", RUN)
    assert (found["predicted_duration"], found["prediction_source"]) == (60.0, "task_kind_default")


def test_a_failure_on_either_side_is_answered_with_what_is_left(
    head: Head, predictor: DAGTaskPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = maze.install(predictor)
    path, flow = head(), chain()

    def fail(*given: Any, **named: Any) -> Any:
        raise RuntimeError("broken")

    for name in ("estimate", "collect_data_for_task", "estimate_workflow"):
        monkeypatch.setattr(predictor, name, fail)
    flow.graph.predecessors = fail
    path._observe_task_runtime(flow.tasks["task_b"], ended(5.0), success=True)
    found = path._static_scheduling_context(flow, "task_b", RUN)
    assert (found["predicted_duration"], found["prediction_source"]) == (5.0, "task_kind_ema")
    assert adapter.failures > 0
    path.runtime_estimator.broken = RuntimeError("Maze's own")
    found = path._static_scheduling_context(flow, "task_b", RUN)
    assert found["predicted_duration"] == 60.0


def test_nonsense_in_a_message_is_survived(head: Head, predictor: DAGTaskPredictor) -> None:
    adapter = maze.install(predictor)
    for message in ({}, {"workflow_id": 3}, ended(1.0, [1]), ended(1.0, "x"), {"workflow_id": RUN}):
        adapter.observe(task("task_a", "read_pages"), message, success=True)
    adapter.observe(SimpleNamespace(), ended(1.0), success=True)
    assert adapter.failures == 0
    assert predictor.observed("read_pages") == 0 or predictor.stats().internal_errors == 0


def test_a_failed_attempt_teaches_nothing(head: Head, predictor: DAGTaskPredictor) -> None:
    maze.install(predictor)
    path, flow = head(), chain()
    for attempt in (1, 2):
        lost = ended(900.0, None, attempt=attempt)
        path._observe_task_runtime(flow.tasks["task_b"], lost, success=False)
    teach(path, flow, 7.0, times=2)
    found = path._static_scheduling_context(flow, "task_b", RUN)
    assert found["predicted_duration"] == pytest.approx(7.0, rel=0.05)
    assert found["prediction_sample_count"] == 2
    assert predictor.stats().rejected == {"soft_failed": 2}


def test_functions_of_any_name_get_a_history_and_features_of_their_own(
    head: Head, predictor: DAGTaskPredictor
) -> None:
    maze.install(predictor)
    path = head()
    fuse = task("task_f", "gaia_fuse_answers")
    flow = Workflow({"task_f": ("task_a",)}, {"task_a": task("task_a", "read"), "task_f": fuse})
    said = {"succ_task_feat": {"gaia_fuse_answers": {"pages": 12, "note": "x"}}}
    first = path._static_scheduling_context(flow, "task_f", RUN)
    path._observe_task_runtime(flow.tasks["task_a"], ended(1.0, said), success=True)
    path._observe_task_runtime(fuse, ended(9.0, {"curr_task_feat": {"pages": 12}}), success=True)
    found = path._static_scheduling_context(flow, "task_f", RUN)
    assert first["prediction_source"] == "task_kind_default"
    assert found["prediction_source"] == "malearn:function_history"
    other = task("task_g", "gaia_model_answer")
    path.runtime_estimator.predict(other)
    assert path.runtime_estimator.predict(other).prediction_source == "task_kind_ema"


def test_what_is_used_is_what_is_recorded(
    head: Head, redis_url: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    types = generic.with_generic(declared())
    with DAGTaskPredictor(redis_url, cache_dir=tmp_path, tool_types=types) as predictor:
        maze.install(predictor)
        path, flow = head(), chain()
        path._observe_task_runtime(flow.tasks["task_a"], ended(0.1, SAID), success=True)
        used = path._static_scheduling_context(flow, "task_b", RUN)["predicted_duration"]
        done = ended(5.0, {"curr_task_feat": ANSWER})
        path._observe_task_runtime(flow.tasks["task_b"], done, success=True)
        maze.uninstall()
    with Stream(redis_url, types) as stream:
        _, batch = stream.read(0)
    (row,) = batch.rows["llm_process"]
    assert used == 60.0, "malearn knew nothing yet"
    assert (row.predicted, row.model_version) == (60.0, None)
    assert row.task_id == run_ids.of_task(RUN, "task_b")
    assert row.serve[:2] == (500.0, 125.0)
    assert [row.function for row in batch.rows["other"]] == ["read_pages"]


def test_two_heads_on_one_redis_learn_from_each_other_and_nothing_twice(
    head: Head, redis_url: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """The second stands for another process: Maze's names can be imported once in each."""
    types = generic.with_generic(declared())
    own, others = f"{RUN[:-2]}aa", f"{RUN[:-2]}bb"
    said = {"curr_task_feat": ANSWER}
    with (
        DAGTaskPredictor(redis_url, cache_dir=tmp_path / "1", tool_types=types) as predictor,
        DAGTaskPredictor(redis_url, cache_dir=tmp_path / "2", tool_types=types) as second,
    ):
        maze.install(predictor)
        other, path, flow = Adapter(second), head(), chain()
        assert predictor.wait_until_ready(60.0)
        assert second.wait_until_ready(60.0)
        path._observe_task_runtime(flow.tasks["task_b"], ended(7.0, said, own), success=True)
        other.observe(flow.tasks["task_b"], ended(9.0, said, others), success=True)
        name = flow.tasks["task_b"].task_name
        wait_for(lambda: predictor.observed(name) == second.observed(name) == 2)
        # Two more rounds of following, in which each sees its own and the other's entries again.
        path._observe_task_runtime(flow.tasks["task_a"], ended(0.1, run=own), success=True)
        other.observe(flow.tasks["task_a"], ended(0.2, run=others), success=True)
        wait_for(lambda: predictor.observed("read_pages") == second.observed("read_pages") == 2)
        assert predictor.observed(name) == second.observed(name) == 2
        found = path._static_scheduling_context(flow, "task_b", RUN)
        assert found["prediction_source"] == "malearn:function_history"
        assert 7.0 < found["predicted_duration"] < 9.0
        assert found["prediction_sample_count"] == 2
        wait_for(lambda: redis_client.xlen("malearn:executions") == 4)
        maze.uninstall()
    with Stream(redis_url, types) as stream:
        _, batch = stream.read(0)
    rows = [row.task_id for found in batch.rows.values() for row in found]
    assert sorted(rows) == sorted(
        run_ids.of_task(run, task) for run in (own, others) for task in ("task_a", "task_b")
    )


def wait_for(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 60.0
    while not holds() and time.monotonic() < until:
        time.sleep(0.02)
    assert holds()


def test_a_burst_without_redis_waits_for_nobody(
    head: Head, predictor: DAGTaskPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one call may sleep, connect or take a lock for long: none of it is even tried."""
    import socket
    import threading

    ours, connect = threading.current_thread(), socket.socket.connect

    def refuse(*given: Any, **named: Any) -> Any:
        if threading.current_thread() is not ours:  # background threads may
            return connect(*given, **named)
        raise AssertionError("the event loop would wait")

    adapter = maze.install(predictor)
    path, flow = head(), chain()
    teach(path, flow, 7.0)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for number in range(300):
        run = f"{number:08d}{RUN[8:]}"
        found = path._static_scheduling_context(flow, "task_b", run)
        assert found["prediction_source"] == "malearn:function_history"
    assert adapter.failures == 0
    assert predictor.stats().internal_errors == 0


def test_a_redis_that_is_killed_changes_no_answer(head: Head, tmp_path: Path) -> None:
    types = generic.with_generic(declared())
    with EmbeddedRedis(Home(tmp_path)) as server:
        predictor = DAGTaskPredictor(server.url, cache_dir=tmp_path, tool_types=types)
        maze.install(predictor)
        path, flow = head(), chain()
        teach(path, flow, 7.0)
    for _ in range(3):
        found = path._static_scheduling_context(flow, "task_b", RUN)
        assert found["prediction_source"] == "malearn:function_history"
        teach(path, flow, 7.0, times=1)
    assert predictor.stats().internal_errors == 0
    maze.uninstall()


def test_whole_runs_are_predicted_with_their_deadlines(
    head: Head, predictor: DAGTaskPredictor
) -> None:
    adapter = maze.install(predictor)
    path, flow = head(), chain()
    teach(path, flow, 7.0)
    path.static_runs[RUN] = {"created_time": time.time(), "deadline_time": time.time() + 3600.0}
    path._static_scheduling_context(flow, "task_a", RUN)
    until = time.monotonic() + 60.0
    while RUN not in adapter.workflows and time.monotonic() < until:
        time.sleep(0.01)
    found = adapter.workflows[RUN]
    assert found.seconds == pytest.approx(7.1, rel=0.1)
    assert found.late is not None and found.late < 0.5
    assert found.critical == (f"{RUN}-task_a", f"{RUN}-task_b")


def test_maze_that_was_imported_before_is_plugged_into_as_well(
    head: Head, predictor: DAGTaskPredictor
) -> None:
    path, flow = head(), chain()
    path._observe_task_runtime(flow.tasks["task_b"], ended(5.0), success=True)
    maze.install(predictor)
    found = path._static_scheduling_context(flow, "task_b", RUN)
    assert (found["predicted_duration"], found["prediction_source"]) == (5.0, "task_kind_ema")
    assert type(path.runtime_estimator).__name__ == "MalearnEstimator"


def test_installing_twice_is_installing_once_and_uninstalling_leaves_maze_as_it_was(
    head: Head, predictor: DAGTaskPredictor
) -> None:
    path = type(head())
    before = dict(vars(path))
    adapter = maze.install(predictor)
    assert maze.install() is adapter
    maze.uninstall()
    maze.uninstall()
    assert dict(vars(path)) == before


def test_after_an_uninstall_another_predictor_answers_a_head_that_goes_on(
    head: Head, predictor: DAGTaskPredictor, tmp_path: Path
) -> None:
    maze.install(predictor)
    path, flow = head(), chain()
    teach(path, flow, 7.0)
    maze.uninstall()
    with DAGTaskPredictor("", cache_dir=tmp_path) as another:
        maze.install(another)
        found = path._static_scheduling_context(flow, "task_b", RUN)
        assert found["prediction_source"] == "task_kind_ema"
        teach(path, flow, 3.0)
        found = path._static_scheduling_context(flow, "task_b", RUN)
        assert found["prediction_source"] == "malearn:function_history"
        assert found["predicted_duration"] == pytest.approx(3.0, rel=0.05)


def test_an_estimator_of_somebody_else_is_left_alone_and_said_so_once(
    head: Head, predictor: DAGTaskPredictor, caplog: pytest.LogCaptureFixture
) -> None:
    path, flow = head(), chain()
    base: Any = type(path.runtime_estimator)
    path.runtime_estimator = type("Theirs", (base,), {})()
    maze.install(predictor)
    for _ in range(3):
        found = path._static_scheduling_context(flow, "task_b", RUN)
    assert found["prediction_source"] == "task_kind_default"
    said = [record.getMessage() for record in caplog.records]
    assert said == ["Maze's estimator is a Theirs, which is left alone"]


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("path/path.py", "workflow, task_id, submit_id", "workflow, task", "takes"),
        ("path/path.py", ", *, success", "", "takes"),
        (
            "path/path.py",
            "def _observe_task_runtime",
            "def _observe",
            "there is no MaPath._observe",
        ),
        ("path/path.py", "class MaPath", "class Path", "no class MaPath"),
        ("scheduler/runtime_estimator.py", "def predict(self, task)", "def predict(self)", "takes"),
        ("scheduler/runtime_estimator.py", "    sample_count: int\n", "", "no field sample_count"),
        ("scheduler/runtime_estimator.py", "class RuntimeEstimator", "class E", "no class Runtime"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(
    head: Head, maze_files: Path, file: str, old: str, new: str, sentence: str
) -> None:
    place = maze_files / "maze" / "core" / file
    place.write_text(place.read_text().replace(old, new))
    with pytest.raises(IntegrationError, match=sentence) as refused:
        maze.install()
    assert str(refused.value).startswith("Maze: ")
    assert str(refused.value).count(". ") == 0
    assert "\n" not in str(refused.value)


def test_the_dispatcher_is_found_wherever_it_stands(head: Head, maze_files: Path) -> None:
    core = maze_files / "maze" / "core"
    (core / "path" / "path.py").rename(core / "dispatch.py")
    assert target.find().path.__module__ == "maze.core.dispatch"


def run_command(maze_files: Path | None, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"MAZE_WORKSPACE_DIR": "", "PYTHONPATH": str(maze_files or "")}
    command = [sys.executable, "-m", "malearn.maze", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_heads_that_the_command_line_starts_have_malearn_inside(maze_files: Path) -> None:
    """A detached one is the command line started anew, in a process of its own."""
    done = run_command(maze_files, "start", "--head", "--detach", "--port", "8000")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["MalearnEstimator", "start", "--head", "--port", "8000"]


def test_a_head_needs_what_the_small_installation_brings_and_no_more(
    maze_files: Path, maze_run: Callable[..., None], tmp_path: Path
) -> None:
    maze_run(tmp_path / "workspace" / "workflow_runs", 1)
    script = """
import sys, threading
from malearn import maze
adapter = maze.install()
for thread in threading.enumerate():
    if thread.name == "malearn-maze-store":
        thread.join()
print(adapter.predictor.observed("read_pages"))
maze.uninstall()
tops = {name.partition(".")[0] for name in sys.modules if "." not in name}
print(*sorted(tops - set(sys.stdlib_module_names)))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        capture_output=True,
        text=True,
        env=os.environ
        | {"MAZE_WORKSPACE_DIR": str(tmp_path / "workspace"), "PYTHONPATH": str(maze_files)}
        | {"MALEARN_HOME": str(tmp_path)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    observed, loaded = done.stdout.splitlines()
    assert observed == "1", "it reads its store with no more than that, too"
    heavy = {"deltalake", "pyarrow", "pandas", "mlflow", "sklearn", "xgboost", "redis", "prefect"}
    assert not heavy & set(loaded.split())


def test_without_maze_the_command_says_so(tmp_path: Path) -> None:
    if importlib.util.find_spec("maze") is not None:
        pytest.skip("Maze is installed here")
    done = run_command(None, "start", "--head")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("Maze: is not installed")


def test_a_head_begins_with_what_its_own_store_remembers(
    head: Head, predictor: DAGTaskPredictor, traces: Path
) -> None:
    seen = warm_start.observations(traces / "maze_head")
    assert len(seen) == 84
    predictor.remember(seen)
    maze.install(predictor)
    found = head()._static_scheduling_context(chain(), "task_b", RUN)
    assert found["prediction_source"] == "malearn:function_history"
    assert found["prediction_sample_count"] == 23


def test_the_store_and_the_head_name_a_task_alike(traces: Path) -> None:
    """Else what comes by the stream and by the store would be counted twice."""
    for folder in store.find([traces / "maze_head"]):
        found = run.read(folder)
        for outcome in outcomes.of_run(found, declared()):
            if isinstance(outcome, Execution):
                (node,) = [
                    t for t in found.tasks if run_ids.of_task(found.run_id, t) == outcome.task_id
                ]
                assert found.tasks[node].function == outcome.function


def test_the_real_maze_has_the_signatures_that_are_relied_on() -> None:
    pytest.importorskip("maze.core.scheduler.runtime_estimator", reason="Maze is not installed")
    assert target.find().path.__name__ == "MaPath"
