"""Intervals enclose the promised share of outcomes, and keep doing so."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from malearn.kernel.estimation.intervals import COVERAGE, Intervals


def covered(noise: Callable[[random.Random, int], float], n: int = 3_000) -> list[bool]:
    """Whether each of `n` outcomes, off by a factor exp(noise), lay within its interval."""
    chance, intervals, inside = random.Random(3), Intervals(), []
    for number in range(n):
        width = intervals.width("f", "t")
        actual = 10.0 * math.exp(noise(chance, number))
        low, high = width.around(10.0)
        inside.append(low <= actual <= high)
        intervals.learn("f", "t", actual, 10.0, width)
    return inside


@pytest.mark.parametrize(
    "noise",
    [
        lambda chance, _: chance.gauss(0, 0.2),
        lambda chance, _: chance.gauss(0.3, 0.05),
        lambda chance, _: chance.choice([-1, 1]) * chance.expovariate(2),
        lambda chance, number: chance.gauss(0, 0.05 if number < 1_500 else 0.8),
    ],
    ids=["normal", "biased", "heavy-tailed", "suddenly wider"],
)
def test_four_of_five_outcomes_lie_within(noise: Callable[[random.Random, int], float]) -> None:
    inside = covered(noise)
    assert sum(inside) / len(inside) == pytest.approx(COVERAGE, abs=0.03)


def test_a_calm_function_gets_a_narrower_interval_than_a_restless_one() -> None:
    chance, intervals = random.Random(5), Intervals()
    for _ in range(300):
        for function, spread in (("calm", 0.05), ("restless", 0.6)):
            width = intervals.width(function, "t")
            intervals.learn(function, "t", math.exp(chance.gauss(0, spread)), 1.0, width)
    assert intervals.width("calm", "t").high < 0.4 * intervals.width("restless", "t").high


def test_names_without_end_push_out_the_oldest_not_the_one_still_in_use() -> None:
    intervals = Intervals()
    for number in range(3_000):
        for function, miss in (("steady", 0.01), (f"f{number}", 1.0)):
            intervals.learn(function, "t", math.exp(miss), 1.0, intervals.width(function, "t"))
    steady, forgotten = (intervals.width(name, "t").scale for name in ("steady", "f0"))
    assert steady < 0.2 * forgotten
    assert forgotten == intervals.width("never seen", "t").scale


def test_each_side_misses_a_tenth() -> None:
    chance, intervals = random.Random(9), Intervals()
    below = above = 0
    for number in range(3_000):
        width = intervals.width("f", "t")
        low, high = width.around(10.0)
        actual = 10.0 * math.exp(chance.expovariate(2.0) - 0.3)
        if number >= 500:
            below, above = below + (actual < low), above + (actual > high)
        intervals.learn("f", "t", actual, 10.0, width)
    assert below / 2_500 == pytest.approx(0.1, abs=0.02)
    assert above / 2_500 == pytest.approx(0.1, abs=0.02)


def test_what_is_missed_in_doubt_widens_only_what_is_in_doubt() -> None:
    chance, intervals = random.Random(4), Intervals()
    for _ in range(300):
        for state, spread in (("steady", 0.1), ("in_doubt", 1.0)):
            width = intervals.width("f", "t", state)  # type: ignore[arg-type]
            intervals.learn("f", "t", math.exp(chance.gauss(0, spread)), 1.0, width)
    assert intervals.width("f", "t", "in_doubt").high > 3 * intervals.width("f", "t").high


def test_ten_outcomes_make_it_calibrated() -> None:
    intervals = Intervals()
    for number in range(11):
        width = intervals.width("f", "t")
        assert width.calibrated == (number >= 10)
        intervals.learn("f", "t", 1.1, 1.0, width)


def test_an_interval_lies_around_its_prediction() -> None:
    low, high = Intervals().width("f", "t").around(7.0)
    assert low < 7.0 < high
    assert low * high == pytest.approx(49.0)


def test_of_a_function_that_never_ran_little_is_sure_however_sure_the_others_are() -> None:
    intervals = Intervals()
    for number in range(300):
        function = f"f{number % 3}"
        width = intervals.width(function, "t")
        intervals.learn(function, "t", 10.0 + 0.1 * (number % 5 - 2), 10.0, width)
    known, never_ran = intervals.width("f0", "t"), intervals.width("f9", "t")
    assert known.around(10.0)[1] < 11.0
    low, high = never_ran.around(10.0)
    assert low < 8.5 < 12.0 < high
