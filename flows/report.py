"""What the commands print: the same results as JSON values and as tables."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from malearn import registry, tool_types
from malearn.dataset import Commit, Dataset
from malearn.home import Home
from malearn.ingest import IngestReport
from malearn.promotion import Promoted
from malearn.training import Trained

if TYPE_CHECKING:
    from flows.run import Report

__all__ = [
    "ingested",
    "promoted",
    "show_history",
    "show_ingested",
    "show_promoted",
    "show_run",
    "show_status",
    "show_trained",
    "status",
    "trained",
]


def ingested(report: IngestReport) -> dict[str, Any]:
    """Counts that add up to `records`."""
    return {
        "records": report.records,
        "rejected": dict(report.rejected),
        "tool_types": {
            name: {
                "accepted": counts.accepted,
                "quarantined": counts.quarantined,
                "outliers": counts.outliers,
                "version": counts.version,
            }
            for name, counts in report.tool_types.items()
        },
    }


def trained(results: Sequence[Trained]) -> dict[str, Any]:
    """Per tool type the version registered, or why there is none."""
    return {
        r.tool_type: {
            "rows": r.rows,
            "version": r.version,
            "family": r.family,
            "promote": r.decision.promote if r.decision else False,
            "why": r.why,
            "scores": {name: s.as_dict() for name, s in (r.scores or {}).items()},
        }
        for r in results
    }


def promoted(result: Promoted) -> dict[str, Any]:
    """Whether the version serves now, and why."""
    return asdict(result)


def status(home: Home) -> dict[str, Any]:
    """Per tool type: rows in the dataset, what serves, what else there is. Needs MLflow."""
    result = {}
    for name, tool_type in tool_types.declared().items():
        production = registry.by_alias(tool_type, registry.PRODUCTION)
        dataset = Dataset.of(home, tool_type)
        rows = dataset.rows if dataset.version is not None else 0
        result[name] = {
            "rows": rows,
            "production": _version(production),
            "previous": _version(registry.by_alias(tool_type, registry.PREVIOUS)),
            "candidate": _version(registry.by_alias(tool_type, registry.CANDIDATE)),
            "rows_since": rows - int(production.tags["malearn.rows"]) if production else rows,
        }
    return result


def show_run(report: Report) -> None:
    """The main job's report."""
    console = Console()
    ingest = report.lifecycle.ingested
    show_ingested(ingest, console)
    table = _table("What serves now", "tool type", "Production", "MAE, s", "", "", "answers from")
    table.columns[3].header, table.columns[4].header = "function median", "15/3/1 s"
    table.add_column("a call takes", justify="right")
    for name, outcome in report.lifecycle.outcomes.items():
        answer = report.answers[name]
        scores = outcome.trained.scores or {}
        own = scores.get(outcome.trained.family or "")
        table.add_row(
            name,
            f"version {outcome.production}, {outcome.family}" if outcome.production else "none",
            f"{own.mae:.3g}" if own else "–",
            *(
                f"{scores[rival].mae:.3g}" if rival in scores else "–"
                for rival in ("function_median", "heuristic")
            ),
            answer.source.replace("_", " "),
            f"{answer.latency * 1e6:.0f} µs",
        )
    console.print(table)
    for name, outcome in report.lifecycle.outcomes.items():
        console.print(f"[bold]{name}[/]: {outcome.why}.", highlight=False)
        if not outcome.production:
            source = report.answers[name].source.replace("_", " ")
            console.print(f"  Served instead: {source}.", highlight=False)
    console.print(
        f"\nCompare the runs in MLflow, look at the flows in Prefect: "
        f"[bold]malearn up --home {report.home.root}[/]",
        highlight=False,
        soft_wrap=True,
    )


def show_ingested(report: IngestReport, console: Console | None = None) -> None:
    """What became of the records."""
    console = console or Console()
    table = _table(
        f"{report.records:,} records", "tool type", "accepted", "quarantined", "outliers", "dataset"
    )
    for name, counts in report.tool_types.items():
        version = "–" if counts.version is None else f"version {counts.version}"
        table.add_row(
            name, str(counts.accepted), str(counts.quarantined), str(counts.outliers), version
        )
    console.print(table)
    for counts in report.tool_types.values():
        for sentence in counts.refused:
            console.print(f"[red]refused[/] {sentence}", highlight=False)
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in report.rejected.items()) or "none"
    console.print(f"Rejected: {reasons}.", highlight=False)
    console.print(
        f"{report.accepted:,} accepted and {report.accounted - report.accepted:,} kept out "
        f"make {report.accounted:,} of {report.records:,}.\n",
        highlight=False,
    )


def show_trained(results: Sequence[Trained]) -> None:
    """Everyone's scores per tool type, and the gate's word."""
    console = Console()
    for result in results:
        if result.scores:
            title = f"{result.tool_type}, version {result.version}"
            table = _table(title, "predictor", "MAE, s", "median error", "order", "R²")
            for name, s in sorted(result.scores.items(), key=lambda item: item[1].mae):
                table.add_row(
                    f"[bold]{name}[/]" if name == result.family else name,
                    f"{s.mae:.3g}",
                    f"{s.median_ape:.0%}",
                    f"{s.order:.0%}",
                    f"{s.r2:.2f}",
                )
            console.print(table)
        verdict = "fit to serve" if result.decision and result.decision.promote else "not promoted"
        console.print(f"[bold]{result.tool_type}[/] {verdict}: {result.why}.\n", highlight=False)


def show_promoted(result: Promoted) -> None:
    """One line."""
    verdict = "serves now" if result.promoted else "does not serve"
    print(f"{result.tool_type} version {result.version} {verdict}: {result.why}.")


def show_status(rows: Mapping[str, Any]) -> None:
    """One line a tool type."""
    table = _table("", "tool type", "rows", "Production", "age", "rows since", "Previous", "Candidate")
    for name, row in rows.items():
        production = row["production"]
        table.add_row(
            name,
            str(row["rows"]),
            _short(production),
            f"{(time.time() - production['created']) / 3600:.1f} h" if production else "–",
            str(row["rows_since"]),
            _short(row["previous"]),
            _short(row["candidate"]),
        )
    Console().print(table)


def show_history(commits: Sequence[Commit]) -> None:
    """The versions of a dataset, as they are recorded."""
    table = _table("", "version", "time", "rows added", "operation")
    for commit in commits:
        table.add_row(*(str(getattr(commit, key)) for key in ("version", "time", "added", "operation")))
    Console().print(table)


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _version(found: registry.Version | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"version": found.number, "family": found.family, "created": found.created}


def _short(version: Mapping[str, Any] | None) -> str:
    return f"{version['version']} {version['family']}" if version else "–"
