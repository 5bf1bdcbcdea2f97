"""One measured figure beside its target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Figure", "at_least", "at_most", "table"]


@dataclass(frozen=True, slots=True)
class Figure:
    """`value` and `target` are in `unit`; `met` says whether the target is reached."""

    figure: str
    value: float
    unit: str
    target: float
    met: bool


def at_most(figure: str, value: float, unit: str, target: float) -> Figure:
    """A figure that is good when small."""
    return Figure(figure, value, unit, target, value <= target)


def at_least(figure: str, value: float, unit: str, target: float) -> Figure:
    """A figure that is good when large."""
    return Figure(figure, value, unit, target, value >= target)


def table(figures: Iterable[Figure]) -> str:
    """Figures as lines of text."""
    return "\n".join(
        f"{'ok  ' if f.met else 'MISS'} {_number(f.value):>12} {f.unit:<12} "
        f"target {_number(f.target):>9}  {f.figure}"
        for f in figures
    )


def _number(value: float) -> str:
    return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"
