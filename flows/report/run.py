"""The report of the main job."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from malearn.flows.report import ingestion, tables

if TYPE_CHECKING:
    from rich.console import Console

    from malearn.flows.retrain import RetrainOutcome
    from malearn.flows.run import PredictorAnswer, Report

__all__ = ["show_run"]

#: How the report names where an answer came from.
_SOURCES = {"function_history": "history", "tool_history": "tool history"}


def show_run(report: Report) -> None:
    """Print the report of the main job."""
    console = tables.console()
    ingestion.show_ingested(report.lifecycle.ingested, console)
    _show_serving(report, console)
    for name, outcome in report.lifecycle.outcomes.items():
        tables.reasons(console, _verdict(name, outcome, report.answers[name]), outcome.reasons)
    tables.line(console, "To compare the runs in MLflow and watch the flows in Prefect:")
    tables.line(console, f"  malearn up --home {shlex.quote(str(report.home.root))}", "bold")


def _show_serving(report: Report, console: Console) -> None:
    """Print what predicts each tool type now, and its error on the test window."""
    tables.line(console, "In Production now, with mean absolute errors on the test window", "bold")
    table = tables.table(
        "tool type", "Production", "MAE, s", "median, s", "15/3/1, s", "from", "call"
    )
    every = {name: _errors(outcome) for name, outcome in report.lifecycle.outcomes.items()}
    shown = tables.decimals(e for errors in every.values() for e in errors if e is not None)
    for name, outcome in report.lifecycle.outcomes.items():
        answer = report.answers[name]
        table.add_row(
            name,
            f"v{outcome.production} {outcome.family}" if outcome.production else "–",
            *("–" if error is None else shown(error) for error in every[name]),
            _SOURCES.get(answer.source, answer.source),
            f"{answer.latency * 1e6:.0f} µs",
        )
    console.print(table)
    tables.line(
        console,
        "MAE: the best candidate; median: the function's running median; default: the static "
        "default (15/3/1 s for gpu/cpu/io unless declared).\n",
        "dim",
    )


def _errors(outcome: RetrainOutcome) -> tuple[float | None, float | None, float | None]:
    """Mean absolute errors, in seconds, on the same rows: own, function median, heuristic."""
    scores, decision = outcome.trained.scores or {}, outcome.trained.decision
    # A baseline may be missing: none is scored where nothing was trained.
    own, median, heuristic = (
        scores[name].mae if name in scores else None
        for name in (decision.candidate if decision else "", "function_median", "heuristic")
    )
    return own, median, heuristic


def _verdict(name: str, outcome: RetrainOutcome, answer: PredictorAnswer) -> str:
    new, serving = outcome.trained.version, outcome.production
    if serving is not None and serving == new:
        return f"{name}: version {serving}, {outcome.family}, was promoted"
    if serving is not None:
        return f"{name}: version {serving}, {outcome.family}, stays in Production"
    instead = {
        "function_history": "the function's recent durations",
        "tool_history": "the tool type's recent durations",
    }.get(answer.source, "the static default")
    return f"{name}: no version is in Production yet, predictions are {instead}"
