"""Scores are the ones the libraries compute, and order means what a scheduler needs of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from malearn.learning import metrics

seconds = st.floats(0.01, 1e4)
pairs = st.lists(st.tuples(seconds, seconds), min_size=2, max_size=40)


@given(pairs)
def test_errors_are_the_ones_scikit_learn_computes(pairs: list[tuple[float, float]]) -> None:
    actual, predicted = map(np.array, zip(*pairs, strict=True))
    scores = metrics.score(actual, predicted)
    assert scores.n == len(pairs)
    assert scores.mae == pytest.approx(reference.mean_absolute_error(actual, predicted))
    assert scores.rmse == pytest.approx(reference.root_mean_squared_error(actual, predicted))
    assert scores.mape == pytest.approx(reference.mean_absolute_percentage_error(actual, predicted))


@pytest.mark.parametrize("seed", range(5))
def test_r2_and_spearman_are_the_ones_scikit_learn_and_scipy_compute(seed: int) -> None:
    source = np.random.default_rng(seed)
    actual = source.lognormal(2, 1, 100).round(0) + 1  # rounded, so that some are tied
    predicted = (actual * source.lognormal(0, 0.5, 100)).round(0)
    scores = metrics.score(actual, predicted)
    assert scores.r2 == pytest.approx(reference.r2_score(actual, predicted))
    assert scores.spearman == pytest.approx(stats.spearmanr(actual, predicted).statistic)


def test_median_ape_is_the_middle_of_the_errors_as_shares_of_the_actual_time() -> None:
    assert metrics.score([10.0, 10.0, 100.0], [11.0, 15.0, 300.0]).median_ape == pytest.approx(0.5)


def test_a_perfect_prediction_scores_perfectly() -> None:
    scores = metrics.score([1.0, 2.0, 4.0], [1.0, 2.0, 4.0])
    assert scores.as_dict() == {
        "n": 3, "mae": 0, "rmse": 0, "r2": 1, "mape": 0, "median_ape": 0,
        "spearman": pytest.approx(1), "pairwise_accuracy": 1,
    }  # fmt: skip


def test_where_there_is_nothing_to_rank_or_explain_the_score_is_nan() -> None:
    """And no warning is raised on the way."""
    scores = metrics.score([5.0, 5.0], [4.0, 7.0])
    assert all(map(math.isnan, (scores.r2, scores.spearman, scores.pairwise_accuracy)))
    assert math.isnan(metrics.score([1.0, 9.0], [3.0, 3.0]).spearman)
    assert metrics.score([5.0], [4.0]).mae == 1.0


@pytest.mark.parametrize(("actual", "predicted"), [([], []), ([1.0], []), ([1.0], [1.0, 2.0])])
def test_unequal_lengths_are_refused(actual: list[float], predicted: list[float]) -> None:
    with pytest.raises(ValueError, match=f"{len(predicted)} predictions for {len(actual)}"):
        metrics.score(actual, predicted)


def order(actual: list[float], predicted: list[float], groups: list[str] | None = None) -> float:
    return metrics.pairwise_accuracy(np.array(actual), np.array(predicted), groups)


def test_order_is_the_share_of_clearly_different_pairs_predicted_rightly() -> None:
    assert order([1, 2, 4], [10, 20, 30]) == 1.0
    assert order([1, 2, 4], [30, 20, 10]) == 0.0
    assert order([1, 2, 4], [20, 10, 30]) == pytest.approx(2 / 3)


def test_tasks_that_take_about_the_same_have_no_order_to_get_wrong() -> None:
    """Just above the factor a pair counts; at it, it does not."""
    assert math.isnan(order([10, 10 * metrics.CLEARLY_LONGER], [2, 1]))
    assert order([10, 10 * metrics.CLEARLY_LONGER + 0.01], [2, 1]) == 0.0


def test_a_tie_in_the_prediction_is_half_right() -> None:
    assert order([1, 2], [7, 7]) == 0.5
    assert order([1, 2, 4], [7, 7, 9]) == pytest.approx(2.5 / 3)


def test_pairs_are_formed_within_a_group_only() -> None:
    """Across the groups every pair is predicted wrongly; within, every one rightly."""
    actual, predicted = [1, 2, 10, 20], [100, 200, 1, 2]
    assert order(actual, predicted, ["a", "a", "b", "b"]) == 1.0
    assert order(actual, predicted) == pytest.approx(2 / 6)
    assert math.isnan(order(actual, predicted, ["a", "b", "c", "d"]))


def test_of_very_many_rows_an_even_sample_is_paired() -> None:
    actual = np.geomspace(1, 1000, 20_000)
    assert metrics.pairwise_accuracy(actual, actual) == 1.0
    assert metrics.pairwise_accuracy(actual, -actual) == 0.0


@given(pairs)
def test_order_reversed_is_what_is_left_to_one(pairs: list[tuple[float, float]]) -> None:
    actual, predicted = map(np.array, zip(*pairs, strict=True))
    share = metrics.pairwise_accuracy(actual, predicted)
    if not math.isnan(share):
        assert metrics.pairwise_accuracy(actual, -predicted) == pytest.approx(1 - share)
