"""Maze's run store in evaluations and simulations: its graphs are the definitions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from malearn.data.maze import reader
from malearn.flows import evaluate, simulate
from malearn.kernel.errors import InputError
from malearn.learning import maze_traces
from malearn.learning.policy_comparison import Settings

#: Writes one run into a store.
MazeRun = Callable[..., None]


@pytest.fixture
def store(tmp_path: Path, maze_run: MazeRun) -> Path:
    for number in range(9):
        maze_run(tmp_path / "workspace", number, fails=number == 4)
    return tmp_path / "workspace"


def test_runs_are_replayed_along_their_own_edges(store: Path) -> None:
    found = maze_traces.read([store], reader.with_announced([store]))
    assert len(found) == 8
    assert found.skipped == {"a task did not finish": 1}
    assert len(found.runs) == 2, "a store is cut into several logs, for the sake of intervals"
    first = found.runs[0].workflows[0]
    assert first.critical_path == 5.0
    assert [resource for _, resource, _ in first.shape.values()] == ["cpu", "gpu"]


def test_a_store_without_a_complete_run_is_refused(tmp_path: Path, maze_run: MazeRun) -> None:
    maze_run(tmp_path, 1, fails=True)
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
