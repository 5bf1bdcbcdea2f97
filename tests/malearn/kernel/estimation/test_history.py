"""A history sees the past only, the same way in training and in the scheduler."""

from __future__ import annotations

import itertools
import math
import pickle
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from malearn.kernel.estimation import input_effects
from malearn.kernel.estimation.history import FEATURES, History
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.estimation.replay import replay

LEVEL = FEATURES.index("level")
HOUR = 3600.0

durations = st.floats(0.01, 1_000.0)
contexts = st.sampled_from([(), ("", ""), ("x", ""), ("x", "1"), ("x", "2"), ("y", "1")])
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
        given = draw(inputs), draw(contexts)
        rows.append(Observation(function, tool, start + number, end + number, *given))
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


@settings(deadline=None)
@given(logs())
def test_training_and_the_scheduler_see_the_same_numbers(log: list[Observation]) -> None:
    """What `replay` gives is what a live history, fed as tasks end, says when each starts."""
    for task, replayed in zip(log, replay(log), strict=True):
        before = [other for other in log if other.end <= task.start]
        live = History(before).snapshot(task.function, task.tool_type, task.features, task.context)
        assert same(live, replayed)


@settings(deadline=None)
@given(logs(), st.data())
def test_no_row_sees_its_own_or_a_later_outcome(
    log: list[Observation], data: st.DataObject
) -> None:
    """Whatever a task and those after it take, what was known when it started stays."""
    chosen = data.draw(st.integers(0, len(log) - 1))
    moment = log[chosen].start
    changed = [
        task if task.end <= moment else structs.replace(task, end=task.end + HOUR) for task in log
    ]
    snapshots = zip(replay(log), replay(changed), strict=True)
    assert same(*next(itertools.islice(snapshots, chosen, None)))


@settings(deadline=None)
@given(logs())
def test_every_number_is_finite_or_missing(log: list[Observation]) -> None:
    for snapshot in replay(log):
        assert len(snapshot) == len(FEATURES)
        assert not any(math.isinf(number) for number in snapshot)


def test_nothing_is_known_of_an_unknown_tool_type() -> None:
    history = History(steady("a", 10, 3))
    assert all(math.isnan(number) for number in history.snapshot("b", "other"))
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
    level = history.snapshot("never_seen", "t")[LEVEL]
    assert math.exp(level) == pytest.approx(10, rel=0.3)


@pytest.mark.parametrize("factor", [1 / 4, 4.0])
def test_a_change_of_regime_is_followed_within_five_tasks(factor: float) -> None:
    """A backend swap multiplies every time; five tasks later the level is within a third."""
    history = History(steady("a", 60, 40))
    for observation in steady("a", 60 * factor, 5, at=5_000):
        history.observe(observation)
    level = history.snapshot("a", "t")[LEVEL]
    assert math.exp(level) == pytest.approx(60 * factor, rel=0.35)


def test_a_change_of_regime_reaches_functions_that_have_not_run_since() -> None:
    history = History([*steady("a", 60, 30), *steady("b", 90, 30, at=5_000)])
    before = history.snapshot("b", "t")[LEVEL]
    for observation in steady("a", 15, 5, at=50_000):
        history.observe(observation)
    assert history.snapshot("b", "t")[LEVEL] < before - 0.5


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


def test_inputs_seen_before_do_not_waver_with_what_other_inputs_take() -> None:
    """The same question takes 10 s each time; between two times five others take 20 s, more or
    less."""
    errors = []
    for seed in range(8):
        chance, history, at = random.Random(seed), History(), 0.0
        for number in range(300):
            same = number % 6 == 0
            features = (1.0,) if same else (100.0 + number,)
            seconds = 10.0 if same else 20.0 * math.exp(chance.gauss(0.0, 0.3))
            if same and number > 60:
                expected = history.function_seconds("a", features)
                assert expected is not None
                errors.append(abs(math.log(expected / seconds)))
            history.observe(Observation("a", "t", at, at + seconds, features))
            at += seconds
    assert sum(errors) / len(errors) < 0.03


def test_inputs_seen_before_follow_a_change_that_others_show() -> None:
    """Everything takes three times as long, as on another backend, and then what it did before."""
    history, at = History(), 0.0
    for factor in (1.0, 3.0, 1.0):
        for number in range(60):
            same = at < 1000.0 and number % 6 == 0
            features = (1.0,) if same else (100.0 + at,)
            seconds = factor * (10.0 if same else 20.0)
            history.observe(Observation("a", "t", at, at + seconds, features))
            at += seconds
        assert history.function_seconds("a", (1.0,)) == pytest.approx(10.0 * factor, rel=0.3)


