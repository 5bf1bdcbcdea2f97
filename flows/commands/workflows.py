"""`malearn eta`: by when one workflow ends."""

from __future__ import annotations

from typing import Annotated

import typer

from malearn.flows.commands import output, servers
from malearn.flows.commands.options import HomeOption, JsonOption
from malearn.kernel.home import Home

__all__ = ["eta"]


def eta(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="The workflow's run id.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show when a workflow is expected to end, and what it waits for.

    Known are the workflows that a scheduler's predictor was asked about within
    the last hour. Expected is the end if no task waits for a slot.
    """
    from malearn.flows import report, workflow_progress

    with servers.running(Home.find(home), redis=True, mlflow=False, prefect=False) as platform:
        found = workflow_progress.find(platform.redis_url, run_id)
    output.result(report.workflow_status(found), as_json, lambda: report.show_workflow(found))
