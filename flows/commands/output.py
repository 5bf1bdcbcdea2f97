"""What a command prints: its result on stdout, sentences for people on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from malearn.flows import terminal

if TYPE_CHECKING:
    from malearn.data.ingest_report import IngestReport

__all__ = ["fail", "fail_on_rejected_batch", "note", "result"]


def result(value: object, as_json: bool, show: Callable[[], None]) -> None:
    """Print `value` as one line of JSON, or call `show`, which prints it for people."""
    if as_json:
        # JSON can escape what a terminal cannot encode, and then loses nothing.
        plain = not terminal.is_utf8(sys.stdout)
        typer.echo(json.dumps(_finite(value), ensure_ascii=plain, allow_nan=False))
    else:
        show()
    sys.stdout.flush()  # whoever reads a pipe has it before anything else is done


def note(sentence: str) -> None:
    """Print a sentence on stderr."""
    # A sentence may name what stands in a log.
    typer.echo(f"malearn: {terminal.printable(sentence)}", err=True)


def fail(error: Exception) -> NoReturn:
    """Print an error as one sentence on stderr, however many lines it had, and exit with 1."""
    # Errors of libraries span lines; a log or a script reads this one as one.
    note(" ".join(str(error).split()))
    raise SystemExit(1) from error


def fail_on_rejected_batch(report: IngestReport) -> None:
    """Exit with 1 if a whole batch was rejected, even if everything else was ingested."""
    rejected = [why for counts in report.tool_types.values() for why in counts.refused]
    if rejected:
        note(" ".join(rejected))
        raise typer.Exit(1)


def _finite(value: Any) -> Any:
    """`value` with null for numbers that JSON cannot hold, such as the R² of one row."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