def test_similar_inputs_share_their_effect() -> None:
    chance = random.Random(1)
    history, at = History(), 0.0
    for _ in range(150):
        size = chance.choice([10.0, 1_000.0]) * chance.uniform(0.9, 1.1)
        seconds = 2.0 if size < 100 else 40.0
        history.observe(Observation("a", "t", at, at + seconds, (size,)))
        at += seconds
    small, large = (history.snapshot("a", "t", (size,))[LEVEL] for size in (10.01, 999.9))
    assert large - small > 1.5


@settings(deadline=None)
@given(logs(), st.lists(st.sampled_from([(), ("x", ""), ("x", "y")]), min_size=25, max_size=25))
def test_many_at_once_are_told_what_each_would_be(
    log: list[Observation], contexts: list[tuple[str, ...]]
) -> None:
    ran = [structs.replace(o, context=c) for o, c in zip(log, contexts, strict=False)]
    history = History(ran)
    asked = [(1.5, math.nan), (math.nan, math.nan), (0.0, -7.0), *(o.features for o in log)]
    for function, context in itertools.product("abcd", [(), ("x", ""), ("x", "y"), ("z", "y")]):
        tool = "t1" if function == "a" else "t2"
        each = [history.snapshot(function, tool, features, context) for features in asked]
        rows = input_effects.encode_rows(np.array(asked))
        together = history.snapshots_of(function, tool, rows, context)
        np.testing.assert_allclose(together, each, rtol=1e-4, atol=1e-4)


def test_without_features_the_level_alone_answers() -> None:
    log = steady("a", 20, 30, features=(5.0, 1.0))
    nothing = (math.nan, math.nan)
    assert History(log).function_seconds("a", nothing) == pytest.approx(20, rel=0.15)


def test_memory_is_bounded_however_many_inputs_come_by() -> None:
    history = History()
    for number in range(3_000):
        history.observe(Observation("a", "t", number, number + 1.0, (float(number),)))
    inputs = history._functions["a"].lines[()].inputs
    assert len(inputs._identical) <= 512


def in_turns(*logs: list[Observation]) -> list[Observation]:
    """The first of each log, the second of each, and so on, one after the other in time."""
    rows: list[Observation] = []
    at = 0.0
    for together in zip(*logs, strict=True):
        for o in together:
            end = at + o.end - o.start
            rows.append(Observation(o.function, o.tool_type, at, end, o.features, o.context))
            at = end
    return rows


def running(
    function: str, seconds: float, times: int, *context: str, noise: float = 0.05
) -> list[Observation]:
    return [
        Observation(function, "t", o.start, o.end, (), context)
        for o in steady(function, seconds, times, noise=noise)
    ]


def expected(history: History, function: str, *context: str) -> float:
    return math.exp(history.snapshot(function, "t", (), context)[LEVEL])


def test_a_function_has_a_level_in_each_context() -> None:
    history = History(in_turns(running("a", 10, 20, "small"), running("a", 90, 20, "large")))
    assert expected(history, "a", "small") == pytest.approx(10, rel=0.15)
    assert expected(history, "a", "large") == pytest.approx(90, rel=0.15)
    assert history.function_seconds("a", (), ("large",)) == pytest.approx(90, rel=0.15)


def test_an_unknown_context_is_any_that_the_function_ran_in_lately() -> None:
    """The mean of both logarithms, however it is said that nothing is known."""
    history = History(in_turns(running("a", 10, 20, "small"), running("a", 90, 20, "large")))
    assert expected(history, "a") == expected(history, "a", "")
    assert expected(history, "a") == pytest.approx(30, rel=0.2)


def test_what_is_known_of_a_context_counts_where_the_rest_is_not() -> None:
    history = History(
        in_turns(
            running("a", 10, 20, "small", "node1"),
            running("a", 12, 20, "small", "node2"),
            running("a", 90, 20, "large", "node1"),
        )
    )
    assert expected(history, "a", "small", "") == pytest.approx(11, rel=0.15)
    assert expected(history, "a", "", "node2") == pytest.approx(12, rel=0.15)


def test_a_context_known_only_afterwards_serves_those_that_name_none() -> None:
    history = History(running("a", 20, 20, "small"))
    assert expected(history, "a") == expected(history, "a", "small")
    assert history.function_seconds("a") == pytest.approx(20, rel=0.15)


