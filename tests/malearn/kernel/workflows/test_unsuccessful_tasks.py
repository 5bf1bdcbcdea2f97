"""How long workflows wait for tasks that fail or are skipped."""

from __future__ import annotations

import math

import pytest

from malearn.kernel.workflows import unsuccessful_tasks
from malearn.kernel.workflows.unsuccessful_tasks import TaskOutcome, UnsuccessfulTasks

SHORT, LONG = (10.0, 1.0), (900.0, 1.0)


def outcome(
    features: tuple[float, ...], answered: float, seconds: float, successful: bool
) -> TaskOutcome:
    return TaskOutcome.of("fuse", features, answered, seconds, successful=successful)


def test_inputs_that_fail_again_take_what_they_took_and_others_what_was_answered() -> None:
    known = UnsuccessfulTasks()
    for _ in range(8):
        known.learn(outcome(LONG, 60.0, 130.0, successful=False))
        known.learn(outcome(SHORT, 60.0, 60.0, successful=True))
    assert 60.0 * math.exp(known.effect("fuse", LONG)) == pytest.approx(130.0, rel=0.1)
    assert 60.0 * math.exp(known.effect("fuse", SHORT)) == pytest.approx(60.0, rel=0.02)
    assert known.effect("other", LONG) == 0.0
    assert known.effect("fuse", (math.nan, math.nan)) == 0.0


def test_what_is_always_skipped_is_expected_to_be_skipped_whatever_its_inputs() -> None:
    known = UnsuccessfulTasks()
    for number in range(10):
        known.learn(outcome((2.0**number, 1.0), 100.0, 0.002, successful=False))
    assert 100.0 * math.exp(known.effect("fuse", (5000.0, 3.0))) < 1.0
    assert 100.0 * math.exp(known.effect("fuse", ())) < 1.0, "before its inputs are known"
    # One that succeeded before may do so with other inputs.
    assert 100.0 * math.exp(known.effect("fuse", (0.0, 900.0), succeeded=True)) > 10.0
    assert known.effect("fuse", (), succeeded=True) == 0.0


def test_known_inputs_of_what_never_succeeds_count_no_less_than_unknown_ones() -> None:
    known = UnsuccessfulTasks()
    for number in range(30):
        known.learn(outcome((90.0 + number, 1.0), 110.0, 500.0, successful=False))
    unknown = known.effect("fuse", (5000.0, 3.0))
    assert known.effect("fuse", (95.0, 1.0)) == pytest.approx(unknown, rel=0.05)


def test_one_outcome_beyond_all_measure_is_held_within_bounds() -> None:
    known = UnsuccessfulTasks()
    known.learn(outcome(LONG, 1e-300, 1e300, successful=False))
    for _ in range(30):
        known.learn(outcome(SHORT, 60.0, 130.0, successful=False))
    assert 60.0 * math.exp(known.effect("fuse", SHORT)) == pytest.approx(130.0, rel=0.3)


def test_nothing_is_learnt_of_a_function_that_has_never_failed() -> None:
    known = UnsuccessfulTasks()
    assert not known.learn(outcome(LONG, 60.0, 130.0, successful=True))
    assert len(known) == 0
    assert known.learn(outcome(LONG, 60.0, 130.0, successful=False))
    assert known.learn(outcome(LONG, 60.0, 130.0, successful=True))


def test_where_failures_tell_nothing_the_answer_stays() -> None:
    """The same inputs take longer and shorter in turn."""
    known = UnsuccessfulTasks()
    for number in range(40):
        seconds = 120.0 if number % 2 else 30.0
        known.learn(outcome(LONG, 60.0, seconds, successful=number % 4 > 0))
    assert abs(known.effect("fuse", LONG)) < 0.3


def test_the_functions_seen_last_are_remembered() -> None:
    known = UnsuccessfulTasks()
    for number in range(1100):
        known.learn(TaskOutcome(f"f{number}", LONG, 1.0, successful=False))
    assert len(known) == 1024
    for _ in range(5):
        known.learn(TaskOutcome("f1099", LONG, 1.0, successful=False))
    assert known.effect("f1099", LONG) > 0.5
    assert known.effect("f0", LONG) == 0.0


def test_an_outcome_is_read_back_and_what_is_none_is_not() -> None:
    written = unsuccessful_tasks.encode(TaskOutcome("f", (1.0, math.nan), 0.5, successful=False))
    found = unsuccessful_tasks.decode(written)
    assert found is not None
    assert (found.function, found.features[0], found.above, found.successful) == (
        "f",
        1.0,
        0.5,
        False,
    )
    assert math.isnan(found.features[1])
    for raw in (b"nonsense", b'["f",[1.0],99.0,false]', b'["f",[],0.5,false]', None, b"\xff"):
        assert unsuccessful_tasks.decode(raw) is None
