"""Splits executions by the contract of their tool type, and records what each bad row broke."""

from __future__ import annotations

import functools
import math
import threading
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from malearn.data.rows import chosen
from malearn.expectations import contract
from malearn.expectations.frame import frame
from malearn.expectations.tally import EXAMPLES, Result, Tally
from malearn.kernel import errors
from malearn.kernel.records import Execution, Rejected, RejectReason
from malearn.kernel.tool_types import ToolType

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations import ExpectationSuite
    from great_expectations.data_context.data_context.ephemeral_data_context import (
        EphemeralDataContext,
    )

__all__ = ["ENOUGH_TO_REFUSE", "ValidationResult", "validate"]

#: Smaller batches are never rejected as a whole: one bad row of three proves little.
ENOUGH_TO_REFUSE = 20

# Enough to find a few distinct ones; formatting all of a million rows would take minutes.
_LOOKED_AT = 200  # failed rows of an expectation, to find examples in
_NAMED = 4  # failed expectations that a row's detail spells out

# COMPLETE names every failed row. The query would name them all again, as text.
_EVERY_ROW = {"result_format": "COMPLETE", "return_unexpected_index_query": False}

_validating = threading.Lock()


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """A batch of one tool type after validation. Each execution is in one of the two lists."""

    tool_type: str
    accepted: Sequence[Execution]
    quarantined: list[Rejected]
    results: tuple[Result, ...] = ()

    def tally(self) -> Tally:
        """The same in numbers, for a report over many batches."""
        return Tally(self.tool_type, len(self.accepted), len(self.quarantined), self.results)


@dataclass(frozen=True, slots=True)
class _Checked:
    """One expectation, evaluated: the labels of the rows that failed it."""

    column: str
    phrase: str
    beside: tuple[str, ...]
    checked: int
    failed: tuple[int, ...]


def validate(
    tool_type: ToolType, executions: Sequence[Execution], *, allowed_bad: float = 0.5
) -> ValidationResult:
    """Split `executions`, all of `tool_type`, by its suite; order in, order out.

    Of executions that share a task id the last to end is accepted and the others are
    quarantined as duplicates, which does not count as bad. A batch of at least
    `ENOUGH_TO_REFUSE` rows with a share of bad ones above `allowed_bad` is rejected as a
    whole; 1.0 allows all, to see row by row what was wrong with a rejected one.

    Raises:
        BatchRefused: too much of the batch is bad.
        DatasetError: the executions do not have the features of `tool_type`.
    """
    if not executions:
        return ValidationResult(tool_type.name, [], [])
    table = frame(tool_type, executions)
    checks = _evaluate(tool_type, contract.suite(tool_type), table)
    broken: dict[int, list[_Checked]] = defaultdict(list)
    repeated: set[int] = set()
    for check in checks:
        # Which of the rows that share an id is kept is decided below: one of them is good.
        if check.phrase == "unique":
            repeated.update(check.failed)
            continue
        for row in check.failed:
            broken[row].append(check)
    total = len(executions)
    # Broken units or a wrong declaration, not single bad rows: nothing of it can be trusted.
    if total >= ENOUGH_TO_REFUSE and len(broken) > allowed_bad * total:
        worst = max(checks, key=lambda check: len(check.failed) * (check.phrase != "unique"))
        raise errors.BatchRefused(
            tool_type.name, len(broken), total, f"{worst.column} is {worst.phrase}", allowed_bad
        )
    # Without broken rows: a later one that is broken must not displace a good one.
    older = _older(executions, sorted(repeated - broken.keys()))
    quarantined: list[Rejected] = []
    good = np.ones(total, np.bool_)
    for row in sorted(broken.keys() | older):
        good[row] = False
        if row in broken:
            reason, detail = RejectReason.INVALID_FEATURE, _detail(broken[row], table, row)
        else:
            reason, detail = RejectReason.DUPLICATE, "the same task was written again"
        quarantined.append(_reject(executions[row], reason, detail))
    results = tuple(_result(check, table) for check in checks)
    return ValidationResult(tool_type.name, chosen(executions, good), quarantined, results)


# Building a context takes longer than validating a small batch.
@functools.cache
def _context() -> EphemeralDataContext:
    """The context of this process: nothing on disk, no analytics, no progress bars."""
    context: EphemeralDataContext = contract.gx().get_context(mode="ephemeral")
    context.enable_analytics(False)
    quiet: Any = {"globally": False}  # a plain mapping serves; its class is private
    context.variables.progress_bars = quiet
    return context


