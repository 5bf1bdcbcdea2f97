"""Workflows in progress as Maze's run stores tell of them: what is left, and who is told what."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from malearn import DAGTaskPredictor
from malearn.flows import maze_progress
from malearn.flows.commands import app
from malearn.flows.maze_gauges import MazeGauges
from malearn.kernel import generic
from malearn.kernel.errors import WorkflowError
from malearn.kernel.home import Home
from malearn.kernel.tool_types import declared
from malearn.kernel.workflows.workflow_status import WorkflowStatus
from malearn.operations.metrics import PlatformMetrics

RUN = "90000000-f37a-4a88-8eb1-074882395c8b"
ANSWER = {"text_length": 500, "token_count": 125, "reason": 1}
TYPES = generic.with_generic(declared())
FUNCTION = "task2_llm_process_qwen"

Write = Callable[..., None]


def event(kind: str, task: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "data": {"task_id": task, "attempt": 1} | data}


def read_pages(at: float) -> list[dict[str, Any]]:
    said = {"succ_task_feat": {FUNCTION: ANSWER}}
    times = {"started_at": at, "finished_at": at + 1.0}
    return [
        event("start_task", "a", started_at=at),
        event("finish_task", "a", result=said, **times),
    ]


def write(
    store: Path, events: Sequence[dict[str, Any]], status: str = "running", **more: Any
) -> None:
    """A run of three tasks in a row, in which `events` have happened."""
    folder = store / "static_runs" / RUN
    folder.mkdir(parents=True)
    nodes = {
        "a": {"task_name": "read_pages", "task_kind": "cpu"},
        "b": {"task_name": FUNCTION, "task_kind": "gpu"},
        "c": {"task_name": FUNCTION, "task_kind": "gpu"},
    }
    edges = [{"source": "a", "target": "b"}, {"source": "b", "target": "c"}]
    described = {"run_id": RUN, "status": status, "task_nodes": nodes, "graph": {"edges": edges}}
    (folder / "run.json").write_text(json.dumps(described | more))
    (folder / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events))


@pytest.fixture
def store(tmp_path: Path, maze_run: Write) -> Path:
    """A store with eight runs that ended, in which FUNCTION took 4 to 6 seconds."""
    for number in range(8):
        maze_run(tmp_path / "workspace", number)
    return tmp_path / "workspace"


@pytest.fixture
def predictor(tmp_path: Path) -> Iterator[DAGTaskPredictor]:
    with DAGTaskPredictor("", cache_dir=tmp_path / "cache", tool_types=TYPES) as one:
        yield one


def status(predictor: DAGTaskPredictor, store: Path, now: float) -> WorkflowStatus:
    run = maze_progress.find([store], RUN)
    assert run is not None
    maze_progress.begin(predictor, TYPES, [store], [run])
    return maze_progress.estimate(predictor, run, now)


def test_what_is_left_is_expected_from_what_the_runs_in_the_store_took(
    predictor: DAGTaskPredictor, store: Path
) -> None:
    now = time.time()
    events = [*read_pages(now - 2.0), event("start_task", "b", started_at=now - 1.0)]
    write(store, events, created_time=now - 3.0, deadline_time=now + 1.0)
    found = status(predictor, store, now)
    assert (found.tasks, found.done, found.running) == (3, 1, (FUNCTION,))
    assert found.next == (FUNCTION, FUNCTION)
    assert found.low < found.seconds < found.high
    assert 6.0 < found.seconds < 13.0  # twice about 5, less the second that has passed
    assert found.late is not None
    assert found.late > 0.9
    assert found.spent == pytest.approx(1.0)


def test_a_running_task_counts_as_less_the_longer_it_runs(
    predictor: DAGTaskPredictor, store: Path
) -> None:
    now = time.time()
    write(store, [*read_pages(now - 5.0), event("start_task", "b", started_at=now - 3.0)])
    begun = status(predictor, store, now - 3.0).seconds
    assert begun - status(predictor, store, now).seconds > 1.5


def test_an_attempt_that_failed_is_not_running_but_the_next_one_is(
    predictor: DAGTaskPredictor, store: Path
) -> None:
    now = time.time()
    failed = [
        *read_pages(now - 9.0),
        event("start_task", "b", started_at=now - 8.0),
        event("task_exception", "b", started_at=now - 8.0, finished_at=now - 6.0),
    ]
    again = event("start_task", "b", started_at=now - 1.0)
    again["data"]["attempt"] = 2
    write(store, failed)
    assert status(predictor, store, now).running == ()
    shutil.rmtree(store / "static_runs" / RUN)
    write(store, [*failed, again])
    found = status(predictor, store, now)
    assert (found.running, found.done) == ((FUNCTION,), 1)


def test_a_run_that_failed_has_ended_with_tasks_left(
    predictor: DAGTaskPredictor, store: Path
) -> None:
    write(store, read_pages(1_795_738_000.0), "failed", finished_time=1_795_738_009.0)
    found = status(predictor, store, time.time())
    assert found.ended == 1_795_738_009.0
    assert found.progress == pytest.approx(1 / 3)
    published = WorkflowStatus(RUN, 0.0, 3, 1, 9.0, 8.0, 10.0)
    assert maze_progress.still_open([published], maze_progress.recent([store])) == []


def test_tasks_that_wait_for_each_other_are_an_error_that_names_the_run(
    predictor: DAGTaskPredictor, store: Path
) -> None:
    circle = [{"source": "b", "target": "c"}, {"source": "c", "target": "b"}]
    write(store, [], graph={"edges": circle})
    with pytest.raises(WorkflowError, match=f"{RUN}: tasks wait for each other"):
        status(predictor, store, time.time())
    runs = [one for one in maze_progress.recent([store]) if not one.is_over]
    found, problems = maze_progress.estimated(predictor, TYPES, [store], runs)
    assert not found
    assert RUN in problems[0]


def test_real_runs_are_estimated_wherever_they_are_cut(
    predictor: DAGTaskPredictor, traces: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    places = sorted((traces / "maze_head").glob("*/*"))
    for place in (places[0], *places[-4:]):  # a dynamic one comes first
        described = json.loads((place / "run.json").read_bytes())
        if described["status"] not in ("succeeded", "finalized"):
            continue
        going_on = described | {"status": "running", "finished_time": None}
        lines = (place / "events.jsonl").read_text().splitlines()
        for upto in range(1, len(lines)):
            shutil.rmtree(cut, ignore_errors=True)
            folder = cut / place.parent.name / place.name
            folder.mkdir(parents=True)
            (folder / "run.json").write_text(json.dumps(going_on))
            (folder / "events.jsonl").write_text("\n".join(lines[:upto]) + "\n")
            kinds = [json.loads(line)["type"] for line in lines[:upto]]
            run = maze_progress.find([cut], place.name)
            assert run is not None
            found = maze_progress.estimate(predictor, run, described["finished_time"])
            assert found.done == kinds.count("finish_task")
            assert len(found.running) == kinds.count("start_task") - found.done
            assert found.ended is None
            assert (found.seconds > 0.0) == (found.done < found.tasks)


def test_the_commands_show_runs_of_a_store_and_write_nothing_to_redis(
    store: Path,
    tmp_path: Path,
    redis_url: str,
    redis_client: redis.Redis,
    tracking_uri: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MALEARN_REDIS_URL", redis_url)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("MALEARN_HOME", str(tmp_path / "home"))
    now = time.time()
    events = [*read_pages(now - 2.0), event("start_task", "b", started_at=now - 1.0)]
    write(store, events, created_time=now - 3.0)

    def malearn(*words: object) -> Any:
        done = CliRunner().invoke(app, [*map(str, words), "--maze", str(store)])
        assert done.exit_code == 0, done.output
        return done

    one = json.loads(malearn("eta", RUN, "--json").stdout)
    assert (one["tasks"], one["done"], one["running"]) == (3, 1, [FUNCTION])
    assert one["end"]["low"] < one["end"]["expected"] < one["end"]["high"]
    (listed,) = json.loads(malearn("status", "--workflows", "--json").stdout)
    assert listed["run_id"] == RUN
    assert f"running: {FUNCTION}" in malearn("eta", RUN).stdout
    over = f"{1:08d}-f37a-4a88-8eb1-074882395c8b"
    assert json.loads(malearn("eta", over, "--json").stdout)["progress"] == 1.0
    assert redis_client.keys("*") == []
    unknown = CliRunner().invoke(app, ["eta", "nobody", "--maze", str(store)])
    assert unknown.exit_code == 1
    assert "it is in no run store that was given" in unknown.stderr
    # What a scheduler has published of the same run is shown instead.
    published = WorkflowStatus(RUN, now, 3, 2, 9.0, 8.0, 10.0, arrived=now)
    redis_client.set(f"malearn:workflow:{RUN}", published.to_json())
    assert json.loads(malearn("eta", RUN, "--json").stdout)["done"] == 2
    (listed,) = json.loads(malearn("status", "--workflows", "--json").stdout)
    assert listed["done"] == 2


def test_maze_goes_with_workflows_and_a_directory_that_is_no_store_is_named(tmp_path: Path) -> None:
    wrong = CliRunner().invoke(app, ["status", "--maze", str(tmp_path)])
    assert wrong.exit_code == 2
    assert "--maze goes with --workflows" in wrong.output
    for words in (["eta", RUN], ["status", "--workflows"]):
        refused = CliRunner().invoke(app, [*words, "--maze", str(tmp_path)])
        assert refused.exit_code == 1
        assert "is no Maze run store" in refused.output


def test_gauges_show_runs_in_progress_and_forget_those_that_are_over(
    store: Path, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.time() - 3.0
    write(store, read_pages(began - 1.0), deadline_time=began + 600.0)
    home = Home.find(tmp_path)
    gauges = MazeGauges(home, [store], redis_url, "http://127.0.0.1:1")
    try:
        for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
            monkeypatch.setenv(name, "http://127.0.0.1:1/api")
        monkeypatch.setenv("MALEARN_REDIS_URL", redis_url)
        text = PlatformMetrics(home, list, gauges).text().decode()
        found = {
            line.split("{")[0]: float(line.split()[-1])
            for line in text.splitlines()
            if line.startswith("malearn_workflow_") and RUN in line
        }
        assert set(found) == {
            "malearn_workflow_progress",
            "malearn_workflow_expected_end",
            "malearn_workflow_expected_end_low",
            "malearn_workflow_expected_end_high",
            "malearn_workflow_late_probability",
        }
        assert 0.0 < found["malearn_workflow_progress"] < 1.0
        assert found["malearn_workflow_expected_end"] > began
        assert 'malearn_source_up{source="Maze"} 1.0' in text.splitlines()
        shutil.rmtree(store / "static_runs" / RUN)
        write(store, read_pages(began - 1.0), "failed")
        assert gauges() == []
    finally:
        gauges.close()
