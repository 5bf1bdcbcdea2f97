"""Why a prediction is what it is: its terms, the executions it leant on, source and interval."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from malearn.flows.report import tables

if TYPE_CHECKING:
    from malearn.kernel.estimation.explanation import Term
    from malearn.learning.explanation import Explanation

__all__ = ["show_explanation"]

_SIMILAR = 5
#: Characters of a bar, and the log-seconds that fill it.
_BAR, _FULL = 12, 1.0


def show_explanation(found: Explanation) -> None:
    """Print the terms as a table with the running sum in seconds, and what is behind them."""
    console, answer = tables.console(), found.answer
    prediction = answer.prediction
    version = f", version {prediction.model_version}" if prediction.model_version else ""
    tables.line(
        console,
        f"{answer.function}: {prediction.seconds:.3g} s ({prediction.low:.3g} to "
        f"{prediction.high:.3g} s), from {prediction.source}{version}",
        "bold",
    )
    if found.actual is not None:
        told = "" if found.recorded is None else f"; a scheduler was told {found.recorded:.3g} s"
        off = prediction.seconds / found.actual
        tables.line(console, f"It took {found.actual:.3g} s: predicted ×{off:.2f} of that{told}.")
    console.print()
    table = tables.table("term", "value", "log-seconds", "factor", "", "seconds so far")
    table.columns[4].justify = "left"
    total = 0.0
    for term in found.terms:
        total += term.log_seconds
        # The first term begins the sum, so there is nothing that it multiplies.
        first = term.group == "level"
        table.add_row(
            f"{term.group}: {term.name}",
            ""
            if term.value is None
            else "missing"
            if math.isnan(term.value)
            else f"{term.value:,.5g}",
            f"{term.log_seconds:+.4f}",
            "" if first else f"×{term.factor:.3f}",
            "" if first else _bar(term),
            f"{math.exp(total):,.4g}",
        )
    console.print(table)
    if found.method:
        tables.line(console, f"Inputs of the model: {found.method}.", "dim")
    _similar(found)
    console.print()
    tables.line(console, "Why this source", "bold")
    for step in answer.chain:
        tables.line(console, f"  {'✓' if step.answered else '✗'} {step.source}: {step.why}")
    console.print()
    tables.line(console, "Why this interval", "bold")
    tables.line(console, f"  {answer.interval}.")


def _similar(found: Explanation) -> None:
    similar = found.answer.similar
    if not similar:
        return
    console = tables.console()
    console.print()
    if similar[0].identical:
        tables.line(console, "Executions with the very same inputs", "bold")
    else:
        tables.line(
            console, f"Similar executions, {min(_SIMILAR, len(similar))} of {len(similar)}", "bold"
        )
    table = tables.table("ended", "took, s", "effect on the level", "share of the weight")
    for one in similar[:_SIMILAR]:
        # The estimator keeps what it learnt from an execution longer than the execution.
        ended = took = "forgotten"
        if one.ended is not None and one.seconds is not None:
            ended = f"{datetime.fromtimestamp(one.ended, UTC):%Y-%m-%d %H:%M}"
            took = f"{one.seconds:.3g}"
        table.add_row(ended, took, f"×{math.exp(one.effect):.3f}", f"{one.share:.0%}")
    console.print(table)


def _value(term: Term) -> str:
    if term.value is None:
        return ""
    return "missing" if math.isnan(term.value) else f"{term.value:,.5g}"


def _bar(term: Term) -> str:
    # A bar is full at a factor of e; longer ones would push the table apart.
    length = min(_BAR, round(abs(term.log_seconds) / _FULL * _BAR))
    return ("+" if term.log_seconds > 0 else "−") * length
