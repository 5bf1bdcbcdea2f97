"""`malearn evaluate`: logs replayed in time, every predictor scored on the same tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

__all__ = ["evaluate"]


def evaluate(
    source: RunLogsOption = None,
    more: MoreLogsArgument = None,
    maze: MazeOption = None,
    include_other: Annotated[
        bool,
        typer.Option(
            "--include-other",
            help="Let tasks that only the generic tool type claims count in the overall ranking.",
        ),
    ] = False,
    score_from: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Exclude the first N tasks (by start time) from scoring.",
            callback=options.at_least(0),
        ),
    ] = 0,
    cadence: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Retrain after every N finished tasks; auto: more rarely as the log grows.",
        ),
        # A text, since the option also takes a word.
    ] = "25",
    production: Annotated[
        bool,
        typer.Option(
            "--production",
            help="Train as in production: fence outliers, compare families, promote what the "
            "gate lets pass. Otherwise the default family is refitted and always answers.",
        ),
    ] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write one row per scored task to FILE (.csv or .parquet): what everyone "
            "predicted, the interval, its state, and the outcome.",
        ),
    ] = None,
    no_mlflow: Annotated[
        bool, typer.Option("--no-mlflow", help="Do not log the scores and plots to MLflow.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay logs in time and score malearn against baselines.

    Each task is predicted from what had finished before it started. Pairwise
    ranking accuracy is measured within each file. Scores and plots are then logged
    as a run in MLflow.
    """
    from datetime import UTC, datetime

    from malearn.flows import console, predictions_file, report
    from malearn.flows.evaluate import evaluate as replay
    from malearn.lifecycle import evaluation_runs

    every = _cadence(cadence)
    if predictions is not None and predictions.suffix.lower() not in predictions_file.SUFFIXES:
        ends = " or ".join(predictions_file.SUFFIXES)
        raise typer.BadParameter(f"--predictions must end in {ends}, not '{predictions.name}'")
    chosen, stores = [*(source or []), *(more or [])], options.maze_stores(maze)
    if not chosen and not stores:
        raise typer.BadParameter("name run logs with --from FILE… or a store with --maze DIR")
    files = options.run_logs(chosen)
    if predictions is not None:
        predictions_file.check(predictions)
    with console.progress() as shown:
        done = replay(
            files,
            maze=stores,
            include_other=include_other,
            score_from=score_from,
            cadence=every,
            production=production,
            # In steps of 200: off a terminal each step is a line.
            progress=lambda at, total: shown.step(
                f"Replaying: {at // 200 * 200} of {text.counted(total, 'task')}"
            ),
        )
        shown.done(f"Replayed {text.counted(len(done.executions), 'task')}")
    if predictions is not None:
        predictions_file.write(predictions, done)
    # First the result, which took minutes; an MLflow that does not answer must not cost it.
    output.result(done.as_json(), as_json, lambda: report.show_evaluation(done))
    if no_mlflow:
        return
    with servers.tracking(Home.find(home)):
        evaluation_runs.log_evaluation(done, f"replay {datetime.now(UTC):%Y-%m-%d %H:%M:%S}")


def _cadence(text: str) -> int | None:
    """Tasks between two retrainings; None for as many as the log's length calls for."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"--cadence must be auto or a whole number from 1, not '{text}'")
    return int(text)
