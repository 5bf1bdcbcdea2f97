"""What the commands print: the same results as JSON values and as tables."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from malearn.learning.gate import Reason

if TYPE_CHECKING:
    from malearn.data.dataset import Commit
    from malearn.data.ingest import IngestReport
    from malearn.data.maintenance import Maintained
    from malearn.data.quarantine import Overview, Readmitted
    from malearn.flows.monitor import Watched
    from malearn.flows.retrain import Outcome
    from malearn.flows.run import Answer, Report
    from malearn.kernel.home import Home
    from malearn.learning.evaluation import Evaluation
    from malearn.lifecycle.monitoring import Live
    from malearn.lifecycle.promotion import Promoted
    from malearn.lifecycle.registry import Version
    from malearn.lifecycle.training import Trained

__all__ = [
    "ingested",
    "monitored",
    "promoted",
    "quarantined",
    "show_evaluation",
    "show_history",
    "show_ingested",
    "show_maintained",
    "show_monitored",
    "show_promoted",
    "show_quarantined",
    "show_readmitted",
    "show_run",
    "show_status",
    "show_trained",
    "status",
    "trained",
]

#: Columns of output that goes to no terminal.
_PIPED = 100
#: Expectations or functions that are named for a reason; characters of a record that are shown.
_CAUSES, _SHOWN = 8, 300
#: What a predictor's `source` is called here.
_SOURCES = {"function_history": "history", "tool_history": "tool history"}


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
            "evolved": list(r.evolved),
            "scores": {name: s.as_dict() for name, s in (r.scores or {}).items()},
        }
        for r in results
    }


def promoted(result: Promoted) -> dict[str, Any]:
    """Whether the version serves now, and why."""
    return {**asdict(result), "reasons": [asdict(reason) for reason in result.reasons]}


def quarantined(found: Overview) -> dict[str, Any]:
    """Counts by reason and cause, and the newest records as they were kept."""
    return {
        "count": found.count,
        "reasons": {group.reason.value: group.count for group in found.groups},
        "by": {group.reason.value: dict(group.by) for group in found.groups},
        "newest": [
            {
                "task_id": refusal.rejected.task_id,
                "function": refusal.rejected.function,
                "tool_type": refusal.tool_type,
                "reason": refusal.rejected.reason.value,
                "detail": refusal.rejected.detail,
                "source": refusal.source,
                "time": refusal.time,
                "record": refusal.rejected.record,
            }
            for refusal in found.newest
        ],
    }


def monitored(watched: Mapping[str, Watched]) -> dict[str, Any]:
    """Per tool type what a look saw, what it decided and why, and what serves now."""
    return {
        name: {
            "production": one.production,
            "action": one.look.verdict.action.value,
            "reasons": list(one.look.verdict.reasons),
            "rows": one.look.rows,
            "scores": {who: s.as_dict() for who, s in one.look.scores.items()},
            "live": [_live(seen) for seen in one.look.live],
            "fallback_share": one.look.fallback,
            "drift": {d.name: asdict(d) for d in one.look.drifts},
            "moved_by_hand": asdict(one.followed) if one.followed else None,
            "retrained": one.retrained,
        }
        for name, one in watched.items()
    }


def status(home: Home) -> dict[str, Any]:
    """Per tool type: what serves and how it does, what else there is. Needs MLflow.

    `age` of a version is in seconds since it was registered, errors are in seconds.
    """
    from malearn.data.dataset import Dataset
    from malearn.kernel import tool_types
    from malearn.lifecycle import monitoring, registry

    result = {}
    types = tool_types.declared()
    for name, tool_type in types.items():
        production = registry.by_alias(tool_type, registry.PRODUCTION)
        executions = Dataset.of(home, tool_type).read()
        live = {one.version: one for one in monitoring.live(executions, types)}
        serving = live.get(production.number) if production else None
        result[name] = {
            "rows": len(executions),
            "production": _version(production),
            "previous": _version(registry.by_alias(tool_type, registry.PREVIOUS)),
            "candidate": _version(registry.by_alias(tool_type, registry.CANDIDATE)),
            "rows_since": len(executions) - (_rows_of(production) if production else 0),
            "live": _live(serving) if serving else None,
            "fallback_share": monitoring.fallback_share(executions),
        }
    return result


def _live(seen: Live) -> dict[str, Any]:
    """A version's recorded predictions beside the best baseline's on the same executions."""
    best = min(seen.baselines, key=lambda name: seen.baselines[name].mae)
    return {
        "version": seen.version,
        **{key: getattr(seen.scores, key) for key in ("n", "mae", "median_ape", "order")},
        "coverage": seen.coverage,
        "baseline": best,
        "baseline_mae": seen.baselines[best].mae,
    }


def show_run(report: Report) -> None:
    """The main job's report."""
    console = _console()
    show_ingested(report.lifecycle.ingested, console)
    _show_serving(report, console)
    for name, outcome in report.lifecycle.outcomes.items():
        _show_reasons(console, _verdict(name, outcome, report.answers[name]), outcome.reasons)
    _show(console, "To compare the runs in MLflow and watch the flows in Prefect:")
    _show(console, f"  malearn up --home {shlex.quote(str(report.home.root))}", "bold")


