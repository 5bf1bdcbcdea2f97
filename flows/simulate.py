"""Scheduling policies × predictors, simulated on the workflows of run logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolTypes
from malearn.learning import dataset_workflows, maze_traces, policy_comparison, traces
from malearn.learning.policy_comparison import Comparison, Settings
from malearn.learning.traces import Traces

__all__ = ["read", "simulate"]


def read(
    files: Sequence[Path],
    definitions: Path | None,
    maze: Sequence[Path],
    types: ToolTypes,
    home: Home | None = None,
) -> Traces:
    """The workflows in `files`, each a run of its own, in the Maze stores `maze`, and in the
    datasets of `home`, in the order in which they began. A workflow that is in several of these
    counts once.

    Raises `InputError`.
    """
    found: list[Traces] = []
    if files:
        found.append(traces.read(files, definitions, types))
    if maze:
        found.append(maze_traces.read(maze, types))
    if home is not None:
        found.append(dataset_workflows.read(home, types))
    skipped = Counter[str]()
    for one in found:
        skipped.update(one.skipped)
    # First: what is left out is counted.
    ordered = traces.in_time((run for one in found for run in one.runs), skipped)
    return Traces(ordered, dict(skipped))


def simulate(
    found: Traces,
    settings: Settings,
    types: ToolTypes,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Every policy with every predictor, each knowing only what had ended in its simulation."""
    return policy_comparison.compare(found.runs, types, settings, progress)
