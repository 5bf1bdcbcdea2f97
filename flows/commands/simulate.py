"""`malearn simulate`: what predictions would have gained a scheduler, on its own logs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from malearn.flows.commands import options, output, servers
from malearn.flows.commands.options import (
    HomeOption,
    JsonOption,
    MazeOption,
    MoreLogsArgument,
    RunLogsOption,
)
from malearn.kernel import text
from malearn.kernel.home import Home
from malearn.kernel.tool_types import resource_name

if TYPE_CHECKING:
    from malearn.learning.policy_comparison import Settings

__all__ = ["simulate"]

_RECORDED = "recorded"
_LOADS = ["0.9"]
_LEAST_LOAD = 0.01  # where nothing ever waits, and all policies are the same


def simulate(
    source: RunLogsOption = None,
    more: MoreLogsArgument = None,
    workflows: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Workflow definitions (JSON) of the run logs: the resource of each function, and "
            "the edges. Without it they are inferred from the logs.",
        ),
    ] = None,
    maze: MazeOption = None,
    dataset: Annotated[
        bool,
        typer.Option("--dataset", help="The workflows in the datasets of --home, without any log."),
    ] = False,
    slots: Annotated[
        str,
        typer.Option(
            metavar="NAME=N,…", help="Tasks of a resource that may run at once; others: no limit."
        ),
    ] = "gpu=8",
    load: Annotated[
        list[str],
        typer.Option(
            metavar="LOAD",
            help="Share of the slots that is asked for, or 'recorded' for the recorded arrivals. "
            "Repeat for several.",
        ),
    ] = _LOADS,
    seeds: Annotated[
        int,
        typer.Option(
            metavar="N", help="Simulations of each run and load.", callback=options.at_least(1)
        ),
    ] = 3,
    deadline: Annotated[
        float,
        typer.Option(
            metavar="FACTOR",
            help="Deadline after arrival, as a multiple of the critical path.",
            callback=options.at_least(0.1),
        ),
    ] = 2.0,
    no_mlflow: Annotated[
        bool, typer.Option("--no-mlflow", help="Do not log the results and plots to MLflow.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate scheduling policies with different predictors.

    Replays the workflows of the logs with their real durations. Predictors learn
    only from what has ended in the simulation. Results and plots are then logged
    as a run in MLflow.
    """
    # First: wrong values of options show before anything slow is imported.
    settings = _settings(slots, load, seeds, deadline)
    files = [*(source or []), *(more or [])]
    if not files and not maze and not dataset:
        raise typer.BadParameter(
            "name run logs with --from FILE…, a store with --maze DIR, or --dataset"
        )
    if workflows is not None and not files:
        raise typer.BadParameter(
            "--workflows goes with --from: stores of Maze and datasets hold their own edges"
        )
    from datetime import UTC, datetime

    from malearn.data.maze import reader
    from malearn.flows import console, report
    from malearn.flows import simulate as flow
    from malearn.kernel import generic
    from malearn.lifecycle import evaluation_runs

    stores = options.maze_stores(maze)
    place = Home.find(home) if dataset else None
    types = reader.with_announced(stores, None if place is None else generic.declared(place))
    found = flow.read(options.run_logs(files), workflows, stores, types, place)
    with console.progress() as shown:
        done = flow.simulate(
            found,
            settings,
            types,
            lambda at, total: shown.step(f"Simulating: {at} of {text.counted(total, 'run')}"),
        )
        shown.done(f"Simulated {text.counted(done.workflows, 'workflow')}")
    for why, count in found.skipped.items():
        output.note(f"{text.counted(count, 'logged workflow')} left out: {why}")
    # First the result, which took minutes; an MLflow that does not answer must not cost it.
    output.result(done.as_json(), as_json, lambda: report.show_comparison(done))
    if no_mlflow:
        return
    with servers.tracking(Home.find(home)):
        evaluation_runs.log_comparison(done, f"simulation {datetime.now(UTC):%Y-%m-%d %H:%M:%S}")


def _settings(slots: str, loads: list[str], seeds: int, deadline: float) -> Settings:
    limits: dict[str, int] = {}
    for part in slots.split(","):
        name, count = _slots(part)
        if name in limits:
            raise typer.BadParameter(f"--slots names {name} twice")
        limits[name] = count
    chosen: list[float | None] = []
    for given in loads:
        load = None if given == _RECORDED else _load(given)
        if load in chosen:
            raise typer.BadParameter(f"--load names {given} twice")
        chosen.append(load)
    from malearn.learning.policy_comparison import Settings

    # The load is a share of these slots: GPUs are what schedulers are short of.
    resource = "gpu" if "gpu" in limits else next(iter(limits))
    # The first is shown; the others tell whether the result hangs on it.
    deadlines = (deadline, 0.75 * deadline, 1.5 * deadline)
    return Settings(limits, resource, tuple(chosen), seeds, deadlines)


def _slots(part: str) -> tuple[str, int]:
    resource, _, count = part.strip().partition("=")
    if not resource or not count.isdecimal() or int(count) < 1:
        raise typer.BadParameter(f"--slots must be like gpu=8,cpu=16, not {part.strip()!r}")
    return resource_name(resource), int(count)


def _load(given: str) -> float:
    try:
        load = float(given)
    except ValueError:
        load = math.nan
    if not _LEAST_LOAD <= load < math.inf:
        raise typer.BadParameter(
            f"--load must be a number of at least {_LEAST_LOAD} or '{_RECORDED}', not {given!r}"
        )
    return load