def show_ingested(report: IngestReport, console: Console | None = None) -> None:
    """What became of the records."""
    console = console or _console()
    _show(console, f"{report.records:,} records", "bold")
    table = _table("tool type", "accepted", "quarantined", "outliers", "dataset")
    for name, counts in report.tool_types.items():
        numbers = (counts.accepted, counts.quarantined, counts.outliers)
        version = "–" if counts.version is None else f"version {counts.version}"
        table.add_row(name, *(f"{n:,}" for n in numbers), version)
    if report.tool_types:
        console.print(table)
        console.print()
    if report.rejected:
        table = _table("rejected, because", "records")
        for reason, n in sorted(report.rejected.items(), key=lambda item: -item[1]):
            table.add_row(reason, f"{n:,}")
        console.print(table)
        console.print()
    for counts in report.tool_types.values():
        for sentence in counts.refused:
            _show(console, f"✗ {sentence}", "red")
    _show(
        console,
        f"{report.accepted:,} accepted + {report.accounted - report.accepted:,} kept out "
        f"= {report.accounted:,} of {report.records:,}.\n",
    )


def show_trained(results: Sequence[Trained]) -> None:
    """Everyone's scores per tool type, and the gate's word."""
    console = _console()
    for result in results:
        if result.scores:
            _show(console, f"{result.tool_type}, version {result.version}", "bold")
            table = _table("predictor", "MAE, s", "median error", "order", "R²")
            ranked = sorted(result.scores.items(), key=lambda item: item[1].mae)
            own = result.decision.candidate if result.decision else None
            shown = _decimals(score.mae for _, score in ranked)
            for name, s in ranked:
                table.add_row(
                    f"{name} ←" if name == own else name,
                    shown(s.mae),
                    f"{s.median_ape:.0%}",
                    f"{s.order:.0%}",
                    f"{s.r2:.2f}",
                )
            console.print(table)
        decision = result.decision
        verdict = "is fit to serve" if decision and decision.promote else "is not fit to serve"
        reasons = decision.reasons if decision else (Reason("rows", False, result.why),)
        _show_reasons(console, f"{result.tool_type} {verdict}", reasons)
        for sentence in result.evolved:
            _show(console, f"{result.tool_type}: {sentence}.", "yellow")


def show_promoted(result: Promoted) -> None:
    """The verdict, and all that was looked at."""
    verdict = "serves now" if result.promoted else "does not serve"
    title = f"{result.tool_type} version {result.version} {verdict}"
    _show_reasons(_console(), title, result.reasons)


