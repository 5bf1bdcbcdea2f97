"""`malearn doctor`: what is wrong with an installation, and what to do."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from malearn.flows.commands import output
from malearn.flows.commands.options import HomeOption, JsonOption
from malearn.kernel.home import Home

__all__ = ["doctor"]


def doctor(
    home: HomeOption = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Repair damaged tables and rights first; say what was lost."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check an installation and its data; change nothing without --repair.

    Versions, servers, clocks, rights, disk, databases, models and every table.

    Exit status 1 if there is a problem.
    """
    from malearn.flows import doctor as checks
    from malearn.flows import report

    place = Home.find(home)
    mended = list(checks.repair(place)) if repair else []
    # Examined after the repair, so that what is left decides the exit status.
    found = [*mended, *checks.examine(place)]
    healthy = all(finding.level != "problem" for finding in found)
    value = {"healthy": healthy, "checks": [asdict(finding) for finding in found]}
    output.result(value, as_json, lambda: report.show_findings(found))
    if not healthy:
        raise typer.Exit(1)
