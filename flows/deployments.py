"""The deployments of `prefect.yaml`, created without the command line of Prefect."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentTriggerTypes
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.schedules import Cron, Interval, Schedule
from prefect.workers.process import ProcessWorker
from pydantic import TypeAdapter

from malearn.flows import notifications, parameters
from malearn.kernel import generic
from malearn.kernel.home import Home
from malearn.kernel.names import Names
from malearn.learning import families

__all__ = ["build", "declared", "deploy", "flow_for", "job_template", "pool"]

#: What deployments were called before they said what they do.
_FORMER = ("scheduled", "on-event", "on-demand")
_TRIGGER: TypeAdapter[DeploymentTriggerTypes] = TypeAdapter(DeploymentTriggerTypes)


def pool() -> str:
    """The work pool of every deployment."""
    return Names.find().prefix


def declared() -> list[Mapping[str, Any]]:
    """What `prefect.yaml` declares; its triggers are about tool types of this installation."""
    names = Names.find()
    text = Path(__file__).with_name("prefect.yaml").read_text("utf-8")
    # In the text, since the name stands within keys, values and templates alike.
    text = text.replace("malearn.tool-type.", names.tool_type_resource(""))
    declaration: list[Mapping[str, Any]] = yaml.safe_load(text)["deployments"]
    return declaration


def flow_for(deployment: Mapping[str, Any]) -> Flow[..., Any]:
    """The flow that its entrypoint, `malearn.flows.unattended.ingest`, names."""
    module, _, name = deployment["entrypoint"].rpartition(".")
    found: Flow[..., Any] = getattr(import_module(module), name)
    return found


def build(folder: Path) -> list[RunnerDeployment]:
    """All declared deployments, for workers of this machine that run them in `folder`."""
    choices = {
        "tool types": list(generic.declared(Home(folder))),
        "families": list(families.known()),
    }
    return [_build(deployment, choices) for deployment in declared()]


def deploy(client: SyncPrefectClient, folder: Path) -> None:
    """Create the work pool, the deployments with their schedules, and the automations.

    What was there under the same names is replaced.
    """
    template = job_template(folder)
    try:
        client.create_work_pool(
            WorkPoolCreate(
                name=pool(),
                type=ProcessWorker.type,
                description="Runs of malearn's flows, each in a process of its own.",
                base_job_template=template,
            )
        )
    except ObjectAlreadyExists:
        # A pool of an earlier malearn may have another command or directory in its template.
        client.update_work_pool(pool(), WorkPoolUpdate(base_job_template=template))
    for deployment in build(folder):
        deployment.apply()
        # After the new ones are there: a kill in between leaves too many schedules, not none.
        _remove_former(client, deployment.flow_name)
    notifications.configure(client)


def job_template(folder: Path) -> dict[str, Any]:
    """The base job template of the work pool: every run is the same command in `folder`.

    It has no variables, so that whoever may create a flow run cannot choose the command, the
    environment or the directory of a process of this machine.
    """
    # With a command, Prefect runs it as it is. Without, each run first resolves a workspace, which
    # takes seconds, and leaves its worker's process group, which ends with the worker.
    command = [sys.executable, "-P", "-m", "prefect.engine"]
    job = {"command": shlex.join(command), "working_dir": os.fspath(folder), "stream_output": True}
    # `env` is absent: Prefect merges what a run says into one that is there, variable or not.
    variables = {"type": "object", "properties": {}, "additionalProperties": False}
    return {"job_configuration": job, "variables": variables}


def _remove_former(client: SyncPrefectClient, flow: str | None) -> None:
    """Delete the deployments of `flow` that an earlier malearn made: their schedules go on."""
    for name in _FORMER:
        try:
            found = client.read_deployment_by_name(f"{flow}/{Names.find().deployment(name)}")
        except ObjectNotFound:
            continue
        # Prefect deletes a deployment without the automations that its triggers have become.
        client.delete_resource_owned_automations(f"prefect.deployment.{found.id}")
        client.delete_deployment(found.id)


def _build(deployment: Mapping[str, Any], choices: Mapping[str, Sequence[str]]) -> RunnerDeployment:
    # `to_deployment` is also a coroutine function; outside a loop it answers at once.
    deployed: Any = flow_for(deployment).to_deployment(
        Names.find().deployment(deployment["name"]),
        description=" ".join(deployment["description"].split()),
        # By the first one a notification knows the flows of its installation.
        tags=[pool() if tag == "malearn" else tag for tag in deployment.get("tags", [])],
        schedules=[_schedule(schedule) for schedule in deployment.get("schedules", [])],
        triggers=[_TRIGGER.validate_python(each) for each in deployment.get("triggers", [])],
        parameters=dict(deployment.get("parameters", {})),
        # A tool type found later is none of the choices, and may be retrained all the same.
        enforce_parameter_schema=False,
        concurrency_limit=ConcurrencyLimitConfig(**deployment["concurrency_limit"]),
        work_pool_name=pool(),
    )
    built: RunnerDeployment = deployed
    built.entrypoint = deployment["entrypoint"]  # not where the flow was first defined
    # Private: there is no public way to change the form that Prefect derives from the signature.
    schema = built._parameter_openapi_schema
    schema.properties = parameters.form(schema.properties, choices)
    return built


def _schedule(schedule: Mapping[str, Any]) -> Schedule:
    given = schedule.get("parameters", {})
    if "interval" in schedule:
        return Interval(timedelta(seconds=schedule["interval"]), parameters=given)
    zone = schedule.get("timezone", "UTC")
    return Cron(schedule["cron"], timezone=zone, parameters=given)
