"""A history sees the past only, the same way in training and in the scheduler."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from malearn.history import FEATURES, History, Observation, replay

LEVEL = FEATURES.index("level")
HOUR = 3600.0

durations = st.floats(0.01, 1_000.0)
inputs = st.tuples(st.floats(0, 100) | st.just(math.nan), st.sampled_from([0.0, 1.0]))


@st.composite
def logs(draw: st.DrawFn) -> list[Observation]:
    """A log of overlapping executions of three functions of two tool types."""
    rows = []
    for number in range(draw(st.integers(1, 25))):
        start = draw(st.floats(0, 500))
        function = draw(st.sampled_from(["a", "b", "c"]))
        tool = "t1" if function == "a" else "t2"
        end = start + draw(durations)
        rows.append(Observation(f"{function}", tool, start + number, end + number, draw(inputs)))
    return rows


def same(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(a == b or (a != a and b != b) for a, b in zip(one, other, strict=True))


def steady(
    function: str,
    seconds: float,
    times: int,
    *,
    tool: str = "t",
    at: float = 0.0,
    features: tuple[float, ...] = (),
    noise: float = 0.05,
) -> list[Observation]:
    """`times` executions one after the other, of about `seconds` each."""
    chance = random.Random(f"{function}{seconds}{at}")
    rows = []
    for _ in range(times):
        end = at + seconds * math.exp(chance.gauss(0, noise))
        rows.append(Observation(function, tool, at, end, features))
        at = end
    return rows


@given(logs())
def test_training_and_the_scheduler_see_the_same_numbers(log: list[Observation]) -> None:
    """What `replay` gives is what a live history, fed as tasks end, says when each starts."""
    for task, replayed in zip(log, replay(log), strict=True):
        before = [other for other in log if other.end <= task.start]
        live = History(before).snapshot(task.function, task.tool_type, task.start, task.features)
        assert same(live, replayed)


@given(logs(), st.data())
def test_no_row_sees_its_own_or_a_later_outcome(
    log: list[Observation], data: st.DataObject
) -> None:
    """Whatever a task and those after it take, what was known when it started stays."""
    chosen = data.draw(st.integers(0, len(log) - 1))
    moment = log[chosen].start
    changed = [
        task
        if task.end <= moment
        else Observation(task.function, task.tool_type, task.start, task.end + HOUR, task.features)
        for task in log
    ]
    snapshots = zip(replay(log), replay(changed), strict=True)
    assert same(*next(itertools.islice(snapshots, chosen, None)))


@given(logs())
def test_every_number_is_finite_or_missing(log: list[Observation]) -> None:
    for snapshot in replay(log):
        assert len(snapshot) == len(FEATURES)
        assert not any(math.isinf(number) for number in snapshot)


def test_nothing_is_known_of_an_unknown_tool_type() -> None:
    history = History(steady("a", 10, 3))
    assert all(math.isnan(number) for number in history.snapshot("b", "other", 0.0))
    assert history.tool_seconds("other") is None
    assert history.function_seconds("b") is None


def test_a_steady_function_is_expected_to_take_what_it_takes() -> None:
    history = History(steady("a", 20, 30))
    assert history.function_seconds("a") == pytest.approx(20, rel=0.1)


def test_of_its_first_few_the_median_counts() -> None:
    odd = Observation("a", "t", 0.0, 1_000.0)
    history = History([*steady("a", 10, 3), odd])
    assert history.function_seconds("a") == pytest.approx(10, rel=0.15)


def test_a_new_function_starts_where_its_tool_type_is() -> None:
    history = History([*steady("a", 10, 10), *steady("b", 10, 10, at=500)])
    level = history.snapshot("never_seen", "t", 0.0)[LEVEL]
    assert math.exp(level) == pytest.approx(10, rel=0.3)


@pytest.mark.parametrize("factor", [1 / 4, 4.0])
def test_a_change_of_regime_is_followed_within_five_tasks(factor: float) -> None:
    """A backend swap multiplies every time; five tasks later the level is within a third."""
    history = History(steady("a", 60, 40))
    for observation in steady("a", 60 * factor, 5, at=5_000):
        history.observe(observation)
    level = history.snapshot("a", "t", 0.0)[LEVEL]
    assert math.exp(level) == pytest.approx(60 * factor, rel=0.35)


def test_a_change_of_regime_reaches_functions_that_have_not_run_since() -> None:
    history = History([*steady("a", 60, 30), *steady("b", 90, 30, at=5_000)])
    before = history.snapshot("b", "t", 0.0)[LEVEL]
    for observation in steady("a", 15, 5, at=50_000):
        history.observe(observation)
    assert history.snapshot("b", "t", 0.0)[LEVEL] < before - 0.5


def test_inputs_seen_before_are_expected_to_take_what_they_took() -> None:
    """Two inputs of one function, one ten times as long, in turns."""
    history = History()
    at = 0.0
    for number in range(40):
        size, seconds = ((1.0, 3.0), (50.0, 30.0))[number % 2]
        history.observe(Observation("a", "t", at, at + seconds, (size, 1.0)))
        at += seconds
    assert history.function_seconds("a", (1.0, 1.0)) == pytest.approx(3, rel=0.35)
    assert history.function_seconds("a", (50.0, 1.0)) == pytest.approx(30, rel=0.35)


def test_similar_inputs_share_their_effect() -> None:
    chance = random.Random(1)
    history, at = History(), 0.0
    for _ in range(150):
        size = chance.choice([10.0, 1_000.0]) * chance.uniform(0.9, 1.1)
        seconds = 2.0 if size < 100 else 40.0
        history.observe(Observation("a", "t", at, at + seconds, (size,)))
        at += seconds
    small, large = (history.snapshot("a", "t", at, (size,))[LEVEL] for size in (10.01, 999.9))
    assert large - small > 1.5


def test_without_features_the_level_alone_answers() -> None:
    log = steady("a", 20, 30, features=(5.0, 1.0))
    nothing = (math.nan, math.nan)
    assert History(log).function_seconds("a", nothing) == pytest.approx(20, rel=0.15)


def test_memory_is_bounded_however_many_inputs_come_by() -> None:
    history = History()
    for number in range(3_000):
        history.observe(Observation("a", "t", number, number + 1.0, (float(number),)))
    inputs = history._functions["a"].inputs
    assert len(inputs._identical) <= 512
