"""`malearn up`: the whole platform, kept running."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Annotated, Any

import typer

from malearn.flows.commands import options
from malearn.flows.commands.options import HomeOption, MazeOption
from malearn.kernel.home import Home

__all__ = ["up"]


def _port(value: Any) -> Any:
    # Not 0: a restarted server must have the port that its clients know.
    if value is not None and not 1 <= value <= 65535:
        raise typer.BadParameter(f"a port is a number from 1 to 65535, not {value}")
    return value


PortOption = Annotated[
    int | None,
    typer.Option(
        metavar="PORT", help="Port to listen on.", show_default="a free one", callback=_port
    ),
]


def up(
    home: HomeOption = None,
    maze: MazeOption = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="IPv4 address to listen on; 0.0.0.0 opens it to the network, unencrypted.",
        ),
    ] = "127.0.0.1",
    redis_port: PortOption = None,
    mlflow_port: PortOption = None,
    prefect_port: PortOption = None,
    metrics_port: PortOption = None,
) -> None:
    """Run Redis, MLflow, Prefect and a worker until Ctrl-C.

    The worker runs the scheduled flows; a server that ends is started again. With --maze
    the scheduled ingestion reads what is new in these stores, too.
    """
    from malearn.flows import task_runner
    from malearn.flows.up import up as stay
    from malearn.kernel import tool_types

    try:
        # An address, not a name: embedded servers bind to it as it is, and over IPv4 only.
        IPv4Address(host)
    except ValueError:
        raise typer.BadParameter(f"'{host}' is not an IPv4 address") from None
    # A declaration that is wrong fails here, not in each scheduled run.
    tool_types.declared()
    task_runner.choice()
    ports = {
        "Redis": redis_port,
        "MLflow": mlflow_port,
        "Prefect": prefect_port,
        "Metrics": metrics_port,
    }
    chosen = {name: port for name, port in ports.items() if port is not None}
    stores = options.maze_stores(maze, waiting=True)
    stay(Home.find(home), host=host, ports=chosen, maze=stores)