def test_a_new_context_starts_from_its_function_and_from_its_words_elsewhere() -> None:
    """`b` was never seen with the large model, which makes `a` and `c` take four times as long."""
    history = History(
        in_turns(
            running("a", 10, 30, "small"),
            running("a", 40, 30, "large"),
            running("b", 100, 30, "small"),
            running("c", 25, 30, "small"),
            running("c", 100, 30, "large"),
        )
    )
    assert expected(history, "b", "large") == pytest.approx(400, rel=0.35)
    assert expected(history, "b", "unheard of") == pytest.approx(100, rel=0.5)


def test_a_change_of_regime_in_one_context_leaves_the_others_alone() -> None:
    history = History(
        in_turns(
            running("a", 60, 30, "old"), running("b", 90, 30, "new"), running("c", 80, 30, "old")
        )
    )
    stays, moves = expected(history, "b", "new"), expected(history, "c", "old")
    for observation in running("a", 15, 5, "old"):
        history.observe(observation)
    assert expected(history, "b", "new") == pytest.approx(stays, rel=0.1)
    assert expected(history, "c", "old") < 0.6 * moves


def test_functions_that_never_followed_the_others_are_left_alone() -> None:
    """Five swaps of one backend, which `away` and `afar` sat out, teach who follows whom."""
    history = History()
    for swap in range(6):
        seconds = (60.0, 15.0)[swap % 2]
        moving = [running(name, seconds, 12) for name in ("a", "b", "c")]
        for o in in_turns(*moving, running("away", 90, 12), running("afar", 70, 12)):
            history.observe(o)
    stays, moves = expected(history, "away"), expected(history, "b")
    for observation in running("a", 60, 5):
        history.observe(observation)
    assert expected(history, "away") == pytest.approx(stays, rel=0.25)
    assert expected(history, "b") > 1.3 * moves


def test_one_outlier_moves_nobody_once_it_has_not_been_borne_out() -> None:
    history = History(in_turns(running("a", 60, 30), running("b", 90, 30)))
    before = expected(history, "b")
    history.observe(Observation("a", "t", 0.0, 600.0))
    assert expected(history, "b") > 1.3 * before
    for observation in running("a", 60, 1):
        history.observe(observation)
    assert expected(history, "b") == pytest.approx(before, rel=0.1)


def test_where_outliers_are_common_they_stop_moving_others() -> None:
    def moved(log: list[Observation]) -> float:
        history = History()
        for o in log:
            history.observe(o)
        before = expected(history, "b")
        history.observe(Observation("a", "t", 0.0, 600.0))
        return expected(history, "b") / before - 1.0

    regular = in_turns(running("a", 60, 90, noise=0.0), running("b", 90, 90, noise=0.0))
    odd = [
        Observation("a", "t", 0.0, 600.0) if o.function == "a" and number % 14 == 12 else o
        for number, o in enumerate(regular)
    ]
    assert moved(odd) < 0.5 * moved(regular)


def test_the_least_recently_used_functions_contexts_and_words_are_forgotten() -> None:
    history = History()
    for number in range(5_000):
        history.observe(Observation(f"f{number}", "t", 0.0, 5.0))
        history.observe(Observation("steady", "t", 0.0, 20.0, (), (f"model{number}",)))
    assert history.function_seconds("f0") is None
    assert history.function_seconds("f4999") == pytest.approx(5.0)
    assert history.function_seconds("steady") == pytest.approx(20.0, rel=0.1)
    tool = history._tools["t"]
    assert sum(len(f.lines) for f in history._functions.values()) <= 2048
    assert len(history._functions["steady"].lines) <= 64
    assert len(tool.words) <= 512
    assert len(tool.contexts) <= 512


def test_a_pickled_history_goes_on_as_the_original_does() -> None:
    draw = random.Random(3)
    rows = [(draw.uniform(1.0, 50.0), float(draw.randrange(3))) for _ in range(40)]
    original = History()
    for number, features in enumerate(rows):
        if number == 20:
            restored = pickle.loads(pickle.dumps(original))
        for history in (original, restored) if number >= 20 else (original,):
            end = number + features[0]
            history.observe(Observation("a", "t", float(number), end, features))
    seen = [history.snapshot("a", "t", (7.0, 1.0)) for history in (original, restored)]
    assert same(*seen)
