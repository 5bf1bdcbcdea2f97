"""Options and arguments that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from malearn.kernel.home import Home
    from malearn.kernel.tool_types import ToolType

__all__ = [
    "HomeOption",
    "JsonOption",
    "MazeOption",
    "MoreLogsArgument",
    "RunLogsOption",
    "ToolArgument",
    "ToolsArgument",
    "at_least",
    "families",
    "family",
    "maze_stores",
    "moment",
    "run_logs",
    "seconds",
    "tool_type",
    "version_or_alias",
    "writable",
]

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="DIR",
        help="Directory of the data, the models and the embedded servers.",
        show_default="$MALEARN_HOME, or the working directory",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON and nothing else.")
]
RunLogsOption = Annotated[
    list[Path] | None, typer.Option("--from", metavar="FILE…", help="Run logs, one file per run.")
]
MazeOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--maze",
        metavar="DIR",
        help="A run store of Maze: its workspace, or workflow_runs/ in it. Repeat for several.",
    ),
]
#: The files after the first: a shell expands `--from run*.jsonl` to words without an option.
MoreLogsArgument = Annotated[list[Path] | None, typer.Argument(hidden=True, metavar="")]
ToolArgument = Annotated[str, typer.Argument(metavar="TOOL", help="A tool type.")]
ToolsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[TOOL…]", help="Tool types; all without any.")
]

#: More rows, trials, hours or seconds than anything here can count.
_MOST = 1_000_000_000


def at_least(least: float) -> Callable[[Any], Any]:
    """A callback that rejects numbers below `least`, or that nobody can mean, in words.

    NaN is no number, and infinity none that anything can be counted or waited to.
    """

    def check(value: Any) -> Any:
        # NaN compares false.
        if value is not None and not value >= least:
            raise typer.BadParameter(f"must be {least:g} or more, not {value:g}")
        if value is not None and value > _MOST:
            shown = value if isinstance(value, int) else f"{value:g}"
            raise typer.BadParameter(f"must be at most {_MOST:,}, not {shown}")
        return value

    return check


def version_or_alias(value: str) -> str:
    """A callback that rejects what is neither the number of a version nor one of our aliases."""
    from malearn.lifecycle import registry

    if value.isdecimal():
        return str(at_least(1)(int(value)))
    for alias in registry.ALIASES:
        if value.lower() == alias.lower():
            return alias
    raise typer.BadParameter(
        f"must be the number of a version or {', '.join(registry.ALIASES)}, not '{value}'"
    )


def moment(value: str | None) -> str | None:
    """A callback that rejects what is no date."""
    seconds(value)
    return value


def seconds(value: str | None) -> float | None:
    """A date, or a date and a time, as seconds since the epoch; UTC unless it says otherwise."""
    from malearn.flows import moments
    from malearn.kernel.errors import InputError

    try:
        return moments.seconds(value)
    except InputError as error:
        raise typer.BadParameter(f"{error.problem}, not {value}") from None


def tool_type(name: str, home: Path | None) -> ToolType:
    """The tool type of that name, declared or found in `home`; raises `UnknownToolType`."""
    from malearn.kernel import generic
    from malearn.kernel.home import Home

    return generic.declared(Home.find(home))[name]


def family(name: str) -> str:
    """The name of a model family, after checking that there is one of that name.

    Raises `InputError` for one that is not installed.
    """
    from malearn.learning import families

    if name not in families.SHIPPED and name not in (known := families.known()):
        raise typer.BadParameter(f"--family must be one of {', '.join(known)}, not '{name}'")
    return families.get(name).name


def families(names: list[str] | None) -> list[str] | None:
    """The names of model families, None for none, after the same check of each."""
    chosen = [family(name) for name in names or ()]
    for name in chosen:
        if chosen.count(name) > 1:
            raise typer.BadParameter(f"--family names {name} twice")
    return chosen or None


def run_logs(files: list[Path]) -> list[Path]:
    """`files`, after checking that each looks like a run log.

    Call it before any server is started, so that a typing error costs no half minute.
    """
    from malearn.data import run_logs

    run_logs.examine(files)
    return files


def writable(home: Home, *, redis: bool = False) -> Home:
    """`home`, after checking that its datasets can be written where the settings say they are.

    `redis`: one will be running by then. Call it before any server is started.
    """
    # Nearly always they are files of the home, where nothing is to be checked or imported.
    if os.environ.get("MALEARN_DATA"):
        from malearn.data import locks

        locks.check(home, redis=redis)
    return home


def maze_stores(stores: list[Path] | None, *, waiting: bool = False) -> list[Path]:
    """`stores`, after checking that each is a run store of Maze; `waiting`: or may become one."""
    from malearn.data.maze import store

    store.find(stores or [], waiting=waiting)
    return stores or []
