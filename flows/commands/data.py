"""`malearn data …`: datasets exported, imported, listed, revalidated and maintained."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from malearn.flows.commands import options, output, servers
from malearn.flows.commands.command import Command
from malearn.flows.commands.options import HomeOption, JsonOption, ToolArgument
from malearn.kernel import text
from malearn.kernel.home import Home

if TYPE_CHECKING:
    from malearn.kernel.records import RejectReason
    from malearn.kernel.tool_types import ToolType

__all__ = ["data"]

data = typer.Typer(
    help="Export, import, inspect and maintain the datasets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Format(enum.StrEnum):
    """The file formats that a dataset can be exported to."""

    CSV = "csv"
    PARQUET = "parquet"


@data.command("export", cls=Command)
def export_dataset(
    tool: ToolArgument,
    output_file: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="File to write.", show_default="TOOL.FORMAT"
        ),
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", metavar="FORMAT", help="csv or parquet.")
    ] = Format.CSV,
    version: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Version of the dataset.",
            show_default="the newest",
            callback=options.at_least(0),
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a dataset to a CSV (in the original's form) or Parquet file."""
    from malearn.data.dataset import Dataset

    tool_type = options.tool_type(tool, home)
    file = output_file or Path(f"{tool_type.name}.{form}")
    dataset = Dataset.open(Home.find(home), tool_type)
    write = dataset.export_csv if form is Format.CSV else dataset.export_parquet
    rows = write(file, version)
    value = {"tool_type": tool_type.name, "rows": rows, "file": str(file)}
    output.result(
        value,
        as_json,
        lambda: typer.echo(f"Wrote {text.counted(rows, 'row')} of {tool_type.name} to {file}"),
    )


@data.command("import", cls=Command)
def import_dataset(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Run logs or CSV files.")],
    tool: Annotated[
        str | None,
        typer.Option(
            "--tool",
            metavar="TOOL",
            help="Tool type of the CSV files.",
            show_default="the name of each file",
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import run logs, or the original's per-tool CSV files."""
    from malearn.flows import report

    place = Home.find(home)
    tables = {
        file: options.tool_type(tool, home) if tool else _named_by(file, home)
        for file in files
        if file.suffix == ".csv"
    }
    logs = options.run_logs([file for file in files if file not in tables])
    # All headers before any server is started: a typing error must not cost half a minute.
    for file, tool_type in tables.items():
        _check_header(file, tool_type)
    # Ingestion needs no MLflow; leaving it out saves its start.
    with servers.running(options.writable(place), mlflow=False):
        from malearn.flows.ingest import ingest as flow

        named = {str(file): tool_type.name for file, tool_type in tables.items()}
        done = flow([str(file) for file in logs], str(place.root), named)
    output.result(report.ingested(done), as_json, lambda: report.show_ingested(done))
    output.fail_on_rejected_batch(done)


@data.command("history", cls=Command)
def dataset_history(
    tool: ToolArgument, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """List the versions of a dataset."""
    from dataclasses import asdict

    from malearn.data.dataset import Dataset
    from malearn.flows import report

    commits = Dataset.open(Home.find(home), options.tool_type(tool, home)).history()
    output.result([asdict(c) for c in commits], as_json, lambda: report.show_history(commits))


@data.command("quarantine", cls=Command)
def quarantine_of(
    tool: Annotated[
        str | None, typer.Argument(metavar="[TOOL]", help="A tool type; all without one.")
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Only rows with this reason code, such as outlier."),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(metavar="N", help="Show the newest N rows.", callback=options.at_least(0)),
    ] = 5,
    retry: Annotated[
        bool,
        typer.Option(
            "--retry", help="Validate the rows again; add those that pass to their dataset."
        ),
    ] = False,
    # The name of --retry in an earlier malearn: scripts may still use it.
    readmit: Annotated[bool, typer.Option("--readmit", hidden=True)] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the rows kept out of the datasets, or validate them again."""
    from dataclasses import asdict

    from malearn.data import quarantine
    from malearn.data.rejections import Rejections
    from malearn.flows import console, report
    from malearn.kernel import generic

    name = options.tool_type(tool, home).name if tool else None
    which = quarantine.QuarantineFilter(
        generic.declared(Home.find(home)), name, _reason(reason) if reason else None
    )
    place = Home.find(home)
    if not (retry or readmit):
        found = quarantine.overview(Rejections.open(place), which, limit)
        output.result(report.quarantined(found), as_json, lambda: report.show_quarantined(found))
        return
    # No server: what is kept out, and the datasets, are files of the home.
    with console.progress() as shown:
        from malearn.flows.quarantine import revalidate

        done = revalidate(place, which, shown.step)
    output.result(asdict(done), as_json, lambda: report.show_revalidated(done))


@data.command("maintain", cls=Command)
def maintain_data(
    keep_days: Annotated[
        str | None,
        typer.Option(
            metavar="DAYS",
            help="Delete older rows: '365', or '365 llm_process=90 _reports=30'.",
            show_default="$MALEARN_KEEP_DAYS, or no limit",
        ),
    ] = None,
    keep_rows: Annotated[
        str | None,
        typer.Option(
            metavar="ROWS",
            help="Keep only the newest N rows per table; same syntax as --keep-days.",
            show_default="$MALEARN_KEEP_ROWS, or no limit",
        ),
    ] = None,
    unused_hours: Annotated[
        float,
        typer.Option(
            metavar="HOURS",
            help="Vacuum files that only versions older than this need.",
            callback=options.at_least(0),
        ),
        # `maintenance.WEEK`, not imported, so that `--help` stays quick.
    ] = 168.0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Apply retention, compact small files and vacuum unused ones.

    Versions that a registered model was trained on are kept.
    """
    from dataclasses import asdict

    from malearn.data import maintenance
    from malearn.flows import report
    from malearn.kernel import generic
    from malearn.kernel.errors import InputError

    place, names = Home.find(home), maintenance.places(generic.declared(Home.find(home)))
    # Checked here, where the option can be named; the flow knows only the text.
    try:
        maintenance.Limits.parse(keep_days or "", "--keep-days", names)
        maintenance.Limits.parse(keep_rows or "", "--keep-rows", names, whole=True)
    except InputError as error:
        raise typer.BadParameter(f"{error.what}: {error.problem}") from None
    with servers.running(options.writable(place)):
        from malearn.flows.maintain import maintain as flow

        done = flow(str(place.root), keep_days, keep_rows, unused_hours)
    output.result([asdict(m) for m in done], as_json, lambda: report.show_maintained(done))


def _named_by(file: Path, home: Path | None) -> ToolType:
    """The tool type that a CSV file is named after. Raises `InputError` where it is of none."""
    from malearn.kernel.errors import InputError, UnknownToolType

    try:
        return options.tool_type(file.stem, home)
    except UnknownToolType:
        raise InputError(
            file,
            f"is named after no tool type ('{file.stem}'); say with --tool which one its rows are "
            "of",
        ) from None


def _check_header(file: Path, tool_type: ToolType) -> None:
    """Raise `InputError` if the header of a CSV file is not that of `tool_type`."""
    from malearn.data import csv_files

    # Reading one row parses the header; a file with nothing below it is no mistake.
    next(iter(csv_files.read(file, tool_type, size=1)), None)


def _reason(name: str) -> RejectReason:
    from malearn.kernel.records import RejectReason

    try:
        return RejectReason(name)
    except ValueError:
        raise typer.BadParameter(
            f"'{name}' is not a reason code; choose from {', '.join(RejectReason)}"
        ) from None
