"""Maze's own command line with malearn inside: `python -m malearn.maze start --head …`."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from malearn.integrations.maze.install import install
from malearn.integrations.maze.target import MAZE
from malearn.kernel.errors import IntegrationError, MalearnError

__all__ = ["main"]

_CLI, _OURS = "maze.cli.cli", "malearn.maze"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run Maze's command line; a head that it starts, detached or not, has malearn inside.

    Exits with 1 and one sentence where Maze is not as it is known.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        # Only a head schedules. A detached one is another process, which `_starting_ours` sees to.
        if "--head" in given and "--detach" not in given:
            install()
        run = _cli_main()
    except MalearnError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the only words of this program
        raise SystemExit(1) from None
    # Maze's command line reads sys.argv itself, and names itself after its first word.
    before, sys.argv = sys.argv, ["maze", *given]
    try:
        with _starting_ours():
            run()
    finally:
        sys.argv = before


def _cli_main() -> Any:
    try:
        found = getattr(importlib.import_module(_CLI), "main", None)
    except ImportError as error:
        problem = f"its command line cannot be imported ({error})"
        raise IntegrationError(MAZE, problem) from error
    if not callable(found):
        raise IntegrationError(MAZE, f"{_CLI} has no main()")
    return found


@contextmanager
def _starting_ours() -> Iterator[None]:
    """While this lasts, a detached head that Maze starts as a new process has malearn inside."""
    own = subprocess.Popen

    class Popen(own):  # type: ignore[valid-type, misc]
        """`subprocess.Popen`, starting ours where Maze's command line is meant."""

        def __init__(self, args: Any, *more: Any, **named: Any) -> None:
            super().__init__(_ours(args), *more, **named)

    # Maze has no option for the module that it starts.
    subprocess.Popen = Popen  # type: ignore[misc]
    try:
        yield
    finally:
        subprocess.Popen = own  # type: ignore[misc]


def _ours(args: Any) -> Any:
    """`args` with our module for Maze's.

    >>> _ours(["python", "-m", "maze.cli.cli", "start", "--head"])
    ['python', '-m', 'malearn.maze', 'start', '--head']
    """
    if not isinstance(args, list | tuple) or "-m" not in args:
        return args
    at = list(args).index("-m") + 1
    if at < len(args) and args[at] in (_CLI, "maze.cli", "maze"):
        return [*args[:at], _OURS, *args[at + 1 :]]
    return args
