"""`malearn monitor` and `malearn status`: how the models in Production are doing."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from malearn.flows.commands import output, servers
from malearn.flows.commands.options import HomeOption, JsonOption, ToolsArgument
from malearn.kernel.errors import MalearnError
from malearn.kernel.home import Home

__all__ = ["monitor", "status"]


def monitor(
    tools: ToolsArgument = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare predictions with outcomes; retrain or roll back."""
    from malearn.flows import report
    from malearn.kernel import generic

    place = Home.find(home)
    types = generic.declared(place)
    names = [types[name].name for name in tools or types]
    with servers.running(place):
        from malearn.flows.monitor import monitor as flow

        done = flow(names, str(place.root))
    output.result(report.monitored(done), as_json, lambda: report.show_monitored(done))


def status(
    workflows: Annotated[
        bool, typer.Option("--workflows", help="Show the workflows in progress instead.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show, per tool type, the Production model and its live error.

    Also its age, the executions since it was trained, and the other versions.
    With --workflows: expected end, progress and lateness of those in progress.
    """
    from malearn.data import redis_client, stream
    from malearn.flows import report
    from malearn.kernel import generic

    place = Home.find(home)
    if workflows:
        _workflows(place, as_json)
        return
    generic.declared(place)
    with servers.tracking(place):
        rows = report.status(place)
    output.result(rows, as_json, lambda: report.show_status(rows))
    # Only a given Redis: the embedded one is not started for a warning.
    if url := os.environ.get(redis_client.REDIS_SETTING):
        try:
            found = list(stream.warnings(url).values())
        except MalearnError as error:
            # A note, no failure: the status itself was shown.
            found = [str(error)]
        for warning in found:
            output.note(warning)


def _workflows(place: Home, as_json: bool) -> None:
    from malearn.flows import report, workflow_progress

    with servers.running(place, redis=True, mlflow=False, prefect=False) as platform:
        found = workflow_progress.in_progress(platform.redis_url)
    shown = [report.workflow_status(one) for one in found]
    output.result(shown, as_json, lambda: report.show_workflows(found))
