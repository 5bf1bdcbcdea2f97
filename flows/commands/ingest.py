"""`malearn ingest`: execution logs into the datasets, once or continuously."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from malearn.flows.commands import options, output, servers
from malearn.flows.commands.options import HomeOption, JsonOption, MazeOption
from malearn.kernel.home import Home

__all__ = ["ingest"]


def ingest(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE…]", help="Run logs; Redis without any.")
    ] = None,
    maze: MazeOption = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Keep running and ingest results as they are set in Redis or, with --maze, as "
            "runs go on.",
        ),
    ] = False,
    set_notifications: Annotated[
        bool,
        typer.Option(
            "--set-notifications",
            help="Enable keyspace notifications on an external Redis (CONFIG SET).",
        ),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring execution logs into the datasets.

    Every record is counted: accepted, or kept out with a reason.
    """
    from malearn.flows import report
    from malearn.kernel import tool_types

    # A declaration that is wrong fails before any server is started.
    tool_types.declared()
    if watch:
        if files:
            raise typer.BadParameter("--watch reads Redis or a Maze store, not files")
        if maze:
            _watch_maze(Home.find(home), options.maze_stores(maze, waiting=True), as_json)
        else:
            _watch(Home.find(home), set_notifications, as_json)
        return
    place, chosen = Home.find(home), options.run_logs(files or [])
    stores = [str(directory) for directory in options.maze_stores(maze)]
    # Redis only where it is what is read; MLflow never, ingestion does without.
    redis = not chosen and not stores
    options.writable(place, redis=redis)
    with servers.running(place, redis=redis, mlflow=False):
        from malearn.flows.ingest import ingest as flow

        done = flow([str(file) for file in chosen], str(place.root), maze=stores)
    output.result(report.ingested(done), as_json, lambda: report.show_ingested(done))
    output.fail_on_rejected_batch(done)


def _watch(home: Home, set_notifications: bool, as_json: bool) -> None:
    from malearn.data import redis_client
    from malearn.flows import console, report
    from malearn.platform import Platform

    # An embedded one may be configured unasked; a variable that is empty names none.
    ours = not os.environ.get(redis_client.REDIS_SETTING, "").strip()
    with (
        console.progress() as shown,
        # No Prefect: this is no flow, for it runs until Ctrl-C.
        Platform(home, redis=True, on_event=shown.server) as platform,
    ):
        from malearn.flows.watch import watch

        done = watch(home, platform.redis_url, shown, enable=ours or set_notifications)
    output.result(report.ingested(done), as_json, lambda: report.show_ingested(done))
    output.fail_on_rejected_batch(done)


def _watch_maze(home: Home, stores: list[Path], as_json: bool) -> None:
    from malearn.flows import console, report
    from malearn.flows.watch import watch_maze

    with console.progress() as shown:
        done = watch_maze(home, stores, shown)
    output.result(report.ingested(done), as_json, lambda: report.show_ingested(done))
    output.fail_on_rejected_batch(done)
