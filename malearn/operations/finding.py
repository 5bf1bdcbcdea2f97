"""One line of `malearn doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level"]

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked: `subject`, how it is, and a sentence about it."""

    subject: str
    level: Level
    detail: str
