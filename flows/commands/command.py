"""The format of a command's help: arguments as they are typed, without Typer's notation."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

__all__ = ["Command"]


class Command(TyperCommand):
    """A command whose usage line and help name arguments by their metavar alone.

    Typer would write `[[TOOL]]` and `{TOOL} <str>`, and show hidden ones as `[]...`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            parsed: list[str] = super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = _plain(error.message)
            raise
        return parsed

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", *(name for name, _ in self._arguments(ctx))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        records = [
            parameter.get_help_record(ctx)
            for parameter in self.get_params(ctx)
            # By its kind as a word: Typer and click each have classes of their own for it.
            if parameter.param_type_name == "option"
        ]
        options = [record for record in records if record is not None]
        for title, rows in (("Arguments", self._arguments(ctx)), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _arguments(self, ctx: Any) -> list[tuple[str, str]]:
        found: list[Any] = [p for p in self.get_params(ctx) if p.param_type_name == "argument"]
        return [(p.metavar or p.name.upper(), p.help or "") for p in found if not p.hidden]


def _plain(message: str) -> str:
    """What the library that converts values says of one, in the words of our own sentences."""
    if message.startswith("Input should be a valid integer"):
        return "must be a whole number"
    if message.startswith("Input should be a valid number"):
        return "must be a number"
    return message.removeprefix("Value error, ")
