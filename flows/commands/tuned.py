"""`malearn tuned`: what searches for hyper-parameters found, and how to keep it."""

from __future__ import annotations

from typing import Annotated

import typer

from malearn.flows.commands import options, output
from malearn.flows.commands.options import HomeOption, JsonOption, ToolArgument
from malearn.kernel.errors import InputError
from malearn.kernel.home import Home

__all__ = ["tuned"]


def tuned(
    tool: ToolArgument,
    family: Annotated[
        str | None,
        typer.Option(
            metavar="FAMILY", help="Of this model family alone.", show_default="all of them"
        ),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Write what is better than the declared ones into malearn.toml."
        ),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the hyper-parameters that `malearn train --tune` found last; keep them with --keep."""
    from malearn.flows import report
    from malearn.lifecycle import kept_parameters, tuning

    name = options.tool_type(tool, home).name
    chosen = options.family(family) if family else None
    found = [f for f in tuning.found(Home.find(home), name) if chosen in (None, f.family)]
    if not found:
        whose = f"{family} of {name}" if family else name
        raise InputError(whose, f"nothing was tuned yet; run malearn train {name} --tune")
    better = [one for one in found if one.better]
    file = None
    # Only what beats the declared ones on the validation window.
    for one in better if keep else []:
        file = kept_parameters.keep(name, one.family, one.parameters)
    value = {
        "tool_type": name,
        "found": [report.found(one) for one in found],
        "kept": None if file is None else str(file),
    }
    output.result(value, as_json, lambda: report.show_found(name, found))
    if file is not None and not as_json:
        output.note(f"{file} declares what is better; the next training fits with it")
