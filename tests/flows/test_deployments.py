"""`prefect.yaml`: one deployment per flow, never per tool type, on schedules that hold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from prefect import Flow

from flows import deployments
from malearn.tool_types import declared

FLOWS = ("ingest", "train", "promote", "lifecycle", "monitor")


@pytest.mark.parametrize("deployment", deployments.declared(), ids=lambda d: d["entrypoint"])
def test_every_entrypoint_is_a_flow(deployment: dict[str, str]) -> None:
    flow = deployments.flow_of(deployment)
    assert isinstance(flow, Flow)
    assert flow.name in FLOWS


def test_each_flow_has_one_deployment_and_no_tool_type_has_any() -> None:
    flows = Counter(deployments.flow_of(d).name for d in deployments.declared())
    assert flows == dict.fromkeys(FLOWS, 1)
    text = (Path(__file__).parents[2] / "prefect.yaml").read_text()
    assert not [name for name in declared() if name in text]


def test_ingest_lifecycle_and_monitor_run_by_themselves_and_one_at_a_time() -> None:
    served = {made.flow_name: made for made in deployments.served()}
    assert {name for name, made in served.items() if made.schedules} == {
        "ingest",
        "lifecycle",
        "monitor",
    }
    for made in served.values():
        assert made.concurrency_limit == 1
        assert made.concurrency_options is not None
