"""`malearn explain`: why a prediction is what it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from malearn.flows.commands import output, predict, servers
from malearn.flows.commands.options import HomeOption, JsonOption
from malearn.flows.commands.predict import FeatureOption, PredecessorOption, ResourceOption
from malearn.kernel.home import Home

if TYPE_CHECKING:
    from malearn.learning.explanation import Explanation

__all__ = ["explain"]


def explain(
    function: Annotated[
        str | None,
        typer.Argument(
            metavar="[FUNCTION]", help="The task's function, such as task1_llm_process."
        ),
    ] = None,
    feature: FeatureOption = None,
    predecessor: PredecessorOption = None,
    resource: ResourceOption = "gpu",
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK_ID",
            help="A task of the past instead of FUNCTION: predicted again from what was known "
            "when it started, and compared with what it took.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw the terms as a waterfall, as PNG or SVG."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain a prediction: what each input, level and clip adds, and why this source answers.

    The terms are in log-seconds and sum to the prediction.
    """
    if (function is None) == (task is None):
        raise typer.BadParameter("give either FUNCTION or --task TASK_ID")
    if task is not None and (feature or predecessor):
        raise typer.BadParameter("a past task has features of its own; leave --feature out")
    if plot is not None and plot.suffix not in (".png", ".svg"):
        raise typer.BadParameter(f"--plot must end in .png or .svg, not '{plot.name}'")
    from malearn.flows import report

    place = Home.find(home)
    if task is not None:
        found = _past(task, place)
    else:
        found = _now(function or "", feature or [], predecessor or [], resource, place)
    if plot is not None:
        _draw(found, plot)
    output.result(found.as_json(), as_json, lambda: report.show_explanation(found))


def _past(task: str, place: Home) -> Explanation:
    from malearn.data.dataset import Dataset
    from malearn.kernel import generic
    from malearn.lifecycle import explaining

    types = generic.declared(place)
    # Of all tool types: a task id does not tell which one it is of.
    executions = {name: Dataset.open(place, one).read() for name, one in types.items()}
    with servers.tracking(place):
        return explaining.explain_task(task, executions, types)


def _now(
    function: str, feature: list[str], predecessor: list[str], resource: str, place: Home
) -> Explanation:
    from malearn.data.dataset import Dataset
    from malearn.lifecycle import explaining, mlflow_connection

    task = predict.Task.parse(place, function, feature, predecessor, resource)
    with (
        servers.running(place, redis=True, prefect=False) as platform,
        mlflow_connection.connected(platform.tracking_uri),
    ):
        with predict.ready(platform, place) as predictor:
            predict.remember(predictor, place, task)
            predict.note_missing(platform.redis_url, task)
            answer = predictor.explain(
                task.function, task.resource, task.predecessors, task.features
            )
        # The background against which the model's inputs are explained.
        rows = [] if task.tool_type is None else Dataset.open(place, task.tool_type).read()
        return explaining.explain_answer(answer, task.tool_type, rows)


def _draw(found: Explanation, plot: Path) -> None:
    from malearn.learning import explanation_plots

    prediction = found.answer.prediction
    title = f"{found.answer.function}: {prediction.seconds:.3g} s from {prediction.source}"
    interval = prediction.low, prediction.high
    explanation_plots.waterfall(found.terms, title, found.actual, interval).savefig(plot)