def _evaluate(tool_type: ToolType, suite: ExpectationSuite, table: pd.DataFrame) -> list[_Checked]:
    """Every expectation of `suite` on `table`. One at a time: the context is shared."""
    with _validating, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Great Expectations keeps sources by name: one name, deleted afterwards, under a lock.
        sources = _context().data_sources
        source = sources.add_or_update_pandas("executions")
        try:
            definition = source.add_dataframe_asset("batch").add_batch_definition_whole_dataframe(
                "whole"
            )
            batch = definition.get_batch({"dataframe": table})
            # Whether anything failed, then the rows of what did: asking for the rows of every
            # expectation costs half as much again, and of most batches nothing fails.
            outcome: Any = batch.validate(suite, result_format={"result_format": "BASIC"})
            results = {_key(result.expectation_config.meta): result for result in outcome.results}
            failed = [e for e in suite.expectations if not _passed(results.get(_key(e.meta)))]
            if failed:
                outcome = batch.validate(
                    contract.gx().ExpectationSuite(name=suite.name, expectations=failed),
                    result_format=_EVERY_ROW,
                )
                results |= {_key(r.expectation_config.meta): r for r in outcome.results}
        finally:
            sources.delete("executions")  # else it keeps the table in memory
    if len(results) != len(suite.expectations):
        raise errors.DatasetError(tool_type.name, "not every expectation was evaluated")
    # Great Expectations returns results in an order of its own.
    return [_checked(tool_type, results[_key(e.meta)]) for e in suite.expectations]


def _passed(result: Any) -> bool:
    """Whether `result`, of the first look, says that no row failed."""
    return bool(result and result.success) and result.result.get("unexpected_count") == 0


def _key(meta: Any) -> tuple[str, str]:
    """What tells one expectation of a suite from another."""
    return meta["column"], meta["phrase"]


def _checked(tool_type: ToolType, result: Any) -> _Checked:
    meta, found = result.expectation_config.meta, result.result
    if not _passed(result) and "unexpected_index_list" not in found:
        # Without this list the rows that failed are unknown, so none may be trained on.
        raise errors.DatasetError(
            tool_type.name,
            f"it could not be checked whether {meta['column']} is {meta['phrase']} "
            f"({_cause(result.exception_info)})",
        )
    return _Checked(
        meta["column"],
        meta["phrase"],
        tuple(meta["beside"]),
        # Missing values count as elements, but nothing is expected of them.
        found["element_count"] - (found.get("missing_count") or 0),
        tuple(int(row) for row in found.get("unexpected_index_list") or ()),
    )


def _cause(information: object) -> str:
    """The message within Great Expectations' nested description of an exception."""
    if not isinstance(information, Mapping):
        return "no cause was given"
    message = information.get("exception_message")
    return str(message) if message else _cause(next(iter(information.values()), None))


def _older(executions: Sequence[Execution], rows: Iterable[int]) -> set[int]:
    """Of `rows`, all but the one of each task that ended last."""
    latest: dict[str, int] = {}
    older: set[int] = set()
    for row in rows:
        task_id = executions[row].task_id
        known = latest.setdefault(task_id, row)
        if known != row:
            later = row if executions[row].end > executions[known].end else known
            older.add(known if later == row else row)
            latest[task_id] = later
    return older


def _detail(checks: Sequence[_Checked], table: pd.DataFrame, row: int) -> str:
    named = [f"{_shown(check, table, row)}, not {check.phrase}" for check in checks[:_NAMED]]
    more = len(checks) - len(named)
    return "; ".join(named) + (f"; and {more} more" if more else "")


def _shown(check: _Checked, table: pd.DataFrame, row: int) -> str:
    """The value in `row` with those beside it: `end is 4 (start 5)`."""
    beside = ", ".join(f"{column} {_value(table[column].iat[row])}" for column in check.beside)
    found = _value(table[check.column].iat[row])
    return f"{check.column} is {found}{f' ({beside})' if beside else ''}"


def _result(check: _Checked, table: pd.DataFrame) -> Result:
    shown = (_shown(check, table, row) for row in check.failed[:_LOOKED_AT])
    examples = tuple(dict.fromkeys(text.removeprefix(f"{check.column} is ") for text in shown))
    failed = len(check.failed)
    return Result(check.column, check.phrase, check.checked, failed, examples[:EXAMPLES])


def _value(value: object) -> str:
    """A value for people; names are quoted, so that none can hide in a message."""
    if isinstance(value, str):
        return repr(value if len(value) <= 80 else f"{value[:80]}…")
    if value is None or not isinstance(value, float) or math.isnan(value):
        return "missing"
    value = float(value)  # numpy's would show its type
    if value.is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    if 1e6 <= abs(value) < 1e15:
        return f"{value:.3f}"
    # Six digits do, unless they would hide by how little a value is beyond a round bound.
    short = f"{value:.6g}"
    return short if "." in short and len(short.strip("-0.")) >= 6 else repr(value)


def _reject(execution: Execution, reason: RejectReason, detail: str) -> Rejected:
    return Rejected(execution.task_id, execution.function, reason, detail)
