"""`malearn monitor` and `malearn status`: how the models in Production are doing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from malearn.flows.commands import options, output, predict, servers
from malearn.flows.commands.options import HomeOption, JsonOption, MazeOption, ToolsArgument
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
    maze: MazeOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show, per tool type, the Production model and its live error.

    Also its age, the executions since it was trained, and the other versions.
    With --workflows: expected end, progress and lateness of those in progress,
    as schedulers publish them, and with --maze those in run stores of Maze.
    """
    from malearn.data import redis_client, stream
    from malearn.flows import report
    from malearn.kernel import generic

    place = Home.find(home)
    if maze and not workflows:
        raise typer.BadParameter("--maze goes with --workflows")
    if workflows:
        _workflows(place, options.maze_stores(maze), as_json)
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


def _workflows(place: Home, stores: list[Path], as_json: bool) -> None:
    from malearn.flows import maze_progress, report, workflow_progress

    runs = maze_progress.recent(stores)
    mlflow = any(not run.is_over for run in runs)
    with servers.running(place, redis=True, mlflow=mlflow, prefect=False) as platform:
        found = maze_progress.still_open(workflow_progress.in_progress(platform.redis_url), runs)
        known = {status.run_id for status in found}
        asked = [run for run in runs if not run.is_over and run.run_id not in known]
        if asked:
            types = maze_progress.tool_types(place)
            with predict.ready(platform, place, types) as predictor:
                more, problems = maze_progress.estimated(predictor, types, stores, asked)
            found = workflow_progress.ordered([*found, *more])
            for problem in problems:
                output.note(problem)
    shown = [report.workflow_status(one) for one in found]
    output.result(shown, as_json, lambda: report.show_workflows(found))
