"""`prefect.yaml`: one deployment per flow, never per tool type, on schedules that hold."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest
from prefect import Flow

from malearn.flows import deployments, moments, news
from malearn.kernel.errors import InputError
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


def test_a_name_says_what_its_deployment_does() -> None:
    names = [deployment["name"] for deployment in deployments.declared()]
    assert len(set(names)) == len(names)
    assert not {"scheduled", "on-event", "on-demand"} & set(names)
    assert all("-" in name for name in names)


def test_the_form_that_starts_a_run_describes_each_parameter_and_offers_choices(
    tmp_path: Path,
) -> None:
    built = deployments.build(tmp_path)
    forms = {one.flow_name: one._parameter_openapi_schema.properties for one in built}
    fields = [(flow, name, field) for flow, form in forms.items() for name, field in form.items()]
    assert not [name for _, name, _ in fields if name in ("home", "trigger")]
    for flow, name, field in fields:
        assert field["description"].endswith("."), (flow, name)
        assert "anyOf" not in field, (flow, name)
    assert forms["train"]["tool_type"]["enum"] == list(declared())
    assert forms["monitor"]["tools"]["items"]["enum"] == list(declared())
    assert {"xgboost", "linear"} <= set(forms["train"]["families"]["items"]["enum"])


def test_a_moment_is_a_date_or_what_it_was_before() -> None:
    assert moments.seconds("2026-03-01") == moments.seconds("2026-03-01T01:00+01:00")
    assert moments.seconds(12.5) == 12.5
    assert moments.seconds(None) is None
    with pytest.raises(InputError, match="soon: must be a date such as 2026-03-01"):
        moments.seconds("soon")


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
