"""The rows kept out of the datasets, and the result of validating them again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.text import Text

from malearn.flows.report import tables
from malearn.kernel import text

if TYPE_CHECKING:
    from malearn.data.quarantine import Overview, RetryReport

__all__ = ["quarantined", "show_quarantined", "show_revalidated"]

#: Expectations or functions named per reason; characters shown of a record.
_CAUSES, _SHOWN = 8, 300


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


def show_quarantined(found: Overview) -> None:
    """Print counts by reason and cause, and the newest rows."""
    console = tables.console()
    tables.line(console, f"{found.count:,} kept out", "bold")
    if not found.count:
        return
    table = tables.table("reason", "records")
    for group in found.groups:
        table.add_row(Text(group.reason.value, "bold"), f"{group.count:,}")
        for cause, n in list(group.by.items())[:_CAUSES]:
            # Text, not markup: a cause quotes what records hold.
            table.add_row(Text(f"  {cause}"), f"{n:,}")
        if (more := len(group.by) - _CAUSES) > 0:
            table.add_row(Text(f"  and {text.counted(more, 'other')}", "dim"), "")
    console.print(table)
    console.print()
    if found.newest:
        tables.line(console, "The newest", "bold")
    for refusal in found.newest:
        rejected = refusal.rejected
        when = f"{datetime.fromtimestamp(refusal.time or 0.0, UTC):%Y-%m-%d %H:%M:%S}"
        tables.line(console, f"{when}  {rejected.task_id or refusal.source}")
        tables.line(console, f"  {rejected.reason.value}: {rejected.detail}")
        tables.line(console, f"  {_cut(rejected.record)}", "dim")


def show_revalidated(done: RetryReport) -> None:
    """Print the result of revalidating quarantined records."""
    console = tables.console()
    table = tables.table("revalidated", "records")
    for name, n in done.accepted.items():
        table.add_row(f"accepted, {name}", f"{n:,}")
    others = {
        "in their dataset already": done.known,
        "beyond the limits of retention": done.past_retention,
        **{f"still rejected, {reason}": n for reason, n in done.still.items()},
        "unreadable: the record was cut when it was stored": done.unreadable,
    }
    for what, n in others.items():
        if n:
            table.add_row(what, f"{n:,}")
    table.add_row("all", f"{done.retried:,}")
    console.print(table)
    if done.not_retryable:
        tables.line(
            console,
            f"{text.counted(done.not_retryable, 'malformed record')} cannot be revalidated.",
            "dim",
        )


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
