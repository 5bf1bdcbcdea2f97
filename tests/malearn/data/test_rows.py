"""Rows are a sequence of executions, whatever they are kept in."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from malearn.data.rows import Rows, chosen
from malearn.kernel.errors import DatasetError
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import Feature, ToolType

TOOL = ToolType("tool", ("tool",), "cpu", (Feature("a"), Feature("b")))
NAN = math.nan
FIRST = Execution("t1", "f", "tool", 1.0, 2.5, (1.0, NAN), (NAN, -2.0), "q", 3.0, 7, ("m",), ())
GIVEN = [FIRST, replace(FIRST, task_id="t2", end=9.0, predicted=None, model_version=None)]


def test_what_goes_in_comes_out() -> None:
    rows = Rows.from_executions(TOOL, GIVEN)
    assert list(map(repr, rows)) == list(map(repr, GIVEN))
    assert repr(rows[-1:]) == repr(GIVEN[-1:])
    assert repr(rows[-1]) == repr(GIVEN[-1])
    assert rows.seconds.tolist() == [1.5, 8.0]
    assert Rows.from_executions(TOOL, rows) is rows
    with pytest.raises(IndexError):
        rows[2]


def test_there_may_be_none() -> None:
    rows = Rows.from_executions(TOOL, [])
    assert (len(rows), list(rows), rows.latest().tolist(), rows.serve.shape) == (0, [], [], (0, 2))


def test_the_last_to_end_of_a_task_is_its_latest_and_of_equals_the_first() -> None:
    copies = [replace(FIRST, end=end) for end in (2.0, 4.0, 3.0, 4.0)]
    rows = Rows.from_executions(TOOL, [*copies, GIVEN[1]])
    assert rows.latest().tolist() == [False, True, False, False, True]
    assert [e.end for e in rows.take(rows.latest())] == [4.0, 9.0]


def test_some_are_chosen_of_rows_as_of_a_list() -> None:
    mask = np.array([False, True])
    assert list(map(repr, chosen(Rows.from_executions(TOOL, GIVEN), mask))) == list(
        map(repr, chosen(GIVEN, mask))
    )
    assert isinstance(chosen(GIVEN, mask), list)


def test_an_execution_of_another_declaration_is_refused() -> None:
    with pytest.raises(DatasetError, match="'t1' has 1 values for 2 features"):
        Rows.from_executions(TOOL, [replace(FIRST, serve=(1.0,))])
