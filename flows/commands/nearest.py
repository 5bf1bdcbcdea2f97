"""The known name that an unknown one was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from malearn.kernel.tool_types import ToolType, ToolTypes

__all__ = ["hint", "tool_type_of"]


def hint(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the nearest of `known`, or nothing where none is near.

    >>> hint("text_lenght", ["text_length", "token_count"])
    "; did you mean 'text_length'?"
    """
    # difflib counts a capital as another letter.
    by_letters = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), by_letters, n=1)
    return f"; did you mean '{by_letters[found[0]]}'?" if found else ""


def tool_type_of(function: str, types: ToolTypes) -> tuple[ToolType, str] | None:
    """The tool type that nearly claims `function`, and its pattern; None where none is near.

    >>> from malearn.kernel.tool_types import declared
    >>> tool_type_of("task1_lm_proces_qwen", declared())[1]
    'llm_process'
    """
    tokens = function.lower().split("_")
    patterns = {pattern.lower(): tool_type for tool_type in types.values()
                for pattern in tool_type.functions}  # fmt: skip
    best, found = 0.0, None
    for pattern, tool_type in patterns.items():
        # A pattern may stand anywhere in the name: compare it with each part of its length.
        width = pattern.count("_") + 1
        for start in range(max(1, len(tokens) - width + 1)):
            part = "_".join(tokens[start : start + width])
            likeness = difflib.SequenceMatcher(None, pattern, part).ratio()
            if likeness > best:
                best, found = likeness, (tool_type, pattern)
    # 0.8 is one or two letters of ten: less would suggest patterns that nobody meant.
    return found if best >= 0.8 else None
