"""The console, and the tables that every report prints on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.table import Table
from rich.text import Text

from malearn.flows import terminal
from malearn.flows.plain_console import PlainConsole

if TYPE_CHECKING:
    from malearn.learning.gate import GateCheck

__all__ = ["age", "console", "decimals", "line", "name", "reasons", "short_name", "table"]

#: Columns of output that does not go to a terminal.
_PIPED = 100
#: Columns that a name from outside may take in a table; a UUID has 36.
_WIDEST_NAME = 40


def console() -> Console:
    """A console on stdout: as wide as the terminal, or wide enough for any table elsewhere."""
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=_PIPED)


def line(console: Console, text: str, style: str = "") -> None:
    """Print one line, which the terminal wraps."""
    console.print(Text(text, style), soft_wrap=True)


def table(first: str, *others: str) -> Table:
    """A table with a left column of names, never cut, and right columns of numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first, no_wrap=True, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    return table


def name(given: str) -> str:
    """A name from outside, on one line; in quotes where nothing of it would be seen."""
    shown = terminal.one_line(given)
    return shown if cell_len(shown.strip()) else f'"{shown}"'


def short_name(given: str) -> str:
    """The same for a table, whose other columns it must leave room for."""
    whole = name(given)
    if cell_len(whole) <= _WIDEST_NAME:
        return whole
    # Cut in the middle: names that many have in common differ at the end, or at the beginning.
    half = (_WIDEST_NAME - 1) // 2
    return f"{chop_cells(whole, half)[0]}…{chop_cells(whole[::-1], half)[0][::-1]}"


def decimals(numbers: Iterable[float]) -> Callable[[float], str]:
    """A format that writes all of `numbers` with the same decimals, so that they line up."""
    # The smallest decides: with one decimal 0.04 s would read as 0.0.
    least = min((n for n in numbers if n > 0.0), default=1.0)
    digits = 1 if least >= 1.0 else 2 if least >= 0.1 else 3
    return lambda number: f"{number:,.{digits}f}"


def reasons(console: Console, title: str, checks: Iterable[GateCheck]) -> None:
    """Print `title` and one line per gate check, failed ones first."""
    line(console, title, "bold")
    for check in sorted(checks, key=lambda check: check.passed):
        mark, style = ("✓", "green") if check.passed else ("✗", "red")
        # Wrapped here, so that continuation lines are indented below the text, not the mark.
        lines = Text(check.detail).wrap(console, max(20, console.width - 4))
        for number, part in enumerate(lines):
            part.rstrip()
            head = Text(f"  {mark} ", style) if number == 0 else Text("    ")
            console.print(head + part, soft_wrap=True)
    console.print()


def age(seconds: float) -> str:
    """A duration in the unit that a person would choose."""
    for unit, length in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
