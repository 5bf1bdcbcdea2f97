"""Each condition alone stops a promotion, and every reason is on record."""

from __future__ import annotations

import math

import pytest

from malearn.learning import gate
from malearn.learning.gate import Decision
from malearn.learning.metrics import Scores


def scores(mae: float, order: float = 0.8, n: int = 100) -> Scores:
    return Scores(n, mae, mae, 0.5, 0.1, 0.1, 0.9, order)


def decide(own: Scores, **rivals: Scores) -> Decision:
    return gate.decide("xgboost", {"xgboost": own, **rivals})


def failed(decision: Decision) -> list[str]:
    return [reason.check for reason in decision.reasons if not reason.passed]


def test_a_candidate_that_beats_everyone_is_promoted_and_says_whom_it_beat() -> None:
    decision = decide(scores(1.0), function_median=scores(2.0), heuristic=scores(15.0, 0.5))
    assert decision.promote
    assert decision.why == (
        "100 test rows; "
        "xgboost MAE 1 s is at least 2 % lower than function_median (2 s); "
        "xgboost MAE 1 s is at least 2 % lower than heuristic (15 s); "
        "xgboost pairwise accuracy 80 % is no more than 1 point below function_median (80 %)"
    )


@pytest.mark.parametrize("loses_to", ["incumbent v3", "function_median", "function_ema"])
def test_one_rival_with_a_lower_error_stops_it(loses_to: str) -> None:
    rivals = {name: scores(2.0) for name in ("incumbent v3", "function_median", "function_ema")}
    decision = decide(scores(1.0), **{**rivals, loses_to: scores(0.9)})
    assert not decision.promote
    assert failed(decision) == [f"error against {loses_to}"]
    assert decision.why == f"xgboost MAE 1 s is not at least 2 % lower than {loses_to} (0.9 s)"


def test_being_better_by_less_than_the_margin_is_not_better() -> None:
    assert decide(scores(1 - gate.MARGIN - 1e-9), rival=scores(1.0)).promote
    assert not decide(scores(1 - gate.MARGIN + 1e-9), rival=scores(1.0)).promote


def test_a_strong_learner_must_be_equalled_not_beaten() -> None:
    assert decide(scores(1.0), stack=scores(0.99)).promote
    decision = decide(scores(1.0), stack=scores(0.9))
    assert failed(decision) == ["error against stack"]
    assert decision.why == "xgboost MAE 1 s is more than 2 % above stack (0.9 s)"
    assert decide(scores(1.0, n=50), stack=scores(0.9, n=50)).promote


def test_a_perfect_rival_cannot_be_beaten() -> None:
    assert not decide(scores(0.1), rival=scores(0.0)).promote


def test_ranking_worse_than_the_best_rival_stops_it() -> None:
    decision = decide(scores(1.0, 0.70), good=scores(2.0, 0.80), poor=scores(2.0, 0.10))
    assert failed(decision) == ["pairwise accuracy"]
    assert decision.why == ("xgboost pairwise accuracy 70 % is more than 1 point below good (80 %)")


def test_ranking_a_hair_worse_is_let_pass() -> None:
    slack = gate.RANKING_SLACK
    assert decide(scores(1.0, 0.8 - slack + 1e-9), rival=scores(2.0, 0.8)).promote
    assert not decide(scores(1.0, 0.8 - slack - 1e-9), rival=scores(2.0, 0.8)).promote


def test_where_nothing_can_be_ranked_order_is_no_condition() -> None:
    decision = decide(scores(1.0, math.nan), rival=scores(2.0, math.nan))
    assert decision.promote
    assert "pairwise accuracy" not in {reason.check for reason in decision.reasons}


def test_too_few_rows_prove_nothing() -> None:
    few = gate.FEWEST_ROWS - 1
    decision = decide(scores(1.0, n=few), rival=scores(2.0, n=few))
    assert failed(decision) == ["rows"]
    assert decision.why == f"only {few} test rows; at least {few + 1} are required"


def test_an_error_that_is_no_number_is_not_better() -> None:
    assert not decide(scores(math.nan), rival=scores(2.0)).promote
    assert not decide(scores(1.0), rival=scores(math.nan)).promote


def test_the_order_in_which_rivals_come_changes_nothing() -> None:
    one = decide(scores(1.0), a=scores(2.0, 0.7), b=scores(0.5, 0.9))
    other = decide(scores(1.0), b=scores(0.5, 0.9), a=scores(2.0, 0.7))
    assert set(one.reasons) == set(other.reasons)
    assert one.promote == other.promote


@pytest.mark.parametrize("rival", [0.5, 2.0])
def test_a_decision_survives_json(rival: float) -> None:
    decision = decide(scores(1.0), rival=scores(rival)).with_check("onnx", True, "σ ≤ 1e-4")
    assert Decision.from_json(decision.to_json()) == decision


def test_one_more_check_can_stop_a_promotion() -> None:
    decision = decide(scores(1.0), rival=scores(2.0)).with_check("onnx", False, "it differs")
    assert not decision.promote
    assert decision.why == "it differs"


def test_one_more_check_cannot_save_a_candidate_that_failed() -> None:
    decision = decide(scores(3.0), rival=scores(2.0)).with_check("onnx", True, "it is faithful")
    assert not decision.promote
    assert "it is faithful" not in decision.why


def test_a_check_made_again_takes_the_place_of_its_last_outcome() -> None:
    """So that what a passing fault of the network stopped can be proven another day."""
    first = decide(scores(1.0), rival=scores(2.0)).with_check("onnx", False, "no answer")
    again = first.with_check("onnx", True, "it is faithful")
    assert again.promote
    assert [reason.check for reason in again.reasons].count("onnx") == 1
