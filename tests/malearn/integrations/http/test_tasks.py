"""Tasks over HTTP: predicted, reported, one by one and in batches."""

from __future__ import annotations

import math
import uuid

import pytest

from tests.malearn.integrations.http.conftest import Service


@pytest.fixture
def function() -> str:
    """A function of this test alone, which a tool type claims."""
    return f"task_{uuid.uuid4().hex[:8]}_llm_process"


def test_predict_answers_what_earlier_maze_products_expect(service: Service) -> None:
    asked = {"task_name": "nobody_knows_it", "features": {"text_length": 1200}}
    answer = service.post("/predict", asked)
    assert answer.keys() == {"status", "predict_time", "prediction_source"}
    assert math.isfinite(answer["predict_time"])
    assert answer["predict_time"] > 0


def test_what_was_collected_is_what_is_predicted(service: Service, function: str) -> None:
    features = {"text_length": 1200, "token_count": 300}
    done = {"task_name": function, "features": features, "execution_time": 42}
    assert service.post("/collect_data", done) == {"status": "success"}
    answer = service.post("/predict", {"task_name": function, "features": features})
    assert answer["prediction_source"] == "function_history"
    assert answer["predict_time"] == pytest.approx(42.0)


def test_a_resource_gives_the_default_seconds_while_nothing_is_known(service: Service) -> None:
    tasks = [{"task_name": "unheard_of", "task_type": kind} for kind in ("gpu", "cpu", "io")]
    found = service.post("/predict_batch", {"tasks": tasks})["predictions"]
    assert [one["source"] for one in found] == ["heuristic"] * 3
    assert [one["seconds"] for one in found] == [15.0, 3.0, 1.0]


def test_a_batch_gives_a_whole_prediction_for_each_task_in_order(
    service: Service, function: str
) -> None:
    known = {"task_name": function, "features": {"text_length": 100.0}}
    service.post("/collect_data", {**known, "execution_time": 7})
    tasks = [known, {"task_name": "unheard_of", "task_type": "io"}] * 500
    found = service.post("/predict_batch", {"tasks": tasks})["predictions"]
    assert len(found) == 1_000
    assert [one["source"] for one in found[:2]] == ["function_history", "heuristic"]
    assert found[0]["seconds"] == pytest.approx(7.0)
    assert found[0]["low"] <= found[0]["seconds"] <= found[0]["high"]
    expected = {"seconds", "low", "high", "source", "model_version", "confidence"}
    assert expected <= found[0].keys()


def test_what_a_task_says_of_its_successors_is_used_for_them(
    service: Service, function: str
) -> None:
    run = uuid.uuid4()
    for tokens, seconds in ((100, 10.0), (1000, 100.0)) * 6:
        features = {"token_count": tokens}
        done = {"task_name": function, "features": features, "execution_time": seconds}
        service.post("/collect_data", done)
    first = {
        "task_name": "task1_read",
        "task_id": f"{run}-task1_read",
        "execution_time": 1,
        "successors": {function: {"token_count": 1000}},
    }
    service.post("/collect_data", first)
    after = {"task_name": function, "predecessors": [f"{run}-task1_read"]}
    told = service.post("/predict", after)["predict_time"]
    given = service.post("/predict", {"task_name": function, "features": {"token_count": 1000}})
    assert told == pytest.approx(given["predict_time"])


def test_reports_in_a_batch_name_those_that_teach_nothing(service: Service, function: str) -> None:
    good = {"task_name": function, "features": {"text_length": 10}, "execution_time": 5}
    bad = {**good, "features": {"text_length": -10}}
    later = {**good, "end_time": 4e9}
    answer = service.post("/collect_data_batch", {"tasks": [good, bad, later, good]})
    assert answer["accepted"] == 2
    assert [one["task"] for one in answer["rejected"]] == [1, 2]
    assert "text_length is -10.0, not a number between 0" in answer["rejected"][0]["error"]
    assert "ahead of this clock" in answer["rejected"][1]["error"]


def test_one_report_that_teaches_nothing_is_answered_with_the_reason(
    service: Service, function: str
) -> None:
    done = {"task_name": function, "features": {"text_length": 1e9}, "execution_time": 5}
    reply = service.ask("POST", "/collect_data", done)
    assert reply.status == 422
    assert "was recorded as rejected: text_length is 1000000000.0" in reply.error
