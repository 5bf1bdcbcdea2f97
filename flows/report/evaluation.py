"""The scores of a replay, per tool type and predictor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from malearn.flows.report import tables
from malearn.kernel import text

if TYPE_CHECKING:
    from rich.table import Table

    from malearn.learning.evaluation import Evaluation

__all__ = ["show_evaluation"]


def show_evaluation(evaluation: Evaluation) -> None:
    """Print errors per tool type and predictor, and the pairwise ranking accuracy."""
    console = tables.console()
    for tool_type in evaluation.tool_types:
        tables.line(
            console, f"{tool_type}, {text.counted(len(evaluation.rows(tool_type)), 'task')}", "bold"
        )
        table = tables.table("predictor", "MAE, s", "median error", "R²", "within interval")
        # Best first, so that a reader sees what malearn is behind or ahead of.
        ranked = sorted(evaluation.scores(tool_type).items(), key=lambda item: item[1].mae)
        shown = tables.decimals(s.mae for _, s in ranked)
        for name, s in ranked:
            ours = name == evaluation.own
            table.add_row(
                f"{name} ←" if ours else name,
                shown(s.mae),
                f"{s.median_ape:.0%}",
                f"{s.r2:.2f}",
                # Baselines give no interval.
                f"{evaluation.coverage(tool_type):.0%}" if ours else "–",
            )
        console.print(table)
        console.print(_states(evaluation, tool_type))
        console.print()
    tables.line(console, "Pairwise ranking accuracy, within a run", "bold")
    table = tables.table("predictor", "share")
    for name, share in sorted(evaluation.order().items(), key=lambda item: -item[1]):
        table.add_row(f"{name} ←" if name == evaluation.own else name, f"{share:.1%}")
    console.print(table)


def _states(evaluation: Evaluation, tool_type: str) -> Table:
    """Our errors and intervals by what the answers stood on."""
    table = tables.table("state", "tasks", "MAE, s", "within interval", "below", "above")
    states = evaluation.by_state(tool_type)
    shown = tables.decimals(found.mae for found in states.values())
    for state, found in states.items():
        shares = (found.coverage, found.below, found.above)
        table.add_row(
            state.replace("_", " "),
            f"{found.n:,}",
            shown(found.mae),
            *(f"{share:.0%}" for share in shares),
        )
    return table
