"""The deployments of `prefect.yaml`, for whoever serves them without a work pool."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron, Interval, Schedule
from prefect.types.entrypoint import EntrypointType

__all__ = ["declared", "flow_of", "served"]


def declared() -> list[Mapping[str, Any]]:
    """What `prefect.yaml` declares: beside the packages in a clone, within ours once installed."""
    here = Path(__file__).parent
    file = next(place / "prefect.yaml" for place in (here, here.parent) if _has(place))
    declaration: list[Mapping[str, Any]] = yaml.safe_load(file.read_text("utf-8"))["deployments"]
    return declaration


def flow_of(deployment: Mapping[str, Any]) -> Flow[..., Any]:
    """The flow that its entrypoint, `flows.ingest.ingest`, names."""
    module, _, name = deployment["entrypoint"].rpartition(".")
    found: Flow[..., Any] = getattr(import_module(module), name)
    return found


def served() -> list[RunnerDeployment]:
    """All of them, to be run by the process that serves them."""
    return [_served(deployment) for deployment in declared()]


def _served(deployment: Mapping[str, Any]) -> RunnerDeployment:
    # `to_deployment` is also a coroutine function; outside a loop it answers at once.
    made: Any = flow_of(deployment).to_deployment(
        deployment["name"],
        description=deployment["description"],
        schedules=[_schedule(schedule) for schedule in deployment.get("schedules", [])],
        parameters=dict(deployment.get("parameters", {})),
        concurrency_limit=ConcurrencyLimitConfig(**deployment["concurrency_limit"]),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    kept: RunnerDeployment = made
    return kept


def _schedule(schedule: Mapping[str, Any]) -> Schedule:
    if "interval" in schedule:
        return Interval(timedelta(seconds=schedule["interval"]))
    return Cron(schedule["cron"], timezone=schedule.get("timezone", "UTC"))


def _has(place: Path) -> bool:
    return (place / "prefect.yaml").is_file()
