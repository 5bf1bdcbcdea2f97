"""A console that prints texts as they are: no markup in them, and nothing that moves a cursor.

Names of functions, runs and files come from logs. rich takes `[…]` in them for markup, and would
pass the codes on that terminals act upon.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.segment import Segment

from malearn.flows import terminal

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType
    from rich.text import Text

__all__ = ["PlainConsole"]


class PlainConsole(Console):
    """A `Console` for texts from anywhere: control characters are replaced, markup is shown."""

    def __init__(self, *, stderr: bool = False, width: int | None = None) -> None:
        # It would also colour numbers and paths by itself, and make pictures of `:name:`.
        super().__init__(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """As `Console.render_str`; here as well, since the width of a cell is measured on it."""
        return super().render_str(terminal.printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As `Console.render`; what rich itself makes terminals do is left alone."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else terminal.printable(segment.text)
            # Nearly always it is the same one: the segment is then not made anew.
            yield segment if text is segment.text else Segment(text, segment.style)
