"""One chain of fallbacks: who answers, and from which of them an outcome is learnt."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from malearn.kernel.estimation import estimator
from malearn.kernel.estimation.estimator import Estimator
from malearn.kernel.estimation.observation import Observation


def seen(function: str, seconds: float, count: int = 6) -> Estimator:
    known = Estimator()
    for number in range(count):
        start = number * 100.0
        known.observe(Observation(function, "t", start, start + seconds))
    return known


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, 0.0, -3.0])
def test_a_model_that_fails_falls_to_the_functions_history(nonsense: float) -> None:
    basis = seen("f", 20.0).look_up("f", "t")
    prediction = estimator.answer(basis, 15.0, nonsense, 7)
    assert (prediction.source, prediction.model_version) == ("function_history", None)
    assert prediction.seconds == pytest.approx(20.0, rel=0.01)


def test_the_first_that_gives_a_time_answers() -> None:
    known = seen("f", 20.0)
    answers = [
        estimator.answer(known.look_up("f", "t"), 15.0, 18.0, 7),
        estimator.answer(known.look_up("f", "t"), 15.0),
        estimator.answer(known.look_up("g", "t"), 15.0),
        estimator.answer(known.look_up("g", "other"), 15.0),
        estimator.answer(known.look_up("g", ""), 15.0),
    ]
    assert [a.source for a in answers] == [
        "model",
        "function_history",
        "tool_history",
        "heuristic",
        "heuristic",
    ]
    assert [round(a.seconds) for a in answers] == [18, 20, 20, 15, 15]
    assert all(a.low < a.seconds < a.high for a in answers)
    assert answers[0].model_version == 7


@pytest.mark.parametrize(("took", "bound"), [(6_000.0, 1_370.0), (0.05, 1.69)])
def test_a_model_at_its_bound_does_not_overrule_what_a_function_always_took(
    took: float, bound: float
) -> None:
    known = seen("f", took)
    for function, source, seconds in (
        ("f", "function_history", took),
        ("new", "model", bound),
    ):
        prediction = estimator.answer(
            known.look_up(function, "t"), 15.0, bound, 7, model_range=(1.69, 1_370.0)
        )
        assert (prediction.source, prediction.seconds) == (
            source,
            pytest.approx(seconds, rel=0.01),
        )


def test_a_function_that_nobody_claims_has_a_history_all_the_same() -> None:
    known = Estimator([Observation("f", "", 0.0, 5.0)])
    prediction = estimator.answer(known.look_up("f", ""), 15.0)
    assert (prediction.source, round(prediction.seconds)) == ("function_history", 5)


def test_nothing_is_learnt_from_the_outcome_of_a_blind_guess() -> None:
    known = Estimator()
    before = known.look_up("f", "t")
    known.learn(before, 15.0, 1500.0)
    assert known.look_up("f", "t").width == before.width


def after_outcomes(model: float, actual: float, count: int = 20) -> list[float]:
    """What is answered while a model says `model` and tasks take `actual`, in seconds."""
    known, answers = seen("f", 20.0), []
    for _ in range(count):
        basis = known.look_up("f", "t")
        answers.append(estimator.answer(basis, 15.0, model, 7).seconds)
        known.learn(basis, answers[-1], actual)
    return answers


def test_a_model_that_errs_more_than_the_history_counts_less_and_less() -> None:
    answers = after_outcomes(model=60.0, actual=20.0)
    assert answers[0] == 60.0
    assert answers[-1] == pytest.approx(20.0, rel=0.05)


def test_a_model_that_errs_less_than_the_history_goes_on_answering() -> None:
    assert after_outcomes(model=30.0, actual=30.0) == pytest.approx([30.0] * 20, rel=0.01)


def test_errors_of_as_many_functions_are_remembered_as_the_owner_says() -> None:
    known = Estimator(functions=2_200)
    for number in range(2_150):
        function, end = f"f{number}", 10.0 * number
        known.observe(Observation(function, "tool", end - 9.0, end))
        for actual in [27.0] * 5 if number == 0 else [9.1]:
            basis = known.look_up(function, "tool")
            known.learn(basis, 9.0, actual)
    erring, calm = known.look_up("f0", "tool"), known.look_up("f1", "tool")
    assert erring.width.scale > 2.0 * calm.width.scale


def after_repeats() -> tuple[Estimator, dict[float, list[bool]]]:
    """What is known of a function of which the inputs 1 take 20 seconds each time and the inputs
    900 anything around it; and whether outcomes of each lay within the interval given."""
    known, chance = Estimator(), random.Random(3)
    inside: dict[float, list[bool]] = {1.0: [], 900.0: []}
    for number in range(400):
        for length, spread in ((1.0, 0.02), (900.0, 0.3)):
            basis = known.look_up("f", "t", (length,))
            prediction = estimator.answer(basis, 15.0)
            actual = 20.0 * math.exp(chance.gauss(0.0, spread))
            inside[length].append(prediction.low <= actual <= prediction.high)
            known.learn(basis, prediction.seconds, actual)
            known.observe(Observation("f", "t", 99.0 * number, 99.0 * number + actual, (length,)))
    return known, inside


def test_inputs_that_take_as_long_each_time_get_a_narrower_interval_than_those_that_vary() -> None:
    known, inside = after_repeats()
    steady, varying, new = (known.look_up("f", "t", (x,)).width for x in (1.0, 900.0, 77.0))
    assert steady.high < 0.6 * new.high
    assert varying.high > 1.2 * new.high
    both = [one for row in inside.values() for one in row[100:]]
    assert sum(both) / len(both) == pytest.approx(0.8, abs=0.03)


def test_no_interval_is_wider_than_a_factor_of_100_either_way() -> None:
    known = Estimator()
    for number in range(20):
        basis = known.look_up("f", "t", (1.0,))
        seconds = 20.0 * math.exp(-9.0 if number == 14 else 0.01 * (number % 3))
        known.learn(basis, estimator.answer(basis, 15.0).seconds, seconds)
        start = 99.0 * number
        known.observe(Observation("f", "t", start, start + seconds, (1.0,)))
        for features in ((1.0,), (5.0,), ()):
            answer = estimator.answer(known.look_up("f", "t", features), 15.0)
            assert answer.seconds / 101.0 < answer.low <= answer.seconds
            assert answer.seconds <= answer.high < answer.seconds * 101.0


def test_many_at_once_get_the_answers_that_each_would_get() -> None:
    known, _ = after_repeats()
    features = [(1.0,), (77.0,), (900.0,), (1.0,), (math.nan,)]
    bases, _ = known.look_up_many("f", "t", np.array(features))
    each = [known.look_up("f", "t", one) for one in features]
    assert [one.width for one in bases] == [one.width for one in each]
    models = [19.0, 21.0, 30.0, 1e6, 18.0]
    limits = (1.0, 1_000.0)
    together = estimator.answer_many(bases, 15.0, models, 3, None, limits)
    assert together == [
        estimator.answer(basis, 15.0, model, 3, None, limits)
        for basis, model in zip(bases, models, strict=True)
    ]
