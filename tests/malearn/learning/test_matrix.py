"""The matrix holds what was known at a task's start, in one order of columns."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from malearn.kernel.errors import InputError
from malearn.kernel.estimation import history
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import Feature, ToolType, declared
from malearn.learning import matrix

TOY = ToolType("toy", ("toy",), "cpu", (Feature("size"), Feature("words", default=1.0)))

logs = st.lists(
    st.tuples(st.sampled_from("fgh"), st.floats(0, 100), st.floats(0.1, 50)),
    min_size=1,
    max_size=25,
)


def ran(
    function: str, start: float, seconds: float, tool_type: str = "toy", name: str = ""
) -> Execution:
    return Execution(name, function, tool_type, start, start + seconds, (start, 2.0), (7.0, 7.0))


def numbered(drawn: list[tuple[str, float, float]]) -> list[Execution]:
    return [ran(*task, name=f"{i:03}") for i, task in enumerate(drawn)]


@pytest.mark.parametrize("name", declared())
def test_columns_are_the_declared_features_then_the_history(name: str, synthetic) -> None:
    tool_type = declared()[name]
    rows = matrix.build(tool_type, synthetic(tool_type, 20))
    assert rows.columns == (*tool_type.feature_names, *history.FEATURES)
    assert rows.inputs.shape == (20, len(rows.columns))
    assert rows.inputs.dtype == np.float32


def test_each_number_stands_in_the_column_of_its_name() -> None:
    rows = matrix.build(TOY, [ran("f", 0, 4), ran("f", 10, 4)])
    snapshot = history.History([matrix.observation(ran("f", 0, 4))]).snapshot(
        "f", "toy", (10.0, 2.0)
    )
    assert rows.inputs[1] == pytest.approx(np.array((10.0, 2.0, *snapshot)), nan_ok=True)


def test_rows_stand_in_order_of_their_start_whatever_the_order_of_the_log() -> None:
    log = [ran("f", start, 1, name=str(start)) for start in (30, 10, 20)]
    rows = matrix.build(TOY, log)
    assert [e.start for e in rows.executions] == [10, 20, 30]
    assert list(rows.inputs[:, 0]) == [10, 20, 30]
    again = matrix.build(TOY, log[::-1])
    assert np.array_equal(again.inputs, rows.inputs, equal_nan=True)


def test_only_rows_of_the_tool_type_are_in_it() -> None:
    rows = matrix.build(TOY, [ran("f", 0, 1), ran("f", 5, 1, tool_type="other")])
    assert [e.tool_type for e in rows.executions] == ["toy"]


def test_of_nothing_there_is_an_empty_matrix_of_the_right_width() -> None:
    rows = matrix.build(TOY, [])
    assert len(rows) == 0
    assert rows.inputs.shape == (0, len(rows.columns))


def test_what_predecessors_said_counts_before_what_the_task_reported() -> None:
    both = Execution("a", "f", "toy", 0, 1, (3.0, math.nan), (4.0, 5.0))
    assert matrix.known_before(both) == pytest.approx(both.serve, nan_ok=True)
    assert matrix.known_before(replace(both, serve=(math.nan, math.nan))) == both.ran


def test_a_number_that_float32_cannot_hold_is_missing() -> None:
    """As it is to a scheduler; one of them would else stop every training there is."""
    rows = matrix.build(TOY, [Execution("a", "f", "toy", 0, 1, (1e300, -1e39), (1.0, 1.0))])
    assert np.all(np.isnan(rows.inputs[0, :2]))


def test_nothing_that_an_incumbent_saw_is_in_the_newest_slice() -> None:
    """Unless there is nothing else: one row it must hold."""
    rows = matrix.build(TOY, [ran("f", 10 * i, 1) for i in range(10)])
    assert [e.start for e in rows.split(0.5, since=75.0)[1].executions] == [80, 90]
    assert len(rows.split(0.5, since=1e9)[1]) == 1


@given(logs, st.data())
def test_no_row_changes_when_what_had_not_ended_at_its_start_ends_otherwise(
    drawn: list[tuple[str, float, float]], data: st.DataObject
) -> None:
    """Its own outcome included: nothing of the future leaks into its inputs."""
    log = numbered(drawn)
    chosen = data.draw(st.sampled_from(log))
    longer = data.draw(st.floats(0.5, 1e4))
    other = [replace(e, end=e.end + longer) if e.end > chosen.start else e for e in log]
    before, after = matrix.build(TOY, log), matrix.build(TOY, other)
    row = [e.task_id for e in before.executions].index(chosen.task_id)
    assert np.array_equal(before.inputs[row], after.inputs[row], equal_nan=True)


@given(logs)
def test_a_task_appended_later_changes_no_earlier_row(
    drawn: list[tuple[str, float, float]],
) -> None:
    log = numbered(drawn)
    later = ran("f", max(e.end for e in log) + 1, 999, name="later")
    before, after = matrix.build(TOY, log), matrix.build(TOY, [*log, later])
    assert np.array_equal(before.inputs, after.inputs[:-1], equal_nan=True)


@given(logs, st.floats(0.05, 0.9))
def test_the_older_rows_had_ended_when_the_newest_slice_began(
    drawn: list[tuple[str, float, float]], share: float
) -> None:
    rows = matrix.build(TOY, numbered(drawn))
    older, newest = rows.split(share)
    begin = min(e.start for e in newest.executions)
    assert all(e.end <= begin for e in older.executions)
    assert len(newest) == max(1, round(share * len(rows)))
    assert newest.executions == rows.executions[-len(newest) :]


def test_a_split_keeps_inputs_and_seconds_with_their_execution() -> None:
    rows = matrix.build(TOY, [ran("f", 10 * i, 1 + i) for i in range(10)])
    for part in rows.split(0.3):
        assert list(part.inputs[:, 0]) == [e.start for e in part.executions]
        assert list(part.seconds) == [e.seconds for e in part.executions]
    assert [len(part) for part in rows.split(0.3)] == [7, 3]


@pytest.mark.parametrize("share", [2.0, -0.1, math.nan])
def test_what_is_no_share_of_the_rows_is_refused(share: float) -> None:
    rows = matrix.build(TOY, [ran("f", 10 * i, 1 + i) for i in range(3)])
    with pytest.raises(InputError, match="newest: must be a share of the rows from 0 to 1"):
        rows.split(share)
