"""Functions that have not run since a change are believed to have moved with those that have."""

from __future__ import annotations

import math

import pytest

from malearn.kernel.estimation.history import FEATURES, History
from malearn.kernel.estimation.observation import Observation

LEVEL = FEATURES.index("level")
SLOW, FAST = 100.0, 20.0


class Clock:
    """Executions one after the other, observed by a history."""

    def __init__(self) -> None:
        self.history, self.now = History(), 0.0

    def run(self, seconds: float, *functions: str, tool: str = "t", times: int = 1) -> None:
        for function in functions * times:
            self.history.observe(Observation(function, tool, self.now, self.now + seconds))
            self.now += seconds

    def expects(self, function: str, tool: str = "t") -> float:
        return math.exp(self.history.snapshot(function, tool)[LEVEL])


def test_two_functions_that_moved_take_along_those_that_have_not_run_since() -> None:
    clock = Clock()
    clock.run(SLOW, "a", "b", "c", "d", times=10)
    clock.run(FAST, "a", "b")
    assert clock.expects("c") == pytest.approx(FAST, rel=0.1)
    # The same scale for all: a scheduler compares those that ran with those that did not.
    assert clock.expects("c") == pytest.approx(clock.expects("d"), rel=0.01)


def test_a_function_hardly_seen_follows_as_well() -> None:
    clock = Clock()
    clock.run(SLOW, "a", "b", times=10)
    clock.run(SLOW, "rare", times=2)
    clock.run(SLOW, "a", "b", times=10)
    clock.run(FAST, "a", "b", times=2)
    assert clock.history.function_seconds("rare") == pytest.approx(FAST, rel=0.1)


def test_nobody_follows_where_most_of_those_that_ran_have_stayed() -> None:
    clock = Clock()
    clock.run(SLOW, "a", "b", "c", "d", "e", "f", times=10)
    clock.run(FAST, "a", "b")
    clock.run(SLOW, "c", "d", "e")
    assert clock.expects("f") == pytest.approx(SLOW, rel=0.1)


def test_one_of_two_that_ran_moves_nobody() -> None:
    clock = Clock()
    clock.run(SLOW, "a", "b", "c", times=10)
    clock.run(FAST, "a")
    clock.run(SLOW, "b")
    assert clock.expects("c") == pytest.approx(SLOW, rel=0.1)


def test_another_tool_type_is_followed_where_several_agree_until_its_own_have_run() -> None:
    clock = Clock()
    clock.run(SLOW, "x", "y", "z", tool="u", times=10)
    clock.run(SLOW, "a", "b", "c", "d", times=10)
    clock.run(SLOW, "x", "y", "z", tool="u")
    clock.run(FAST, "a", "b")
    assert clock.expects("z", "u") == pytest.approx(SLOW, rel=0.1)
    clock.run(FAST, "c", "d")
    assert clock.expects("z", "u") == pytest.approx(FAST, rel=0.1)
    clock.run(SLOW, "x", "y", tool="u")
    assert clock.expects("z", "u") == pytest.approx(SLOW, rel=0.1)


def test_an_outlier_just_before_a_change_does_not_hide_it() -> None:
    clock = Clock()
    clock.run(SLOW, "a", "b", "c", "d", times=10)
    clock.run(10 * SLOW, "d")
    # Since the outlier all of these have stayed.
    clock.run(SLOW, "a", "b", "c", "d", times=3)
    clock.run(FAST, "a", "b", "c")
    assert clock.expects("d") == pytest.approx(FAST, rel=0.1)


def test_one_that_has_moved_first_is_not_moved_again_by_those_that_follow() -> None:
    clock = Clock()
    clock.run(SLOW, "a", "b", "c", "d", times=10)
    clock.run(FAST, "d")
    clock.run(FAST, "a", "b", "c")
    assert clock.expects("d") == pytest.approx(FAST, rel=0.2)


def test_one_that_knows_several_levels_follows_to_a_backend_that_is_new_to_all() -> None:
    clock = Clock()
    for _ in range(3):
        clock.run(SLOW, "a", "b", "c", "d", times=8)
        clock.run(FAST, "a", "b", "c", "d", times=8)
    newest = FAST / 5.0
    clock.run(newest, "a", "b", "c")
    assert clock.expects("d") == pytest.approx(newest, rel=0.2)


def test_one_that_knows_several_levels_returns_to_the_one_that_went_with_those_of_the_others() -> (
    None
):
    clock = Clock()
    for _ in range(3):
        clock.run(SLOW, "a", "b", "c", times=8)
        clock.run(3 * SLOW, "d", times=8)
        clock.run(FAST, "a", "b", "c", times=8)
        clock.run(FAST, "d", times=8)
    clock.run(SLOW, "a", "b", "c")
    assert clock.expects("d") == pytest.approx(3 * SLOW, rel=0.2)


def test_what_no_tool_type_claims_hides_no_change() -> None:
    clock = Clock()
    clock.run(SLOW, "a", "b", "c", times=10)
    clock.run(FAST, "a", "b")
    clock.run(1.0, *(f"read{n}" for n in range(10)), tool="", times=3)
    assert clock.expects("c") == pytest.approx(FAST, rel=0.1)


def test_a_large_change_brings_functions_of_a_tool_type_nearer_to_each_other() -> None:
    clock = Clock()
    clock.run(SLOW, "a", "b", times=10)
    clock.run(2 * SLOW, "long", times=10)
    clock.run(SLOW, "a", "b", times=10)
    clock.run(FAST, "a", "b")
    assert FAST < clock.expects("long") < 1.5 * FAST


def test_outliers_do_not_wear_out_the_memory_of_a_change() -> None:
    clock = Clock()
    clock.run(SLOW, "a", "b", "late", times=10)
    clock.run(FAST, "a", "b", times=20)
    for _ in range(10):
        clock.run(20 * FAST, "a")
        clock.run(FAST, "a", "b", times=20)
    assert clock.expects("late") == pytest.approx(FAST, rel=0.2)


def test_a_backend_that_has_returned_has_moved_nobody() -> None:
    clock = Clock()
    clock.run(SLOW, "a", "b", "late", times=10)
    clock.run(FAST, "a", "b", times=20)
    clock.run(SLOW, "a", "b", times=5)
    assert clock.expects("late") == pytest.approx(SLOW, rel=0.1)
