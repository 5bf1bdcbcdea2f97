"""The candidates that were trained, and every check of the promotion gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from malearn.flows.report import tables
from malearn.kernel import text
from malearn.learning.gate import GateCheck

if TYPE_CHECKING:
    from malearn.learning.tuning import Found
    from malearn.lifecycle.promotion import Promoted
    from malearn.lifecycle.training import Trained

__all__ = ["found", "promoted", "show_found", "show_promoted", "show_trained", "trained"]


def trained(results: Sequence[Trained], promotions: Sequence[Promoted] = ()) -> dict[str, Any]:
    """Per tool type the version registered, or why there is none, and whether it was promoted."""
    serving = {p.tool_type for p in promotions if p.promoted}
    return {
        r.tool_type: {
            "rows": r.rows,
            "version": r.version,
            "family": r.family,
            "promote": r.passes,
            "promoted": r.tool_type in serving,
            "why": r.why,
            "schema_changes": list(r.schema_changes),
            "failed": dict(r.failed),
            "limits": r.limits,
            "found": [found(one) for one in r.found],
            "scores": {name: s.as_dict() for name, s in (r.scores or {}).items()},
        }
        for r in results
    }


def found(one: Found) -> dict[str, Any]:
    """What a search came to: the best hyper-parameters, and errors on the validation window."""
    return {
        "family": one.family,
        "parameters": dict(one.parameters),
        "validation_mae": one.error,
        "declared_validation_mae": one.declared_error,
        "validation_rows": one.rows,
        "trials": one.trials,
        "better": one.better,
    }


def show_found(tool_type: str, results: Sequence[Found]) -> None:
    """Print what searches found, and whether it is better than what is declared."""
    console = tables.console()
    for one in results:
        trials = text.counted(one.trials, "trial")
        verdict = (
            f"MAE {one.error:.3g} s after {trials}, declared {one.declared_error:.3g} s"
            if one.better
            else f"nothing better than the declared ones in {trials} "
            f"(MAE {one.declared_error:.3g} s)"
        )
        title = (
            f"{tool_type}, {one.family}: {verdict}, on {text.counted(one.rows, 'validation row')}"
        )
        tables.line(console, title, "bold")
        if one.better:
            for name, value in one.parameters.items():
                tables.line(console, f"  {name} = {value}")


def promoted(result: Promoted) -> dict[str, Any]:
    """Whether the version was promoted, and every check."""
    return {**asdict(result), "reasons": [asdict(reason) for reason in result.reasons]}


def show_trained(results: Sequence[Trained], promotions: Sequence[Promoted] = ()) -> None:
    """Print all scores per tool type, the gate's decision, and what to do next."""
    console = tables.console()
    for result in results:
        show_found(result.tool_type, result.found)
        if result.scores:
            tables.line(console, f"{result.tool_type}, version {result.version}", "bold")
            table = tables.table("predictor", "MAE, s", "median error", "pairwise accuracy", "R²")
            # By error, so that a reader sees at once which competitor the candidate must beat.
            ranked = sorted(result.scores.items(), key=lambda item: item[1].mae)
            own = result.decision.candidate if result.decision else None
            shown = tables.decimals(score.mae for _, score in ranked)
            for name, s in ranked:
                table.add_row(
                    f"{name} ←" if name == own else name,
                    shown(s.mae),
                    f"{s.median_ape:.0%}",
                    f"{s.pairwise_accuracy:.0%}",
                    f"{s.r2:.2f}",
                )
            console.print(table)
        decision = result.decision
        verdict = "passes the gate" if result.passes else "does not pass the gate"
        # Nothing was trained: the reason stands where the gate's checks would.
        reasons = decision.reasons if decision else (GateCheck("rows", False, result.why),)
        tables.reasons(console, f"{result.tool_type} {verdict}", reasons)
        for reason in result.failed.values():
            tables.line(console, f"{result.tool_type}: {reason}", "yellow")
        for sentence in result.schema_changes:
            tables.line(console, f"{result.tool_type}: {sentence}.", "yellow")
    for promotion in promotions:
        show_promoted(promotion)
    done = {promotion.tool_type for promotion in promotions}
    for result in results:
        if result.tool_type not in done:
            tables.line(console, _next_step(result))


def _next_step(result: Trained) -> str:
    """What a person may do after a training that promoted nothing."""
    name, version = result.tool_type, result.version
    if version is None:
        return f"Next: ingest more logs of {name}, then `malearn train {name}` again."
    if result.passes:
        return f"Next: `malearn promote {name}` puts version {version} into Production."
    return (
        f"Next: {name} stays as it is until a version passes; `malearn promote {name} {version}` "
        "would promote this one over the gate."
    )


def show_promoted(result: Promoted) -> None:
    """Print the decision and every check."""
    verdict = "is in Production" if result.promoted else "was not promoted"
    title = f"{result.tool_type} version {result.version} {verdict}"
    tables.reasons(tables.console(), title, result.reasons)
