"""Terminals, pipes and cron jobs whose encoding is not UTF-8: they are written to all the same."""

from __future__ import annotations

import codecs
import re
import sys
from io import TextIOWrapper
from typing import TextIO

__all__ = ["accept_any_text", "is_utf8", "one_line", "printable"]

#: What stands for a character that the terminal does not have.
_INSTEAD = {
    "✓": "+", "✗": "x", "–": "-", "—": "-", "…": "...", "µ": "u", "²": "2", "×": "x",
    "←": "<-", "→": "->", "·": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "�": "?",
}  # fmt: skip
_ERRORS = "malearn.instead"
#: What a terminal acts upon instead of showing it: control characters but the tabulator and the
#: end of a line, and those that turn the direction of what follows.
_ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def is_utf8(stream: TextIO) -> bool:
    """Whether `stream` can be written any text."""
    try:
        # Looked up, for the same encoding has many spellings: utf8, UTF-8, U8.
        return codecs.lookup(stream.encoding or "ascii").name == "utf-8"
    except LookupError:
        return False


def printable(text: str) -> str:
    """`text` with � for each character that a terminal would act upon; itself without any."""
    return _ACTS.sub("�", text) if _ACTS.search(text) else text


def one_line(text: str) -> str:
    """`text` as `printable`, with � for the ends of lines and tabulators as well."""
    return printable(text).translate({ord("\n"): "�", ord("\t"): "�"})


def accept_any_text() -> None:
    """Replace what stdout and stderr cannot encode, instead of failing half-way through a table."""
    codecs.register_error(_ERRORS, _instead)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Even UTF-8 refuses the bytes of a file name that is not UTF-8 itself.
            stream.reconfigure(errors="backslashreplace" if is_utf8(stream) else _ERRORS)


def _instead(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    # Braille patterns are the frames of a moving spinner.
    found = error.object[error.start : error.end]
    text = "".join(_INSTEAD.get(c, "." if "⠀" <= c <= "⣿" else "?") for c in found)
    return text, error.end
