"""Text that can be stored: what UTF-8 can carry, shortened where it is long; and counts of things
in words."""

from __future__ import annotations

import json

__all__ = ["MOST_KEPT", "as_json", "counted", "encodable", "shortened"]


#: Characters that are kept of a rejected record.
MOST_KEPT = 4096


def counted(number: int, noun: str) -> str:
    """`number` of what `noun` names, such as "1 workflow" or "1,200 workflows"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def encodable(value: str) -> str:
    """`value` as text that UTF-8 can carry: JSON may hold half a surrogate pair."""
    if value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def shortened(value: object, limit: int = 120) -> str:
    try:
        text = str(value) if isinstance(value, Exception) else repr(value)
    # Python limits the digits of an int that it prints, and the depth of a repr.
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} too large to show"
    return encodable(text if len(text) <= limit else f"{text[:limit]}…")


def as_json(value: object) -> str:
    """`value` as JSON, cut short where it is long; never raises."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=shortened, skipkeys=True)
    except (ValueError, RecursionError):  # a number of 5,000 digits, a list within a list within…
        text = json.dumps(shortened(value))
    # Twice: escaping half of a surrogate pair makes the text longer again.
    return encodable(text[:MOST_KEPT])[:MOST_KEPT]
