"""`malearn train`, `promote` and `rollback`: model versions made, and the alias moved by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from malearn.flows.commands import options, output, servers
from malearn.flows.commands.options import HomeOption, JsonOption, ToolArgument, ToolsArgument
from malearn.kernel.home import Home

if TYPE_CHECKING:
    from malearn.lifecycle.promotion import Promoted
    from malearn.lifecycle.training import Trained

__all__ = ["promote", "rollback", "train"]


def train(
    tools: ToolsArgument = None,
    family: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FAMILY",
            help="A model family, such as xgboost; repeat the option for several.",
            show_default="xgboost, mlp, linear, and what malearn.toml adds",
        ),
    ] = None,
    data_version: Annotated[
        int | None,
        typer.Option(
            "--data-version",
            metavar="N",
            help="Train on this version of the dataset, not the newest.",
            callback=options.at_least(0),
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Train on the newest N rows alone.", callback=options.at_least(1)
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DATE",
            help="Train on tasks that started since then alone, such as 2026-03-01, in UTC.",
            callback=options.moment,
        ),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Search for better hyper-parameters first, with Optuna."),
    ] = False,
    trials: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="With --tune: trials per family, with those of a search that was interrupted.",
            callback=options.at_least(1),
        ),
    ] = 30,
    seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="With --tune: search for at most so long, per tool type.",
            callback=options.at_least(1),
        ),
    ] = None,
    promote: Annotated[
        bool,
        typer.Option("--promote", help="Promote to Production what passes the gate."),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train candidates and register the best; promote it only with --promote.

    Prints the score of every candidate and baseline, what the promotion gate decided, and what
    to do next. What is trained on a part of the data, or an older version of it, never passes
    the gate.
    """
    from malearn.flows import report
    from malearn.kernel import generic
    from malearn.learning import families

    place = Home.find(home)
    types = generic.declared(place)
    # Looked up, so that an unknown name fails here with the known ones.
    names = [types[name].name for name in tools or types]
    for name in names:  # before any server is started
        families.check(types[name])
    chosen = options.families(family)
    with servers.running(options.writable(place)):
        from malearn.flows.train import train as flow

        done = [
            flow(
                name,
                str(place.root),
                chosen,
                data_version=data_version,
                newest_rows=rows,
                since=options.seconds(since),
                trials=trials if tune else 0,
                seconds=seconds,
            )
            for name in names
        ]
        # After all are trained: what fails to be promoted must not keep others from training.
        promoted = [_promoted(one, place) for one in done if promote and one.passes]
    output.result(
        report.trained(done, promoted), as_json, lambda: report.show_trained(done, promoted)
    )
    # A version may pass the gate and fail the verification of its ONNX export.
    if not all(one.promoted for one in promoted):
        raise typer.Exit(1)


def _promoted(trained: Trained, place: Home) -> Promoted:
    """What came of promoting a version that has just passed the gate."""
    from malearn.flows.promote import promote as flow

    assert trained.version is not None
    return flow(trained.tool_type, trained.version, str(place.root))


def promote(
    tool: ToolArgument,
    version: Annotated[
        int | None,
        typer.Argument(
            metavar="[VERSION]",
            help="The number of a registered version, which may have failed the gate; "
            "without it, the newest that passed.",
            callback=options.at_least(1),
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Promote a version to Production; a version named by its number bypasses the gate.

    Its ONNX export is created if missing and always verified.
    """
    from malearn.flows import report

    place, tool_type = Home.find(home), options.tool_type(tool, home)
    with servers.running(options.writable(place)) as platform:
        from malearn.flows.promote import promote as flow
        from malearn.lifecycle import mlflow_connection, promotion

        number = version
        if number is None:
            with mlflow_connection.connected(platform.tracking_uri):
                number = promotion.newest_passed(tool_type).number
        # A number is a person's decision for that version, the gate's notwithstanding.
        done = flow(tool_type.name, number, str(place.root), bypass_gate=version is not None)
    output.result(report.promoted(done), as_json, lambda: report.show_promoted(done))
    if not done.promoted:
        raise typer.Exit(1)


def rollback(tool: ToolArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Restore the previous Production version."""
    from malearn.lifecycle import registry

    tool_type = options.tool_type(tool, home)
    # No flow: it moves two aliases, for which a start of Prefect would be too long a wait.
    with servers.tracking(Home.find(home)):
        before, now = registry.rollback(tool_type)
    value = {"tool_type": tool_type.name, "before": before, "production": now}
    output.result(
        value,
        as_json,
        lambda: typer.echo(f"{tool_type.name}: Production is version {now} again, not {before}."),
    )
