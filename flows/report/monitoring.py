"""The models in Production: how well they predict, and what was done about it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from malearn.flows.report import tables

if TYPE_CHECKING:
    from malearn.data.dataset import Dataset
    from malearn.flows.monitor import MonitorOutcome
    from malearn.kernel.home import Home
    from malearn.lifecycle.live import LiveAccuracy
    from malearn.lifecycle.registry import Version

__all__ = ["monitored", "show_monitored", "show_status", "status"]


def monitored(watched: Mapping[str, MonitorOutcome]) -> dict[str, Any]:
    """Per tool type: what a check found, what was decided and why, and what is in Production."""
    return {
        name: {
            "production": one.production,
            "action": one.report.decision.action.value,
            "reasons": list(one.report.decision.reasons),
            "rows": one.report.rows,
            "scores": {who: s.as_dict() for who, s in one.report.scores.items()},
            "live": [_live(seen) for seen in one.report.live],
            "fallback_share": one.report.fallback,
            "drift": {d.name: asdict(d) for d in one.report.drifts},
            "moved_by_hand": asdict(one.manual) if one.manual else None,
            "retrained": one.retrained,
        }
        for name, one in watched.items()
    }


def status(home: Home) -> dict[str, Any]:
    """Per tool type: the version in Production, how it performs, other versions. Needs MLflow.

    `age` of a version is in seconds since it was registered, errors are in seconds.
    """
    from malearn.data import execution_window
    from malearn.data.dataset import Dataset
    from malearn.kernel import generic
    from malearn.lifecycle import live, registry

    result = {}
    types = generic.declared(home)
    # One query for all: one for each would take seconds with many tool types.
    aliases = registry.with_aliases(types.values())
    for name, tool_type in types.items():
        named, dataset = aliases[name], Dataset.open(home, tool_type)
        production = named.get(registry.PRODUCTION)
        executions = dataset.newest(execution_window.TAIL)
        versions = {one.version: one for one in live.score_live(executions, types)}
        serving = versions.get(production.number) if production else None
        result[name] = {
            "rows": dataset.rows,
            "production": _version(production),
            "previous": _version(named.get(registry.PREVIOUS)),
            "candidate": _version(named.get(registry.CANDIDATE)),
            "rows_since": _rows_since(dataset, production),
            "live": _live(serving) if serving else None,
            "fallback_share": live.fallback_share(executions),
        }
    return result


def show_monitored(watched: Mapping[str, MonitorOutcome]) -> None:
    """Print the decision per tool type, its reasons, and all scores."""
    console = tables.console()
    for name, one in watched.items():
        serving = f"Production: {f'version {one.production}' if one.production else 'none'}"
        tables.line(console, f"{name}: {one.report.decision.action.value}, {serving}", "bold")
        for reason in (*one.report.decision.reasons, *([one.retrained] if one.retrained else [])):
            tables.line(console, f"  {reason}")
        if one.report.scores:
            table = tables.table("  same executions", "MAE, s", "median error", "pairwise accuracy")
            ranked = sorted(one.report.scores.items(), key=lambda item: item[1].mae)
            shown = tables.decimals(s.mae for _, s in ranked)
            for who, s in ranked:
                shares = f"{s.median_ape:.0%}", f"{s.pairwise_accuracy:.0%}"
                table.add_row(f"  {who}", shown(s.mae), *shares)
            console.print(table)
        console.print()


def show_status(rows: Mapping[str, Any]) -> None:
    """Print one line per tool type."""
    console = tables.console()
    table = tables.table(
        "tool type", "Production", "age", "rows", "since", "live MAE, s", "baseline, s", "no model",
        "Previous", "Candidate",
    )  # fmt: skip
    every = [row["live"] for row in rows.values() if row["live"]]
    shown = tables.decimals(
        error for live in every for error in (live["mae"], live["baseline_mae"])
    )
    for name, row in rows.items():
        production, live, share = row["production"], row["live"], row["fallback_share"]
        table.add_row(
            name,
            _short(production),
            tables.age(production["age"]) if production else "–",
            f"{row['rows']:,}",
            f"{row['rows_since']:,}",
            shown(live["mae"]) if live else "–",
            shown(live["baseline_mae"]) if live else "–",
            "–" if share is None else f"{share:.0%}",
            _short(row["previous"]),
            _short(row["candidate"]),
        )
    console.print(table)
    if every:
        tables.line(
            console,
            "\nlive: the newest predictions of the version in Production; baseline: the best one "
            "on the same tasks; no model: the share of newest predictions made without a model.",
            "dim",
        )


def _live(seen: LiveAccuracy) -> dict[str, Any]:
    """A version's recorded predictions and the best baseline's, on the same executions."""
    best = min(seen.baselines, key=lambda name: seen.baselines[name].mae)
    return {
        "version": seen.version,
        "n": seen.scores.n,
        "mae": seen.scores.mae,
        "median_ape": seen.scores.median_ape,
        "pairwise_accuracy": seen.scores.pairwise_accuracy,
        "coverage": seen.coverage,
        "baseline": best,
        "baseline_mae": seen.baselines[best].mae,
    }


def _rows_since(dataset: Dataset, production: Version | None) -> int:
    """The executions that came in after those that `production` was trained on."""
    if production is None:
        return dataset.rows
    trained_with = production.tags.get("malearn.dataset_version", "")
    if trained_with.isdigit():
        # Retention may have deleted some of those that were added.
        return min(dataset.rows, dataset.rows_added_since(int(trained_with)))
    # A version without that tag has at least the number of rows it was trained on.
    return dataset.rows - int(production.tags.get("malearn.rows", 0))


def _version(found: Version | None) -> dict[str, Any] | None:
    if found is None:
        return None
    # MLflow's clock may be ahead of this one.
    age = max(0.0, time.time() - found.created)
    return {
        "version": found.number,
        "family": found.family,
        "created": found.created,
        "age": age,
    }


def _short(version: Mapping[str, Any] | None) -> str:
    return f"{version['version']} {version['family']}" if version else "–"
