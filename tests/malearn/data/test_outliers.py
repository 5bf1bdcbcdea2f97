"""What the fence lets through, and the little that it does not."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malearn.data import outliers
from malearn.kernel.records import Execution, RejectReason

spread = st.floats(0.05, 0.6)  # of ordinary log-seconds; 0.6 is a factor of 6 within 95 %
centre = st.floats(-4.0, 6.0)  # 0.02 s … 400 s
seed = st.integers(0, 2**32 - 1)


def execution(seconds: float, name: str = "a", function: str = "f") -> Execution:
    return Execution(name, function, "t", 0.0, seconds, (1.0, math.nan), (math.inf, 2.0))


def batch(seconds: Iterable[float]) -> list[Execution]:
    return [execution(value, f"{number}") for number, value in enumerate(seconds)]


def ordinary(seed: int, count: int, centre: float, spread: float) -> list[float]:
    """Log-seconds of a usual day."""
    source = random.Random(seed)
    return [source.gauss(centre, spread) for _ in range(count)]


def fenced(logs: Iterable[float], recent: Iterable[float] = ()) -> list[float]:
    """The log-seconds of those that were fenced off."""
    given = {one.task_id: one for one in batch(math.exp(log) for log in logs)}
    rejected = outliers.fence(list(given.values()), {"f": list(recent)})[1]
    return [math.log(given[one.task_id].seconds) for one in rejected]


@given(st.lists(st.floats(-20.0, 14.0), max_size=outliers.ENOUGH - 1), st.data())
def test_little_data_has_no_outliers(logs: list[float], data: st.DataObject) -> None:
    known = data.draw(st.integers(0, len(logs)))
    assert fenced(logs[known:], logs[:known]) == []


@given(seed, centre, spread, st.floats(1 / 8, 8), st.integers(1, 60))
def test_a_backend_up_to_8_times_faster_or_slower_is_no_outlier(
    seed: int, centre: float, spread: float, factor: float, count: int
) -> None:
    recent = ordinary(seed, 100, centre, spread)
    now = random.Random(seed).choices(recent, k=count)
    assert fenced([log + math.log(factor) for log in now], recent) == []


@given(seed, st.tuples(centre, centre), st.floats(0.1, 0.5), st.integers(20, 200))
def test_no_mode_with_a_tenth_of_the_executions_is_fenced_off(
    seed: int, centres: tuple[float, float], share: float, count: int
) -> None:
    minor = math.ceil(share * count)
    logs = ordinary(seed, count - minor, centres[0], 0.2) + ordinary(seed, minor, centres[1], 0.2)
    random.Random(seed).shuffle(logs)
    known = random.Random(seed).randrange(count)
    assert fenced(logs[known:], logs[:known]) == []


@given(seed, centre, spread, st.sampled_from([1000.0, 1 / 1000]), st.integers(0, 100))
def test_one_duration_a_thousand_times_off_among_a_hundred_is_an_outlier(
    seed: int, centre: float, spread: float, factor: float, known: int
) -> None:
    logs = ordinary(seed, 100, centre, spread)
    strange = centre + math.log(factor)
    found = fenced([*logs[known:], strange], logs[:known])
    assert found == [pytest.approx(strange)]


@given(st.lists(st.floats(-6.0, 9.0), min_size=20, max_size=60), st.randoms(use_true_random=False))
def test_order_does_not_matter(logs: list[float], source: random.Random) -> None:
    known, now = logs[: len(logs) // 2], logs[len(logs) // 2 :]
    shuffled_known, shuffled_now = source.sample(known, len(known)), source.sample(now, len(now))
    assert sorted(fenced(now, known)) == sorted(fenced(shuffled_now, shuffled_known))


@given(st.lists(st.floats(1e-3, 1e6), max_size=80), st.lists(st.floats(-6.0, 9.0), max_size=40))
@settings(max_examples=50)
def test_every_execution_is_in_one_of_the_two_lists_in_its_order(
    seconds: list[float], recent: list[float]
) -> None:
    given_ = batch(seconds)
    accepted, rejected = outliers.fence(given_, {"f": recent})
    refused = {one.task_id for one in rejected}
    assert accepted == [one for one in given_ if one.task_id not in refused]
    assert [one.task_id for one in given_ if one.task_id in refused] == [
        one.task_id for one in rejected
    ]


def test_the_detail_says_what_it_took_and_what_is_usual() -> None:
    recent = [math.log(3.1 + 2.1 * step / 99) for step in range(100)]
    (rejected,) = outliers.fence([execution(812.0, "odd")], {"f": recent})[1]
    assert rejected.reason is RejectReason.OUTLIER
    assert rejected.detail == "took 812 s; this function lately takes 3.2–5.1 s"


def test_a_tiny_duration_is_told_without_an_exponent() -> None:
    (rejected,) = outliers.fence([execution(0.0127)], {"f": [math.log(50.0)] * 30})[1]
    assert rejected.detail == "took 0.013 s; this function lately takes 50 s"


def test_each_function_has_its_own_fence() -> None:
    recent = {"slow": [math.log(300.0)] * 30, "fast": [math.log(0.1)] * 30}
    now = [execution(300.0, "a", "slow"), execution(300.0, "b", "fast")]
    accepted, rejected = outliers.fence(now, recent)
    assert [one.task_id for one in accepted] == ["a"]
    assert [one.function for one in rejected] == ["fast"]


def test_the_third_of_a_far_regime_is_let_in_when_the_first_two_are_remembered() -> None:
    recent = {"f": [math.log(5.0)] * 50}
    first, second = math.log(900.0), math.log(1100.0)
    assert outliers.fence([execution(1000.0)], recent, {"f": [first]})[1]
    assert not outliers.fence([execution(1000.0)], recent, {"f": [first, second]})[1]


def test_three_of_a_far_regime_are_let_in_at_once() -> None:
    recent = [math.log(5.0)] * 50
    assert fenced([math.log(900.0), math.log(1000.0)], recent) != []
    assert fenced([math.log(900.0), math.log(1000.0), math.log(1100.0)], recent) == []


def test_nothing_in_nothing_out() -> None:
    assert outliers.fence([], {}) == ([], [])


@pytest.mark.parametrize("size", [1, 25, 300])
def test_no_real_execution_is_fenced_off_not_even_when_the_backend_changes(
    size: int, maze: list[Execution]
) -> None:
    recent: dict[str, list[float]] = defaultdict(list)
    finished = sorted(maze, key=lambda one: one.end)
    for start in range(0, len(finished), size):
        lately = {function: logs[-200:] for function, logs in recent.items()}
        accepted, rejected = outliers.fence(finished[start : start + size], lately)
        assert rejected == []
        for one in accepted:
            recent[one.function].append(math.log(one.seconds))
