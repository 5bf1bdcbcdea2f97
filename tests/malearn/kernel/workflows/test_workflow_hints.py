"""What the beginning of a workflow says of tasks whose own inputs are not known."""

from __future__ import annotations

import math
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from malearn.kernel.estimation import estimator
from malearn.kernel.estimation.estimator import Estimator
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.prediction import Prediction
from malearn.kernel.records import Record
from malearn.kernel.workflow import Workflow
from malearn.kernel.workflows import workflow_hints
from malearn.kernel.workflows.workflow_hints import HintEffect, HintsSoFar

ASKED = {"short": 10.0, "long": 900.0}
TOOK = {"short": 20.0, "long": 32.0}


def hint(question: str) -> workflow_hints.Hint:
    found = workflow_hints.hint_of("read", {"answer": {"length": ASKED[question], "text": "x"}})
    assert found is not None
    return found


def known(questions: list[str]) -> Estimator:
    learnt = Estimator()
    for number, question in enumerate(questions):
        start = 100.0 * number
        learnt.observe(Observation("fuse", "t", start, start + TOOK[question]), [hint(question)])
    return learnt


def test_a_workflow_that_began_alike_tells_what_a_later_task_takes() -> None:
    learnt = known(["short", "long"] * 10)
    plain = learnt.look_up("fuse", "t").seconds
    effects = {one: learnt.hint_effect("fuse", hint(one)).log_seconds for one in TOOK}
    hinted = {one: plain * math.exp(effect) for one, effect in effects.items()}
    off = sum(abs(math.log(hinted[one] / TOOK[one])) for one in TOOK)
    assert off < 0.4 * sum(abs(math.log(plain / TOOK[one])) for one in TOOK)


def test_what_was_learnt_holds_in_another_process(tmp_path: Path) -> None:
    """Whose hashes of texts are others: a simulation hands what it knows to its workers."""
    learnt, pickled = known(["short", "long"] * 10), tmp_path / "known"
    pickled.write_bytes(pickle.dumps((learnt, hint("long"))))
    script = (
        "import pickle, sys; known, hint = pickle.load(open(sys.argv[1], 'rb')); "
        "print(known.hint_effect('fuse', hint).log_seconds)"
    )
    for seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", script, str(pickled)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        effect = learnt.hint_effect("fuse", hint("long")).log_seconds
        assert float(there.stdout) == effect > 0.0


def test_the_functions_of_a_workflow_are_a_hint_whatever_its_ids_and_their_order() -> None:
    def shape(*functions: str) -> Workflow:
        names = (f"{len(functions)}-{number}" for number in range(len(functions)))
        return Workflow("run", {i: (f, "gpu", []) for i, f in zip(names, functions, strict=True)})

    hint_of_shape = workflow_hints.hint_of_shape
    assert hint_of_shape(shape("a", "b")) == hint_of_shape(shape("b", "a"))
    assert hint_of_shape(shape("a", "b")) != hint_of_shape(shape("a", "b", "b"))
    growing = shape("a", "b")
    growing.append("c", "b", "gpu")
    assert hint_of_shape(growing) is None


def test_a_hint_says_nothing_of_a_function_that_never_followed_it() -> None:
    assert known(["short", "long"] * 5).hint_effect("other", hint("long")) == HintEffect()


def test_what_announces_no_number_is_no_hint() -> None:
    assert workflow_hints.hint_of("read", {"answer": {"text": "x", "length": math.nan}}) is None


def test_an_answer_keeps_its_interval_and_one_that_no_history_gave_stays() -> None:
    history = Prediction(10.0, 8.0, 12.0, "function_history")
    moved = workflow_hints.applied(history, HintEffect(math.log(2.0)))
    assert (moved.seconds, moved.low, moved.high) == pytest.approx((20.0, 16.0, 24.0))
    model = Prediction(10.0, 8.0, 12.0, "model", 3)
    assert workflow_hints.applied(model, HintEffect(1.0)) is model


def test_after_a_hint_that_the_same_always_followed_an_answer_is_surer() -> None:
    learnt, chance = Estimator(), random.Random(3)
    for number in range(40):
        start = 100.0 * number
        for question, spread in (("short", 0.02), ("long", 0.8)):
            seconds = TOOK[question] * math.exp(chance.gauss(0.0, spread))
            learnt.observe(Observation("fuse", "t", start, start + seconds), [hint(question)])
    answer = Prediction(25.0, 1.0, 400.0, "function_history", confidence=0.1)
    steady, varying = (
        workflow_hints.applied(answer, learnt.hint_effect("fuse", hint(one)))
        for one in ("short", "long")
    )
    assert math.log(steady.high / steady.low) < 0.6 * math.log(varying.high / varying.low)
    assert steady.confidence > varying.confidence
    for one in (steady, varying):
        assert one.low < one.seconds < one.high


@pytest.mark.parametrize(
    "factor",
    [
        lambda chance: 5.0 if chance.random() < 0.3 else 1.0,
        lambda chance: 12.0 if chance.random() < 0.5 else 1.0,
        lambda chance: math.exp(chance.gauss(0.0, 1.0)),
    ],
    ids=["some five times as long", "half twelve times as long", "very wide"],
)
def test_four_of_five_outcomes_lie_within_hinted_answers_however_they_spread(
    factor: Callable[[random.Random], float],
) -> None:
    known, chance, inside = Estimator(), random.Random(3), list[bool]()
    for number in range(600):
        plain = estimator.answer(known.look_up("fuse", "t"), 15.0)
        said = workflow_hints.applied(plain, known.hint_effect("fuse", hint("short")))
        seconds = 20.0 * factor(chance) * math.exp(chance.gauss(0.0, 0.05))
        inside.append(said.low <= seconds <= said.high)
        start = 1_000.0 * number
        known.observe(Observation("fuse", "t", start, start + seconds), [hint("short")])
    assert sum(inside[100:]) / 500 == pytest.approx(0.8, abs=0.05)


def test_until_anything_is_announced_the_shape_is_the_hint_and_both_are_learnt_from() -> None:
    workflow = Workflow("run", {"a": ("read", "io", []), "b": ("answer", "gpu", ["a"])})
    before = HintsSoFar.of(workflow)
    assert before.latest == before.shape
    assert before.all == (before.shape,)
    announced = before.after(record("read", 10.0))
    assert announced.latest == workflow_hints.hint_of("read", {"answer": {"length": 10.0}})
    assert announced.all == (before.shape, announced.latest)
    later = announced.after(record("answer", 900.0))
    assert later.latest == announced.latest
    grown = Workflow("run", {"a": ("read", "io", [])})
    assert later.rebuilt(grown).all == (workflow_hints.hint_of_shape(grown), announced.latest)


def record(function: str, length: float) -> Record:
    return Record("a", function, 0.0, 1.0, {}, {"answer": {"length": length}})


def test_numbers_that_no_float_holds_and_names_that_are_no_texts_are_no_part_of_a_hint() -> None:
    found = workflow_hints.hint_of("read", {"answer": {"length": 10**400, "pages": 3}})
    assert found == workflow_hints.hint_of("read", {"answer": {"pages": 3}})
    assert workflow_hints.hint_of("read", {"answer": {"length": 10**400}}) is None
    odd: Any = {"answer": {"pages": 3, 5: 2}, None: {"pages": 1}}
    assert workflow_hints.hint_of("read", odd) == found
