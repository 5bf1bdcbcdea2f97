"""An honest replay: nobody sees what came later, and everybody is scored on the same tasks."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest

from malearn.kernel.records import Execution
from malearn.kernel.tool_types import declared
from malearn.learning import baselines, evaluation, stack

RUN = "0f0f0f0f-0000-4000-8000-{:012d}"
PREDICTORS = {"malearn", "contract_only", "stack", *baselines.BASELINES}


def execution(number: int, start: float, seconds: float, size: float) -> Execution:
    task_id = f"{RUN.format(number)}-task1_llm_process"
    view = (size, size / 4, 1.0, 0.0)
    return Execution(
        task_id, "task1_llm_process", "llm_process", start, start + seconds, view, view
    )


def log(tasks: int = 120) -> list[Execution]:
    """Tasks one after the other whose time grows with their text."""
    chance, at, rows = random.Random(11), 1_000.0, []
    for number in range(tasks):
        size = chance.choice([200.0, 900.0, 4_000.0]) * chance.uniform(0.9, 1.1)
        seconds = 0.01 * size * math.exp(chance.gauss(0, 0.05))
        rows.append(execution(number, at, seconds, size))
        at += seconds + 1.0
    return rows


@pytest.fixture(scope="module")
def done() -> evaluation.Evaluation:
    rows = log()
    groups = {e.task_id: "first" if i < 60 else "second" for i, e in enumerate(rows)}
    return evaluation.evaluate(rows, declared(), groups)


def test_everyone_predicts_every_task(done: evaluation.Evaluation) -> None:
    assert set(done.predicted) == PREDICTORS
    for predicted in done.predicted.values():
        assert len(predicted) == len(done.executions)
        assert all(0 < seconds < math.inf for seconds in predicted)


def test_the_first_prediction_is_the_heuristic(done: evaluation.Evaluation) -> None:
    assert {float(p[0]) for p in done.predicted.values()} == {15.0}


def test_inputs_that_tell_the_time_are_learnt(done: evaluation.Evaluation) -> None:
    scores = done.scores("llm_process")
    assert scores["malearn"].mae < 0.5 * scores["function_ema"].mae
    assert done.order()["malearn"] > done.order()["function_ema"]


def test_later_outcomes_change_no_earlier_prediction() -> None:
    rows = log(80)
    # The last twenty take ten times as long; what was said of the first sixty stays.
    changed = rows[:60] + [replace(e, end=e.start + 10 * e.seconds) for e in rows[60:]]
    types = declared()
    for replayed in (
        lambda log: evaluation.replay(log, types, cadence=10).seconds,
        lambda log: stack.contract_only(log, types, 10),
    ):
        assert list(replayed(rows)[:61]) == list(replayed(changed)[:61])


def test_what_a_task_reports_of_itself_is_not_used() -> None:
    rows = log(60)
    told = [replace(e, ran=tuple(1e5 - v for v in e.ran)) for e in rows]
    types = declared()
    assert list(evaluation.replay(rows, types).seconds) == list(
        evaluation.replay(told, types).seconds
    )


def test_scores_begin_where_they_are_asked_to(done: evaluation.Evaluation) -> None:
    later = replace(done, score_from=100)
    assert len(later.rows()) == 20
    assert later.scores("llm_process")["heuristic"].n == 20


def test_the_json_form_holds_no_number_that_json_cannot(done: evaluation.Evaluation) -> None:
    result = json.loads(json.dumps(done.as_json(), allow_nan=False))
    assert result["n"] == result["tool_types"]["llm_process"]["n"] == 120
    predictors = result["tool_types"]["llm_process"]["predictors"]
    assert set(predictors) == set(result["order"]) == PREDICTORS
    assert 0 < predictors["malearn"]["coverage"] <= 1
    assert predictors["function_ema"]["coverage"] is None


def test_states_say_what_each_interval_missed(done: evaluation.Evaluation) -> None:
    states = done.by_state("llm_process")
    assert set(states) <= {"cold", "in_doubt", "steady"}
    assert sum(found.n for found in states.values()) == len(done.rows("llm_process"))
    assert all(0.0 <= found.coverage <= 1.0 for found in states.values())


def test_every_scored_task_is_a_row_with_what_everyone_predicted() -> None:
    rows = log(60)
    done = evaluation.evaluate(rows, declared(), {}, score_from=20, cadence=None)
    columns = done.columns()
    assert {len(values) for values in columns.values()} == {40}
    assert set(columns) >= {*PREDICTORS, "task_id", "seconds", "low", "high", "source", "state"}


def test_a_long_log_is_retrained_on_more_rarely() -> None:
    fitted, count = 0, 0
    for finished in range(10_000):
        if evaluation.is_due(finished, fitted, None):
            fitted, count = finished, count + 1
    assert count < 100
    assert sum(evaluation.is_due(n, n - n % 25, 25) for n in range(1, 100)) == 0


def test_as_in_production_a_model_answers_once_the_gate_has_promoted_one() -> None:
    types = declared()
    sources = evaluation.replay(log(200), types, production=True).sources
    assert "model" in sources
    refused = [replace(e, serve=(math.nan,) * 4) for e in log(120)]
    assert "model" not in evaluation.replay(refused, types, production=True).sources
