"""Maze's run store in evaluations and simulations: its graphs are the definitions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from malearn.data.maze import reader
from malearn.flows import evaluate, simulate
from malearn.kernel.errors import InputError
from malearn.learning import maze_traces
from malearn.learning.policy_comparison import Settings

ANSWER = {"text_length": 500, "token_count": 125, "reason": 1}


def write(store: Path, number: int, *, fails: bool = False) -> None:
    """A run of two tasks, of which the second may fail."""
    run = f"{number:08d}-f37a-4a88-8eb1-074882395c8b"
    start = 1_795_738_445.0 + 20.0 * number
    said = {"task2_llm_process_qwen": ANSWER}
    nodes = {
        "task_a": {"task_name": "read_pages", "task_kind": "cpu", "parents": []},
        "task_b": {
            "task_name": "task2_llm_process_qwen",
            "task_kind": "gpu",
            "parents": ["task_a"],
        },
    }
    events = [
        {"task_id": "task_a", "started_at": start, "finished_at": start + 1.0}
        | {"result": {"succ_task_feat": said}},
        {"task_id": "task_b", "started_at": start + 2.0, "finished_at": start + 6.0 + number % 3}
        | {"result": {"curr_task_feat": ANSWER}},
    ]
    folder = store / "static_runs" / run
    folder.mkdir(parents=True)
    described = {"run_id": run, "status": "failed" if fails else "succeeded", "task_nodes": nodes}
    (folder / "run.json").write_text(json.dumps(described | {"created_time": start}))
    lines = [json.dumps({"type": "finish_task", "data": data}) for data in events]
    (folder / "events.jsonl").write_text("\n".join(lines[: 1 if fails else 2]) + "\n")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for number in range(9):
        write(tmp_path / "workspace", number, fails=number == 4)
    return tmp_path / "workspace"


def test_runs_are_replayed_along_their_own_edges(store: Path) -> None:
    found = maze_traces.read([store], reader.with_announced([store]))
    assert len(found) == 8
    assert found.skipped == {"a task did not finish": 1}
    assert len(found.runs) == 2, "a store is cut into several logs, for the sake of intervals"
    first = found.runs[0].workflows[0]
    assert first.critical_path == 5.0
    assert [resource for _, resource, _ in first.shape.values()] == ["cpu", "gpu"]


def test_a_store_without_a_complete_run_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 1, fails=True)
    with pytest.raises(InputError, match="no run of which every task finished"):
        maze_traces.read([tmp_path], reader.with_announced([tmp_path]))


def test_a_store_can_be_simulated_without_definitions(store: Path) -> None:
    types = reader.with_announced([store])
    found = simulate.read([], None, [store], types)
    done = simulate.simulate(found, Settings({"gpu": 1}, "gpu", (0.9,), 1, (2.0,)), types)
    assert done.workflows == 8


def test_tasks_of_the_generic_tool_type_count_in_the_order_only_on_request(store: Path) -> None:
    """They are in order against all others here, so that leaving them out shows."""
    apart = evaluate.evaluate([], maze=[store], cadence=None)
    together = evaluate.evaluate([], maze=[store], cadence=None, include_other=True)
    assert apart.tool_types == together.tool_types == ["llm_process", "other"]
    assert len(apart.rows()) == 17
    assert apart.order()["heuristic"] != together.order()["heuristic"]
