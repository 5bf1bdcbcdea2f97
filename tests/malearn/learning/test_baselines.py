"""Baselines, replayed by hand: each task from what had ended before it started."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from malearn.kernel.records import Execution
from malearn.kernel.tool_types import DEFAULT_SECONDS, Feature, ToolType, ToolTypes
from malearn.learning import baselines

SIZE = (Feature("size"),)
TYPES = ToolTypes(
    [ToolType("slow", ("slow",), "gpu", SIZE), ToolType("quick", ("quick",), "io", SIZE)]
)


def ran(function: str, start: float, seconds: float, tool_type: str = "slow") -> Execution:
    return Execution("", function, tool_type, start, start + seconds, (1.0,), (1.0,))


def predicted(name: str, executions: Sequence[Execution]) -> list[float]:
    return list(baselines.BASELINES[name](executions, TYPES))


def test_the_heuristic_knows_the_resource_and_nothing_else() -> None:
    log = [ran("f", 0, 7), ran("g", 100, 7, "quick"), ran("f", 200, 7)]
    assert predicted("heuristic", log) == [15.0, 1.0, 15.0]


def test_the_median_is_of_all_that_the_function_took_so_far() -> None:
    log = [ran("f", 100 * i, seconds) for i, seconds in enumerate([2, 8, 4, 50, 1])]
    assert predicted("function_median", log) == [15.0, 2.0, 5.0, 4.0, 6.0]


def test_the_moving_average_takes_three_tenths_of_each_step_in_log_seconds() -> None:
    log = [ran("f", 0, 2), ran("f", 100, 8), ran("f", 200, 1)]
    third = math.exp(0.7 * math.log(2) + 0.3 * math.log(8))
    assert predicted("function_ema", log) == pytest.approx([15.0, 2.0, third])


def test_the_quick_average_takes_six_tenths() -> None:
    log = [ran("f", 0, 2), ran("f", 100, 8), ran("f", 200, 1)]
    third = math.exp(0.4 * math.log(2) + 0.6 * math.log(8))
    assert predicted("function_ema_6", log) == pytest.approx([15.0, 2.0, third])


def test_the_same_inputs_take_what_they_took_last_time() -> None:
    log = [ran("f", 0, 2), replace(ran("f", 100, 8), serve=(9.0,)), ran("f", 200, 1)]
    assert predicted("same_inputs", log) == pytest.approx([15.0, 2.0, 2.0])


@pytest.mark.parametrize("name", ["function_median", "function_ema", "function_ema_6"])
def test_each_context_of_a_function_is_told_from_what_it_took_there(name: str) -> None:
    def on(model: str, start: float, seconds: float) -> Execution:
        return replace(ran("f", start, seconds), serve_context=(model,), ran_context=(model,))

    log = [on("small", 0, 2), on("large", 100, 80), on("small", 200, 2), on("large", 300, 80)]
    assert predicted(name, log)[2:] == pytest.approx([2.0, 80.0])


@pytest.mark.parametrize("name", ["function_median", "function_ema"])
def test_a_new_function_is_taken_for_one_of_its_tool_type(name: str) -> None:
    log = [ran("f", 0, 4), ran("new", 100, 9), ran("other", 200, 9, "quick")]
    assert predicted(name, log) == pytest.approx([15.0, 4.0, DEFAULT_SECONDS["io"]])


@pytest.mark.parametrize("name", ["function_median", "function_ema"])
def test_a_task_still_running_tells_nothing(name: str) -> None:
    """The second starts while the first runs; the third in the instant in which it ends."""
    log = [ran("f", 0, 10), ran("f", 9.5, 100), ran("f", 10, 1)]
    assert predicted(name, log) == pytest.approx([15.0, 15.0, 10.0])


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_the_order_of_the_log_does_not_matter(name: str) -> None:
    log = [ran("fgh"[i % 3], 3.0 * i, 1.0 + i * 7 % 11) for i in range(30)]
    there = predicted(name, log)
    assert predicted(name, log[::-1]) == there[::-1]


@pytest.mark.parametrize("name", baselines.BASELINES)
def test_no_executions_no_predictions(name: str) -> None:
    assert predicted(name, []) == []


@pytest.mark.parametrize("name", baselines.BASELINES)
@given(
    st.lists(st.tuples(st.sampled_from("fgh"), st.floats(0, 100), st.floats(0.1, 50)), min_size=1),
    st.data(),
)
def test_no_task_is_predicted_from_its_own_or_a_later_outcome(
    name: str, drawn: list[tuple[str, float, float]], data: st.DataObject
) -> None:
    """What had not ended when a task started may have taken any time at all."""
    log = [ran(*task) for task in drawn]
    chosen = data.draw(st.sampled_from(log))
    other = [
        replace(task, end=task.end + 1000.0) if task.end > chosen.start else task for task in log
    ]
    i = log.index(chosen)
    assert predicted(name, other)[i] == predicted(name, log)[i]


@given(st.lists(st.floats(0.1, 1000), min_size=1, max_size=50))
def test_the_running_median_is_the_one_numpy_computes(seconds: list[float]) -> None:
    log = [ran("f", 2000.0 * i, s) for i, s in enumerate([*seconds, 1.0])]
    taken = [task.seconds for task in log[:-1]]
    assert predicted("function_median", log)[-1] == pytest.approx(np.median(taken))
