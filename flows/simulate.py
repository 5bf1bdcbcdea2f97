"""Scheduling policies × predictors, simulated on the workflows of run logs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from malearn.kernel import tool_types
from malearn.learning import policy_comparison, traces
from malearn.learning.policy_comparison import Comparison, Settings
from malearn.learning.traces import Traces

__all__ = ["read", "simulate"]


def read(files: Sequence[Path], definitions: Path | None) -> Traces:
    """The workflows in `files`, each a run of its own; raises `InputError`."""
    return traces.read(files, definitions)


def simulate(
    found: Traces,
    settings: Settings,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Every policy with every predictor, each knowing only what had ended in its simulation."""
    return policy_comparison.compare(found.runs, tool_types.declared(), settings, progress)
