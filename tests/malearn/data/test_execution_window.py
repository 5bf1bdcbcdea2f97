"""What trains, watches or publishes reads the newest executions, and knows what came before."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from malearn.data import execution_window
from malearn.data.dataset import Dataset
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import Feature, ToolType
from malearn.learning import matrix

TOOL = ToolType("tool", ("tool",), "cpu", (Feature("words"), Feature("pages")))


@pytest.fixture(scope="module")
def log(synthetic: Callable[..., list[Execution]]) -> list[Execution]:
    return synthetic(TOOL, 1_000)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, log: list[Execution]) -> Dataset:
    """Of many commits, merged now and then, the last ones of old executions."""
    made = Dataset(tmp_path_factory.mktemp("data") / "tool", TOOL)
    for first in (*range(200, 1_000, 50), 0, 100):
        made.append(log[first : first + (100 if first < 200 else 50)])
    return made


@pytest.mark.parametrize("rows", [1, 7, 130, 999, 1_000, 5_000])
def test_the_newest_are_those_at_the_end_of_all(dataset: Dataset, rows: int) -> None:
    assert repr(dataset.newest(rows)) == repr(dataset.read()[-rows:])


@pytest.mark.parametrize("rows", [1, 90, 400, 5_000])
def test_the_newest_before_a_moment_started_before_it(dataset: Dataset, rows: int) -> None:
    everything = dataset.read()
    moment = everything[500].start
    assert repr(dataset.newest(rows, before=moment)) == repr(everything[max(0, 500 - rows) : 500])
    assert dataset.newest(3, before=everything[0].start) == []


def test_an_older_version_has_its_own_newest(dataset: Dataset) -> None:
    assert repr(dataset.newest(20, version=2)) == repr(dataset.read(2)[-20:])


def test_the_newest_of_each_function_are_its_last_to_end(dataset: Dataset) -> None:
    found = dataset.newest_of_functions(5, 10_000)
    for function in ("tool_0", "tool_1", "tool_2"):
        own = sorted((e for e in dataset.read() if e.function == function), key=lambda e: e.end)
        of_it = sorted((e for e in found if e.function == function), key=lambda e: e.end)
        assert repr(of_it) == repr(own[-5:])
    assert len(found) == 15


def test_files_that_hold_nothing_of_a_window_are_not_read(tmp_path: Path) -> None:
    made = Dataset(tmp_path / "tool", ToolType("tool", ("tool",), "cpu", ()))
    for first in (0.0, 100.0, 200.0):
        starts = [first + n for n in range(10)]
        made.append(Execution(f"{s}-tool", "tool", "tool", s, s + 1.0, (), ()) for s in starts)
    oldest, *_ = sorted(made.path.glob("*.parquet"), key=lambda file: file.stat().st_mtime_ns)
    oldest.write_bytes(b"")
    assert [e.start for e in made.newest(10)] == [200.0 + n for n in range(10)]


def test_a_window_of_a_small_dataset_is_all_of_it(dataset: Dataset, log: list[Execution]) -> None:
    window = execution_window.read(dataset, 2_000)
    assert repr(window.executions) == repr(dataset.read())
    assert (window.before, window.total) == ((), len(log))


def test_at_the_beginning_of_a_window_the_history_knows_what_came_before(dataset: Dataset) -> None:
    everything = matrix.build(TOOL, dataset.read())
    window = execution_window.read(dataset, 400)
    replayed = matrix.build(TOOL, window.executions, window.before)
    blind = matrix.build(TOOL, window.executions)
    level = everything.columns.index("level")
    full = everything.inputs[-400:, level]
    assert replayed.inputs.shape == (400, len(everything.columns))
    off = np.abs(replayed.inputs[:, level] - full)
    assert np.median(off) < 0.15
    assert off[:5].mean() < 0.5
    assert math.isnan(blind.inputs[0, level])


def test_a_checkpoint_is_small_beside_its_window(dataset: Dataset) -> None:
    window = execution_window.read(dataset, 400)
    assert 0 < len(window.before) <= 80
    by_function = {e.function for e in window.before}
    assert by_function == {"tool_0", "tool_1", "tool_2"}
    first = window.executions[0].start
    assert all(e.start < first for e in window.before)


def test_a_version_gives_the_same_window_whatever_came_later(
    tmp_path: Path, log: list[Execution]
) -> None:
    made = Dataset(tmp_path / "tool", TOOL)
    made.append(log[:600])
    then = made.version
    before = execution_window.read(made, 200, then)
    made.append(log[600:])
    again = execution_window.read(made, 200, then)
    assert repr(again.executions) == repr(before.executions)
    assert repr(again.before) == repr(before.before)
