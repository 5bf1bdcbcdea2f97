"""An empty figure with its title, in the look that all plots share."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["INK", "titled"]

#: The colour of what is written.
INK = "#222222"


def titled(title: str, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """A figure of `size`, in inches, and its only axes."""
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes = figure.add_subplot()
    # Left of the labels too: a long title of a chart of bars would leave the picture.
    figure.suptitle(title, fontsize=13, color=INK, x=0.01, ha="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
