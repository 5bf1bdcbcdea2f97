"""`malearn eta`: by when one workflow ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from malearn.flows.commands import options, output, predict, servers
from malearn.flows.commands.options import HomeOption, JsonOption, MazeOption
from malearn.kernel.home import Home

if TYPE_CHECKING:
    from pathlib import Path

    from malearn.kernel.workflows.workflow_status import WorkflowStatus

__all__ = ["eta"]


def eta(
    run_id: Annotated[str, typer.Argument(metavar="RUN_ID", help="The workflow's run id.")],
    maze: MazeOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show when a workflow is expected to end, and what it waits for.

    Known are the workflows that a scheduler's predictor was asked about within
    the last hour and, with --maze, the runs in a run store of Maze. Expected is
    the end if no task waits for a slot.
    """
    from malearn.flows import report

    found = _find(Home.find(home), options.maze_stores(maze), run_id)
    output.result(report.workflow_status(found), as_json, lambda: report.show_workflow(found))


def _find(place: Home, stores: list[Path], run_id: str) -> WorkflowStatus:
    from malearn.flows import maze_progress, workflow_progress
    from malearn.kernel.errors import InputError

    run = maze_progress.find(stores, run_id)
    # The store knows best that a run is over: of one that failed nobody tells the predictor.
    if run is not None and run.is_over:
        return maze_progress.settled(run, time.time())
    with servers.running(place, redis=True, mlflow=run is not None, prefect=False) as platform:
        if not stores:
            return workflow_progress.find(platform.redis_url, run_id)
        published = workflow_progress.published(platform.redis_url, run_id)
        if published is not None:
            return published
        if run is None:
            raise InputError(
                run_id,
                "no scheduler asked about this workflow within the last hour, and it is in no run "
                "store that was given; check the run id",
            )
        types = maze_progress.tool_types(place)
        with predict.ready(platform, place, types) as predictor:
            maze_progress.begin(predictor, types, stores, [run])
            return maze_progress.estimate(predictor, run, time.time())
