"""A level that returns is recognised, from a function's own last times and from those of others."""

from __future__ import annotations

import math

import pytest

from malearn.kernel.estimation.history import FEATURES, History
from malearn.kernel.estimation.observation import Observation

LEVEL = FEATURES.index("level")


class Clock:
    """Executions one after the other, told to a history."""

    def __init__(self) -> None:
        self.history, self.now = History(), 0.0

    def run(self, function: str, seconds: float) -> None:
        self.history.observe(Observation(function, "t", self.now, self.now + seconds))
        self.now += seconds

    def expects(self, function: str) -> float:
        return math.exp(self.history.snapshot(function, "t")[LEVEL])


def two_backends(clock: Clock, swaps: int, *functions: str, rounds: int = 8) -> None:
    for swap in range(swaps):
        for _ in range(rounds):
            for function in functions:
                clock.run(function, (100.0, 20.0)[swap % 2])


def test_a_level_that_returns_is_recognised_after_two_executions() -> None:
    clock = Clock()
    two_backends(clock, 4, "a")
    clock.run("a", 100.0)
    clock.run("a", 100.0)
    assert clock.expects("a") == pytest.approx(100.0, rel=0.1)


def test_what_others_are_at_tells_which_level_holds() -> None:
    clock = Clock()
    two_backends(clock, 4, "a", "b", "c")
    clock.run("a", 100.0)
    clock.run("c", 100.0)
    assert clock.expects("b") == pytest.approx(100.0, rel=0.1)


def test_after_a_pause_the_first_execution_tells_which_level_holds() -> None:
    clock = Clock()
    two_backends(clock, 4, "a", "b", "c")
    others = 20.0
    # On another backend after the night: one execution of another function is all that is known.
    clock.now += 8 * 3600
    clock.run("a", 100.0)
    assert clock.expects("b") == pytest.approx(100.0, rel=0.1)
    # Without a night in between it takes more than one, or an outlier would move everybody.
    clock = Clock()
    two_backends(clock, 4, "a", "b", "c")
    clock.run("a", 100.0)
    assert clock.expects("b") == pytest.approx(others, rel=0.5)


def test_a_function_that_never_moved_is_not_dragged() -> None:
    clock = Clock()
    for swap in range(5):
        for _ in range(8):
            for function in ("a", "b"):
                clock.run(function, (100.0, 20.0)[swap % 2])
            clock.run("still", 50.0)
    clock.run("a", 20.0)
    clock.run("b", 20.0)
    assert clock.expects("still") == pytest.approx(50.0, rel=0.1)


def test_levels_are_bounded_however_often_a_function_moves() -> None:
    clock = Clock()
    for number in range(60):
        clock.run("a", 2.0 ** (number % 10))
    [line] = clock.history._functions["a"].lines.values()
    assert len(line.regimes.levels) <= 3
