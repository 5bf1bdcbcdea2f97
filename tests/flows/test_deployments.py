"""`prefect.yaml`: one deployment per flow, never per tool type, on schedules that hold."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest
from prefect import Flow

from malearn.flows import deployments, news
from malearn.kernel.tool_types import declared

FLOWS = ("ingest", "train", "promote", "retrain", "lifecycle", "monitor", "maintain")


@pytest.mark.parametrize("deployment", deployments.declared(), ids=lambda d: d["entrypoint"])
def test_every_entrypoint_is_a_flow(deployment: dict[str, str]) -> None:
    flow = deployments.flow_for(deployment)
    assert isinstance(flow, Flow)
    assert flow.name in FLOWS


def test_each_flow_has_one_deployment_and_no_tool_type_has_any() -> None:
    flows = Counter(deployments.flow_for(d).name for d in deployments.declared())
    assert flows == dict.fromkeys(FLOWS, 1)
    text = (Path(__file__).parents[2] / "prefect.yaml").read_text()
    assert not [name for name in declared() if name in text]


@pytest.mark.parametrize("deployment", deployments.declared(), ids=lambda d: d["entrypoint"])
def test_what_nobody_watches_is_tried_again_and_does_not_hang(deployment: dict[str, str]) -> None:
    flow = deployments.flow_for(deployment)
    assert flow.retries and flow.retry_delay_seconds
    assert flow.timeout_seconds


def test_what_needs_nobody_runs_by_itself(tmp_path: Path) -> None:
    made = {one.flow_name: one for one in deployments.build(tmp_path)}
    assert {name for name, one in made.items() if one.schedules} == {
        "ingest",
        "lifecycle",
        "maintain",
        "monitor",
    }
    assert {one.concurrency_limit for one in made.values()} == {1}


def test_what_has_work_of_its_own_waits_for_its_turn(tmp_path: Path) -> None:
    """A retraining that was cancelled for another tool type's would be lost."""
    made = {one.flow_name: one.concurrency_options for one in deployments.build(tmp_path)}
    waits = {name for name, chosen in made.items() if chosen.collision_strategy == "ENQUEUE"}
    assert waits >= {"retrain", "train", "promote"}


def test_new_executions_and_drift_start_a_retraining_of_their_tool_type(tmp_path: Path) -> None:
    (retrain,) = (one for one in deployments.build(tmp_path) if one.flow_name == "retrain")
    assert {event for one in retrain.triggers for event in one.expect} == {news.ENOUGH, news.DRIFT}
    for trigger in retrain.triggers:
        (matches,) = trigger.match["prefect.resource.id"]
        assert fnmatch(news.resource("llm_process")["prefect.resource.id"], matches)
        assert trigger.for_each == {"prefect.resource.id"}
