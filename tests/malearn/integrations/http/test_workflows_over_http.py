"""Whole workflows over HTTP: declared, grown, predicted, ordered and dropped."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from malearn.integrations.http import held_workflows
from malearn.integrations.http.bodies import WorkflowBody, WorkflowTaskBody
from malearn.integrations.http.held_workflows import HeldWorkflows
from malearn.integrations.http.refused import RequestRefused
from tests.malearn.integrations.http.conftest import Service


@pytest.fixture
def run() -> str:
    return str(uuid.uuid4())


def two(run: str, **more: Any) -> dict[str, Any]:
    """A workflow of a cpu task and the gpu task that waits for it."""
    tasks = {
        f"{run}-read": {"task_name": "read", "task_type": "cpu"},
        f"{run}-answer": {"task_name": "answer", "predecessors": [f"{run}-read"]},
    }
    return {"tasks": tasks, **more}


def put(service: Service, run: str, body: dict[str, Any]) -> Any:
    reply = service.ask("PUT", f"/workflows/{run}", body)
    assert reply.status == 200, reply.body
    return reply.json


def test_what_is_left_of_a_workflow_follows_what_is_reported(service: Service, run: str) -> None:
    assert put(service, run, two(run, deadline=1e10))["tasks"] == 2
    left = service.post(f"/workflows/{run}/predict", {})["prediction"]
    assert (left["seconds"], left["left"]) == (18.0, {"cpu": 1, "gpu": 1})
    assert left["critical"] == [f"{run}-read", f"{run}-answer"]
    assert left["late"] == pytest.approx(0.0, abs=1e-6)
    done = {"task_name": "read", "task_id": f"{run}-read", "execution_time": 3}
    service.post("/collect_data", done)
    left = service.post(f"/workflows/{run}/predict", {})["prediction"]
    assert left["left"]["gpu"] == 1
    assert left["tasks"].keys() == {f"{run}-answer"}


def test_a_running_task_counts_for_what_is_left_of_it(service: Service, run: str) -> None:
    put(service, run, two(run))
    body = {"running": {f"{run}-answer": 990.0}, "done": [f"{run}-read"], "now": 1000.0}
    left = service.post(f"/workflows/{run}/predict", body)["prediction"]
    assert left["tasks"].keys() == {f"{run}-answer"}
    assert left["late"] is None


def test_a_workflow_may_grow_while_it_runs(service: Service, run: str) -> None:
    put(service, run, {})
    added = {"tasks": two(run)["tasks"]}
    assert service.post(f"/workflows/{run}/tasks", added)["tasks"] == 2
    reply = service.ask("POST", f"/workflows/{run}/tasks", added)
    assert (reply.status, "was added before" in reply.error) == (422, True)
    half = {"tasks": {"x": {"task_name": "x"}, "y": {"task_name": "y", "predecessors": ["z"]}}}
    assert service.ask("POST", f"/workflows/{run}/tasks", half).status == 422
    assert len(service.post(f"/workflows/{run}/predict", {})["prediction"]["tasks"]) == 2


def test_a_queue_is_predicted_together_and_ordered_by_a_policy(service: Service) -> None:
    short, long = str(uuid.uuid4()), str(uuid.uuid4())
    put(service, short, {"tasks": {"a": {"task_name": "a"}}})
    put(service, long, two(long))
    service.post(f"/workflows/{long}/tasks", {"tasks": {"b": {"task_name": "b"}}})
    queue = {"workflows": [{"run_id": long}, {"run_id": short}]}
    answer = service.post("/workflows/predict", queue)
    assert answer["order"] is None
    assert answer["predictions"].keys() == {short, long}
    ordered = service.post("/workflows/predict", {**queue, "policy": "shortest_remaining_work"})
    assert ordered["order"] == [short, long]
    assert service.ask("POST", "/workflows/predict", {**queue, "policy": "x"}).status == 422


def test_what_is_not_held_is_not_found_and_the_sentence_says_how_to_declare_it(
    service: Service, run: str
) -> None:
    put(service, run, two(run))
    assert service.ask("DELETE", f"/workflows/{run}").status == 200
    for method, path, body in (
        ("DELETE", f"/workflows/{run}", None),
        ("POST", f"/workflows/{run}/predict", {}),
        ("POST", "/workflows/predict", {"workflows": [{"run_id": run}]}),
    ):
        reply = service.ask(method, path, body)
        assert reply.status == 404
        assert f"declare it with PUT /workflows/{run}" in reply.error


def test_tasks_that_do_not_hold_together_are_refused_by_name(service: Service, run: str) -> None:
    circle = {
        "a": {"task_name": "a", "predecessors": ["b"]},
        "b": {"task_name": "b", "predecessors": ["a"]},
    }
    reply = service.ask("PUT", f"/workflows/{run}", {"tasks": circle})
    assert (reply.status, reply.error) == (422, f"Workflow {run}: tasks wait for each other: a, b.")


def test_the_oldest_make_room_and_are_counted(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_workflows, "MOST_HELD", 2)
    held = HeldWorkflows(service.predictor)
    for name in ("first", "second", "third"):
        held.put(name, WorkflowBody({name: WorkflowTaskBody("a")}))
    assert (len(held), held.dropped) == (2, 1)
    with pytest.raises(RequestRefused, match="Workflow first is not known"):
        held.remove("first")