def show_status(rows: Mapping[str, Any]) -> None:
    """One line a tool type."""
    console = _console()
    table = _table(
        "tool type", "Production", "age", "rows", "since", "live MAE, s", "baseline, s", "no model",
        "Previous", "Candidate",
    )  # fmt: skip
    every = [row["live"] for row in rows.values() if row["live"]]
    shown = _decimals(error for live in every for error in (live["mae"], live["baseline_mae"]))
    for name, row in rows.items():
        production, live, share = row["production"], row["live"], row["fallback_share"]
        table.add_row(
            name,
            _short(production),
            _age(production["age"]) if production else "–",
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
        _show(
            console,
            "\nlive: the newest answers that the version in Production gave; baseline: the best "
            "one on the same tasks; no model: the share of the newest answers that no model gave.",
            "dim",
        )


def show_monitored(watched: Mapping[str, Watched]) -> None:
    """The decision per tool type, why, and everyone's scores on what was judged."""
    console = _console()
    for name, one in watched.items():
        serving = f"version {one.production} serves" if one.production else "no version serves"
        _show(console, f"{name}: {one.look.verdict.action.value}, {serving}", "bold")
        for reason in (*one.look.verdict.reasons, *([one.retrained] if one.retrained else [])):
            _show(console, f"  {reason}")
        if one.look.scores:
            table = _table("  on the same executions", "MAE, s", "median error", "order")
            ranked = sorted(one.look.scores.items(), key=lambda item: item[1].mae)
            shown = _decimals(s.mae for _, s in ranked)
            for who, s in ranked:
                table.add_row(f"  {who}", shown(s.mae), f"{s.median_ape:.0%}", f"{s.order:.0%}")
            console.print(table)
        console.print()


def show_history(commits: Sequence[Commit]) -> None:
    """The versions of a dataset, as they are recorded."""
    table = _table("version", "time", "rows added", "removed", "operation")
    for commit in commits:
        when = f"{datetime.fromtimestamp(commit.time, UTC):%Y-%m-%d %H:%M:%S}"
        rows = (f"{commit.rows_added:,}", f"{commit.rows_removed:,}")
        table.add_row(str(commit.version), when, *rows, commit.operation)
    _console().print(table)


def show_maintained(done: Sequence[Maintained]) -> None:
    """What was let go, merged and removed, and what stays for models."""
    table = _table("table", "rows", "let go", "merged", "removed", "kept for models")
    for m in done:
        numbers = (m.rows, m.let_go, m.merged, m.removed)
        kept = ", ".join(f"v{version}" for version in m.kept) or "–"
        table.add_row(m.name, *(f"{n:,}" for n in numbers), kept)
    _console().print(table)


def show_quarantined(found: Overview) -> None:
    """How many were kept out for which reason and expectation, and the newest of them."""
    console = _console()
    _show(console, f"{found.count:,} kept out", "bold")
    if not found.count:
        return
    table = _table("because", "records")
    for group in found.groups:
        table.add_row(Text(group.reason.value, "bold"), f"{group.count:,}")
        for cause, n in list(group.by.items())[:_CAUSES]:
            table.add_row(Text(f"  {cause}"), f"{n:,}")
        if (more := len(group.by) - _CAUSES) > 0:
            table.add_row(Text(f"  and {more:,} others", "dim"), "")
    console.print(table)
    console.print()
    if found.newest:
        _show(console, "The newest", "bold")
    for refusal in found.newest:
        rejected = refusal.rejected
        when = f"{datetime.fromtimestamp(refusal.time or 0.0, UTC):%Y-%m-%d %H:%M:%S}"
        _show(console, f"{when}  {rejected.task_id or refusal.source}")
        _show(console, f"  {rejected.reason.value}: {rejected.detail}")
        _show(console, f"  {_cut(rejected.record)}", "dim")


def show_readmitted(done: Readmitted) -> None:
    """What came of judging the quarantine anew."""
    console = _console()
    table = _table("judged anew", "records")
    for name, n in done.accepted.items():
        table.add_row(f"accepted, {name}", f"{n:,}")
    others = {
        "in their dataset already": done.known,
        "beyond the limits of retention": done.expired,
        **{f"still kept out, {reason}": n for reason, n in done.still.items()},
        "unreadable: too little was kept": done.unreadable,
    }
    for what, n in others.items():
        if n:
            table.add_row(what, f"{n:,}")
    table.add_row("all", f"{done.judged:,}")
    console.print(table)
    if done.settled:
        _show(
            console,
            f"{done.settled:,} others were kept out for their own form, which no declaration "
            "changes.",
            "dim",
        )


def show_evaluation(evaluation: Evaluation) -> None:
    """Everyone's errors per tool type, and the order of all pairs."""
    console = _console()
    for tool_type in evaluation.tool_types:
        _show(console, f"{tool_type}, {len(evaluation.rows(tool_type)):,} tasks", "bold")
        table = _table("predictor", "MAE, s", "median error", "R²", "within interval")
        ranked = sorted(evaluation.scores(tool_type).items(), key=lambda item: item[1].mae)
        shown = _decimals(s.mae for _, s in ranked)
        for name, s in ranked:
            ours = name == evaluation.own
            table.add_row(
                f"{name} ←" if ours else name,
                shown(s.mae),
                f"{s.median_ape:.0%}",
                f"{s.r2:.2f}",
                f"{evaluation.coverage(tool_type):.0%}" if ours else "–",
            )
        console.print(table)
        console.print()
    _show(console, "Pairs within a run, in the right order", "bold")
    table = _table("predictor", "share")
    for name, share in sorted(evaluation.order().items(), key=lambda item: -item[1]):
        table.add_row(f"{name} ←" if name == evaluation.own else name, f"{share:.1%}")
    console.print(table)


def _show_serving(report: Report, console: Console) -> None:
    """What answers now for each tool type, and how good it was on the newest rows."""
    _show(console, "What serves now, and its mean error on the newest tasks", "bold")
    table = _table("tool type", "Production", "MAE, s", "median, s", "15/3/1, s", "from", "call")
    every = {name: _errors(outcome) for name, outcome in report.lifecycle.outcomes.items()}
    shown = _decimals(e for errors in every.values() for e in errors if e is not None)
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
    _show(
        console,
        "MAE is the best model's; median the function's own so far; 15/3/1 s for gpu, cpu, io.\n",
        "dim",
    )


def _errors(outcome: Outcome) -> tuple[float | None, float | None, float | None]:
    """Mean absolute errors, in seconds, on the same rows: own, function median, heuristic."""
    scores, decision = outcome.trained.scores or {}, outcome.trained.decision
    own, median, heuristic = (
        scores[name].mae if name in scores else None
        for name in (decision.candidate if decision else "", "function_median", "heuristic")
    )
    return own, median, heuristic


def _verdict(name: str, outcome: Outcome, answer: Answer) -> str:
    new, serving = outcome.trained.version, outcome.production
    if serving is not None and serving == new:
        return f"{name}: version {serving}, {outcome.family}, serves"
    if serving is not None:
        return f"{name}: version {serving}, {outcome.family}, goes on serving"
    instead = {
        "function_history": "what the function took lately",
        "tool_history": "what the tool type took lately",
    }.get(answer.source, "the 15/3/1 s heuristic")
    return f"{name}: no model serves yet, answers come from {instead}"


def _show_reasons(console: Console, title: str, reasons: Iterable[Reason]) -> None:
    """`title` and one line a reason, those that failed first."""
    _show(console, title, "bold")
    for reason in sorted(reasons, key=lambda reason: reason.passed):
        mark, style = ("✓", "green") if reason.passed else ("✗", "red")
        lines = Text(reason.detail).wrap(console, max(20, console.width - 4))
        for number, line in enumerate(lines):
            line.rstrip()
            head = Text(f"  {mark} ", style) if number == 0 else Text("    ")
            console.print(head + line, soft_wrap=True)
    console.print()


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _decimals(numbers: Iterable[float]) -> Callable[[float], str]:
    """One way to write all of them, so that their points stand below each other."""
    least = min((n for n in numbers if n > 0.0), default=1.0)
    digits = 1 if least >= 1.0 else 2 if least >= 0.1 else 3
    return lambda number: f"{number:,.{digits}f}"


def _console() -> Console:
    """stdout: as wide as the terminal, and wide enough for any table elsewhere."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPED)


def _show(console: Console, line: str, style: str = "") -> None:
    console.print(Text(line, style), soft_wrap=True)


def _table(first: str, *others: str) -> Table:
    """Numbers to the right; the name is never cut."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first, no_wrap=True, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _rows_of(version: Version) -> int:
    """How many it was trained on; 0 for one that somebody else registered."""
    return int(version.tags.get("malearn.data.rows", 0))


def _version(found: Version | None) -> dict[str, Any] | None:
    if found is None:
        return None
    age = max(0.0, time.time() - found.created)
    return {
        "version": found.number,
        "family": found.family,
        "created": found.created,
        "age": age,
    }


def _age(seconds: float) -> str:
    """In the unit that a person would choose."""
    for unit, length in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def _short(version: Mapping[str, Any] | None) -> str:
    return f"{version['version']} {version['family']}" if version else "–"
