"""Paths as people read them: each by as much of its end as tells it from the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["distinct", "names"]


def distinct(paths: Sequence[Path]) -> list[Path]:
    """`paths`, each place once, as and when it was first named."""
    found: dict[Path, Path] = {}
    for path in paths:
        found.setdefault(path.resolve(), path)
    return list(found.values())


def names(paths: Sequence[Path]) -> dict[Path, str]:
    """The shortest end of each path that no other one has, in whole parts.

    >>> found = names([Path("day1/log.jsonl"), Path("day2/log.jsonl"), Path("day2/all.jsonl")])
    >>> list(found.values())
    ['day1/log.jsonl', 'day2/log.jsonl', 'all.jsonl']
    """
    # Not resolved: people know a link by its own name.
    parts = {path: path.absolute().parts for path in paths}
    return {path: _shortest(own, set(parts.values()) - {own}) for path, own in parts.items()}


def _shortest(own: tuple[str, ...], others: set[tuple[str, ...]]) -> str:
    for count in range(1, len(own)):
        end = own[-count:]
        if not any(other[-count:] == end for other in others):
            return "/".join(end)
    return str(Path(*own))
