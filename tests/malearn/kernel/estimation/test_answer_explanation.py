"""An explanation is of the answer that is given: its terms sum to it, whoever answers."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import msgspec
import pytest

from malearn.kernel.estimation import answer_explanation
from malearn.kernel.estimation.answer_explanation import AnswerExplanation, ModelAnswer
from malearn.kernel.estimation.estimator import Estimator
from malearn.kernel.estimation.observation import Observation

TOOL = "llm_process"


def observations(count: int, contexts: bool, seed: int = 0) -> Iterator[Observation]:
    """Tasks of a few functions, in two regimes, some with the very same inputs."""
    dice, clock = random.Random(seed), 1.7e9
    for number in range(count):
        function = f"task{dice.randrange(4)}_{TOOL}"
        features = (float(dice.randrange(1, 30)), dice.choice((0.0, 1.0, math.nan)))
        slow = 3.0 if (number // 25) % 2 else 1.0
        seconds = slow * (1.0 + features[0] / 10.0) * math.exp(dice.gauss(0.0, 0.1))
        context = (dice.choice("ab"), dice.choice(("x", "y"))) if contexts else ()
        clock += 30.0
        yield Observation(function, TOOL, clock, clock + seconds, features, context)


def explained(known: Estimator, task: Observation, **model: object) -> AnswerExplanation:
    basis = known.look_up(task.function, task.tool_type, task.features, task.context)
    answer = ModelAnswer(**model)  # type: ignore[arg-type]
    return answer_explanation.explain(known, basis, task.features, task.context, 15.0, answer)


def total(answer: AnswerExplanation) -> float:
    return math.exp(math.fsum(term.log_seconds for term in answer.terms))


@pytest.mark.parametrize("contexts", [False, True])
@pytest.mark.parametrize("model", [{}, {"seconds": 7.5, "version": 3}])
def test_the_terms_sum_to_the_answer_at_every_moment(contexts: bool, model: dict) -> None:
    known, sources = Estimator(), set()
    for number, task in enumerate(observations(250, contexts)):
        if contexts and number % 3 == 0:  # half of it, or none, is known
            known_context = (task.context[0], "") if number % 2 else ()
            task = msgspec.structs.replace(task, context=known_context)
        answer = explained(known, task, **model)
        sources.add(answer.prediction.source)
        assert total(answer) == pytest.approx(answer.prediction.seconds, rel=1e-9)
        known.observe(task)
    assert sources == ({"model"} if model else {"heuristic", "tool_history", "function_history"})


def test_what_a_model_starts_from_is_what_the_history_answers() -> None:
    known = Estimator()
    *earlier, task = observations(60, contexts=False)
    for one in earlier:
        known.observe(one)
    without, with_model = explained(known, task), explained(known, task, seconds=40.0, version=2)
    assert with_model.base == without.terms
    assert with_model.terms[: len(without.terms)] == with_model.base
    assert with_model.terms[len(without.terms)].group == "model"


def test_identical_inputs_are_named_with_the_execution_that_had_them() -> None:
    known = Estimator()
    seen = [
        Observation("f", TOOL, 10.0 * i, 10.0 * i + 2.0 + i % 2, (float(i % 3),)) for i in range(9)
    ]
    for one in seen:
        known.observe(one)
    basis = known.look_up("f", TOOL, (2.0,), ())
    answer = answer_explanation.explain(known, basis, (2.0,), (), 3.0, ModelAnswer(), seen)
    (similar,) = answer.similar
    assert (similar.identical, similar.share, similar.ended) == (True, 1.0, seen[8].end)


def test_shares_of_similar_inputs_give_the_effect() -> None:
    known = Estimator()
    *earlier, task = observations(120, contexts=False, seed=3)
    for one in earlier:
        known.observe(one)
    basis = known.look_up(task.function, TOOL, (17.3, 1.0), ())
    answer = answer_explanation.explain(known, basis, (17.3, 1.0), (), 3.0, ModelAnswer(), earlier)
    (effect,) = (term for term in answer.terms if term.group == "inputs")
    found = sum(one.share * one.effect for one in answer.similar)
    assert 0.0 < sum(one.share for one in answer.similar) < 1.0
    # The effect is weighed once more by what such effects were worth lately, 0.1 to 1.5.
    assert math.copysign(1.0, found) == math.copysign(1.0, effect.log_seconds)
    assert 0.1 <= effect.log_seconds / found <= 1.5
    assert answer.similar[0].seconds is not None


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ({"why_not": "no model is in Production"}, "no model is in Production"),
        ({"seconds": math.nan}, "not a positive, finite number"),
        ({"seconds": 90.0, "seconds_range": (1.0, 90.0)}, "at the end of the range"),
    ],
)
def test_the_chain_says_why_the_model_did_not_answer(model: dict, why: str) -> None:
    known = Estimator()
    for one in observations(60, contexts=False):
        known.observe(one)
    steps = explained(known, one, **model).chain
    assert [(step.source, step.answered) for step in steps] == [
        ("model", False),
        ("function_history", True),
    ]
    assert why in steps[0].why


def test_the_interval_says_what_it_is_calibrated_on() -> None:
    known = Estimator()
    assert "assumed" in explained(known, next(observations(1, False))).interval
    for task in observations(60, contexts=False):
        basis = known.look_up(task.function, TOOL, task.features, task.context)
        known.learn(basis, 5.0, task.end - task.start)
        known.observe(task)
    assert "of this tool type's latest outcomes" in explained(known, task).interval
    assert "usual error of the function, and of these inputs" in explained(known, task).interval
    # They ran, but no answer for them was ever compared with what came of it.
    other = msgspec.structs.replace(task, features=(77.0, 1.0))
    known.observe(other)
    assert "usual error of the function, " in explained(known, other).interval
    assert "of these inputs" not in explained(known, other).interval
    fresh = explained(Estimator(), task, seconds=3.0, calibration=(0.8, 1.2, 0.9))
    assert "model's test window" in fresh.interval
