"""When numbers come from elsewhere than before, and when that is only chance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from malearn.lifecycle import drift


@pytest.fixture
def dice() -> np.random.Generator:
    return np.random.default_rng(3)


def test_numbers_from_the_same_place_do_not_drift(dice: np.random.Generator) -> None:
    before = {f"f{i}": dice.normal(size=300) for i in range(20)}
    now = {f"f{i}": dice.normal(size=60) for i in range(20)}
    assert [d.name for d in drift.compare(before, now) if d.found] == []


def test_what_moved_is_found_and_comes_first(dice: np.random.Generator) -> None:
    still, moved = dice.normal(size=300), dice.normal(size=300)
    now = {"still": dice.normal(size=60), "moved": dice.normal(2.0, size=60)}
    first, second = drift.compare({"still": still, "moved": moved}, now)
    assert (first.name, first.found, second.name, second.found) == ("moved", True, "still", False)
    assert first.before == pytest.approx(0.0, abs=0.2)
    assert first.now == pytest.approx(2.0, abs=0.4)


def test_a_small_move_is_none_however_certain_it_is(dice: np.random.Generator) -> None:
    (found,) = drift.compare({"x": dice.normal(size=50_000)}, {"x": dice.normal(0.2, size=50_000)})
    assert found.p_value < drift.ALPHA
    assert found.distance < drift.LARGE
    assert not found.found


def test_a_large_distance_of_few_numbers_is_chance() -> None:
    (found,) = drift.compare({"x": np.arange(100.0)}, {"x": np.array([90.0, 95.0])})
    assert found.distance > drift.LARGE
    assert not found.found


def test_a_feature_that_is_no_longer_reported_drifts(dice: np.random.Generator) -> None:
    (found,) = drift.compare({"x": dice.normal(size=200)}, {"x": np.full(40, math.nan)})
    assert (found.distance, found.found) == (1.0, True)
    assert math.isnan(found.now)


def test_what_is_missing_as_often_as_before_does_not_drift(dice: np.random.Generator) -> None:
    values = dice.normal(size=400)
    values[::2] = math.nan
    (found,) = drift.compare({"x": values[:300]}, {"x": values[300:]})
    assert not found.found


def test_a_flag_that_is_set_more_often_drifts() -> None:
    (found,) = drift.compare({"x": np.repeat([0.0, 1.0], [180, 20])}, {"x": np.ones(50)})
    assert found.distance == pytest.approx(0.9)
    assert found.found


def test_what_only_one_side_has_is_not_compared() -> None:
    assert drift.compare({"old": np.ones(9), "none": np.empty(0)}, {"new": np.ones(9)}) == []


def test_errors_that_grew_are_a_drift_and_errors_that_shrank_are_none(
    dice: np.random.Generator,
) -> None:
    small, large = np.abs(dice.normal(size=100)), 4.0 * np.abs(dice.normal(size=100))
    assert drift.grown("error", small, large).found
    shrunk = drift.grown("error", large, small)
    assert not shrunk.found
    assert shrunk.distance >= 0.0
