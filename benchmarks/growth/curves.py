"""Curves of what grows, drawn into `benchmarks/growth-NAME.png`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["draw"]

#: By label, the value at each size.
Curves = Mapping[str, Mapping[int, float]]


def draw(name: str, against: str, panels: Mapping[str, Curves]) -> Path:
    """One panel for each of `panels`, a line for each label in it."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(1.0 + 4.0 * len(panels), 3.8), layout="constrained")
    plots: Sequence[object] = page.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, lines) in zip(plots, panels.items(), strict=True):
        for label, values in lines.items():
            axes.plot(list(values), list(values.values()), "o-", label=label)  # type: ignore[attr-defined]
        axes.set(xscale="log", xlabel=against, title=title)  # type: ignore[attr-defined]
        highest = max(value for values in lines.values() for value in values.values())
        axes.set_ylim(0.0, 1.15 * highest)  # type: ignore[attr-defined]
        axes.legend(loc="lower right")  # type: ignore[attr-defined]
    file = Path(__file__).parents[1] / f"growth-{name}.png"
    page.savefig(file, dpi=110)
    return file
