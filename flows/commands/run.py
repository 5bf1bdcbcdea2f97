"""`malearn run`: the main job, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from malearn.flows.commands import options, output
from malearn.flows.commands.options import HomeOption, JsonOption, MazeOption, MoreLogsArgument
from malearn.kernel.home import Home

__all__ = ["run"]


def run(
    source: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="FILE…", help="Run logs (task_exec_result.jsonl)."),
    ] = None,
    more: MoreLogsArgument = None,
    maze: MazeOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ingest logs, train, promote, predict, and print a report.

    Without --from and --maze, a small real workload is executed on this machine first.
    """
    # `--from a b`: an option takes one value, so the rest arrive as arguments.
    if more and not source:
        raise typer.BadParameter("name run logs with --from FILE…")
    from malearn.flows import console, report, task_runner
    from malearn.flows.run import run as main_job
    from malearn.kernel import tool_types

    # What is wrong fails before any server is started.
    tool_types.declared()
    task_runner.choice()
    files = options.run_logs([*(source or []), *(more or [])])
    stores = options.maze_stores(maze)
    options.writable(Home.find(home), redis=True)
    with console.progress() as shown:
        done = main_job(Home.find(home), files, shown, stores)
    output.result(done.as_json(), as_json, lambda: report.show_run(done))
