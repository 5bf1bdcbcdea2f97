"""`malearn compare`: two versions of a model on the same rows."""

from __future__ import annotations

from typing import Annotated

import typer

from malearn.flows.commands import options, output, servers
from malearn.flows.commands.options import HomeOption, JsonOption, ToolArgument
from malearn.kernel.home import Home

__all__ = ["compare"]


# Made twice: typer takes the metavar from the argument object, so V1 and V2 need one each.
def _version(name: str) -> typer.models.ArgumentInfo:
    argument: typer.models.ArgumentInfo = typer.Argument(
        metavar=name,
        help="The number of a registered version, or Production, Previous or Candidate.",
        callback=options.version_or_alias,
    )
    return argument


def compare(
    tool: ToolArgument,
    first: Annotated[str, _version("V1")],
    second: Annotated[str, _version("V2")],
    rows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Compare on the newest N rows.",
            show_default="those that neither version was trained on, at most 500",
            callback=options.at_least(10),
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two versions on the same rows, per function and state, with a significance test.

    The result is also a run in MLflow, in the experiment malearn-comparison, or
    PREFIX-comparison where MALEARN_PREFIX is set.
    """
    if first == second:
        raise typer.BadParameter("give two different versions")
    from malearn.data.dataset import Dataset
    from malearn.flows import report
    from malearn.kernel.errors import InputError
    from malearn.lifecycle import comparing, mlflow_pages, registry

    place = Home.find(home)
    tool_type = options.tool_type(tool, home)
    dataset = Dataset.open(place, tool_type)
    with servers.tracking(place):
        numbers = registry.numbered(tool_type, first), registry.numbered(tool_type, second)
        if numbers[0] == numbers[1]:
            raise InputError(f"{first} and {second}", f"both are version {numbers[0]}")
        done = comparing.compare(tool_type, numbers, dataset, rows)
        page = mlflow_pages.run_page(comparing.log(done, dataset.version))
    output.result(
        {**done.as_json(), "page": page}, as_json, lambda: report.show_versions(done, page)
    )
