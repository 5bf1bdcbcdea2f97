"""Datasets as CSV files in the columns of the original implementation."""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from malearn.data import files
from malearn.data.batch import Outcomes
from malearn.kernel import text
from malearn.kernel.errors import InputError
from malearn.kernel.reading import joining, record_reader, run_ids
from malearn.kernel.records import Execution, Rejected, RejectReason
from malearn.kernel.tool_types import ToolType

__all__ = ["append", "columns", "read", "write"]


#: Columns of what a workflow was: ids of tasks that were waited for and functions that were named,
#: both as lists in JSON, and what it ran on. Prefixed, since any other name may be a feature's.
_EDGES = ("workflow_predecessors", "workflow_successors", "workflow_resource")
#: Columns that every file has, and those that one of the original lacks.
_REQUIRED = ("task_id", "timestamp", "execution_time")
_ADDED = ("function", "query", "predicted", "model_version")
#: What other programs write between the cells.
_DELIMITERS = (";", "\t", "|")
#: How a cell begins that a spreadsheet would run as a formula, in any width.
#: OWASP's list for CSV injection, and the same signs in full width.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def read(path: Path, tool_type: ToolType, size: int = 20_000) -> Iterator[Outcomes]:
    """The executions in a CSV file of the original, `task_id,timestamp,<features>,execution_time`.

    `timestamp` is the start, in seconds since the epoch or ISO 8601 (UTC unless
    it says otherwise); `execution_time` is in seconds. The features are what
    the task reported of itself, `ran_<name>` where another column has a feature's name.
    Columns of `Dataset.export_csv` are understood too; any other is an error.
    Raises `InputError`.
    """
    known, reported = set(columns(tool_type)), _reported(tool_type)
    with files.opened(path) as file:
        # Bytes that are no UTF-8 spoil their cell, not the file.
        rows = csv.reader(line.decode("utf-8", "replace") for line in file)
        first = next(_rows(rows), [])
        if isinstance(first, str):
            raise InputError(path, f"is no dataset: {first}")
        # Excel begins UTF-8 files with a byte order mark.
        header = [name.strip().lstrip("\ufeff") for name in first]
        other = next((mark for mark in _DELIMITERS if any(mark in name for name in header)), None)
        if len(header) == 1 and other:
            raise InputError(path, f"is separated by {other!r}, not by commas; convert it first")
        if missing := set(_REQUIRED) - set(header):
            raise InputError(path, f"is no dataset: its header lacks {', '.join(sorted(missing))}")
        # A misspelt feature would otherwise be missing in every row, unnoticed.
        if unknown := set(header) - known:
            raise InputError(
                path, f"has columns {tool_type.name} does not know: {', '.join(sorted(unknown))}"
            )
        batch: Outcomes = []
        if len(set(header)) < len(header):
            raise InputError(path, "names a column twice in its header")
        for row in _rows(rows):
            place = f"line {rows.line_num} of {path.name}"
            if isinstance(row, str):
                batch.append(Rejected("", "", RejectReason.INVALID_JSON, f"{place}: {row}"))
            else:
                batch.append(_execution(header, row, tool_type, place, reported))
            if len(batch) >= size:
                yield batch
                batch = []
        if batch:
            yield batch


def write(file: Path, tool_type: ToolType, executions: Iterable[Execution]) -> None:
    """Write `executions` to `file`, the original's columns first; `read` reads it back.

    Texts that a spreadsheet would run as a formula are written with an apostrophe before them.
    """
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(columns(tool_type))
        writer.writerows(_row(tool_type, e) for e in executions)


def append(file: Path, tool_type: ToolType, executions: Iterable[Execution]) -> None:
    """Add `executions` at the end of a `file` that `write` began."""
    with file.open("a", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows(_row(tool_type, e) for e in executions)


def columns(tool_type: ToolType) -> list[str]:
    """The names in the first line."""
    features, words = tool_type.feature_names, tool_type.context
    reported = _reported(tool_type)
    return (
        ["task_id", "timestamp", *(reported[name] for name in features), "execution_time"]
        + list(_ADDED)
        + _announced(tool_type)
        + [reported[name] for name in words]
        + list(_EDGES)
    )


def _announced(tool_type: ToolType) -> list[str]:
    """The columns of what was known before a task ran."""
    return [f"serve_{name}" for name in (*tool_type.feature_names, *tool_type.context)]


def _reported(tool_type: ToolType) -> Mapping[str, str]:
    """The column of what a task reported of itself, by the name of the feature or context."""
    names = (*tool_type.feature_names, *tool_type.context)
    fixed = {*_REQUIRED, *_ADDED, *_EDGES, *_announced(tool_type)}
    found = {}
    for name in names:
        column = name
        # As in the original, unless a column of another meaning is called so.
        while column in fixed or (column != name and column in names):
            column = f"ran_{column}"
        found[name] = column
    return found


def _row(tool_type: ToolType, e: Execution) -> list[str]:
    unknown = ("",) * len(tool_type.context)
    context = [*(e.serve_context or unknown), *(e.ran_context or unknown)]
    return (
        [_inert(e.task_id), repr(e.start), *map(_digits, e.ran), repr(e.seconds)]
        + [_inert(e.function), _inert(e.query)]
        + [_digits(e.predicted), _digits(e.model_version)]
        + [_digits(value) for value in e.serve]
        + [_inert(word) for word in context]
        + ["" if e.predecessors is None else _list(e.predecessors)]
        + [_list(e.successors) if e.successors else "", _inert(e.resource)]
    )


def _digits(value: float | None) -> str:
    # `repr` gives the shortest text that reads back as the same float.
    return "" if value is None or value != value else repr(value)


def _list(texts: Sequence[str]) -> str:
    return json.dumps(texts, ensure_ascii=False)


def _texts(cell: str) -> list[str] | None:
    """The list in `cell`; None where there is none."""
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return [str(one) for one in found] if isinstance(found, list) else None


def _inert(value: str) -> str:
    """`value` as a cell that no spreadsheet runs."""
    return f"'{value}" if _is_risky(value) else value


def _plain(cell: str) -> str:
    """The text that `_inert` made `cell` of."""
    return cell[1:] if cell.startswith("'") and _is_risky(cell[1:]) else cell


def _is_risky(value: str) -> bool:
    # Texts that begin with an apostrophe are escaped too, or reading could not tell them apart.
    return value.startswith((*_FORMULA, "'")) or value.lstrip().startswith(_FORMULA)


def _rows(rows: Iterator[list[str]]) -> Iterator[list[str] | str]:
    """Each row that is not blank, or what is wrong with it."""
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            # Such as a cell above csv's limit of 131,072 characters; the next rows can be read.
            yield files.cause(error)
        except (EOFError, OSError, zlib.error) as error:
            # A gzip file that is cut or damaged: nothing after this point can be unpacked.
            yield f"the file cannot be read further ({files.cause(error)})"
            return
        else:
            if row:
                yield row


def _execution(
    header: Sequence[str],
    row: Sequence[str],
    tool_type: ToolType,
    place: str,
    reported: Mapping[str, str],
) -> Execution | Rejected:
    cells = {name: _plain(value.strip()) for name, value in zip(header, row, strict=False)}
    task_id = cells.get("task_id", "")
    # The original's files name no function, and its task ids need not contain one.
    function = cells.get("function") or run_ids.function_of(task_id) or tool_type.name
    if len(row) != len(header) or not task_id:
        problem = f"{place}: {len(row)} values under {len(header)} names"
        kept = json.dumps(cells)[: text.MOST_KEPT]
        return Rejected(task_id, function, RejectReason.INVALID_JSON, problem, kept)
    start, seconds = _seconds_of(cells["timestamp"]), _cell(cells["execution_time"])
    late = isinstance(start, float) and isinstance(seconds, float)
    serve = {name: _cell(cells.get(f"serve_{name}", "")) for name in tool_type.feature_names}
    serve |= {name: cells.get(f"serve_{name}") or None for name in tool_type.context}
    task: dict[str, object] = {
        "start_time": start,
        "end_time": cast("float", start) + cast("float", seconds) if late else seconds,
        "dag_id": cells.get("query", ""),
        "curr_task_feat": {
            n: _cell(cells[reported[n]]) for n in tool_type.feature_names if reported[n] in cells
        }
        | {n: cells[reported[n]] for n in tool_type.context if reported[n] in cells},
        # The row takes the way of a worker's record, so that all its checks hold here too.
        "succ_task_feat": {key: {} for key in _texts(cells.get("workflow_successors", "")) or ()},
    }
    record = record_reader.read(task_id, task, function)
    if isinstance(record, Rejected):
        return record
    # Empty cells are left out, not null: a null would take the declared default as if reported.
    view = {name: value for name, value in serve.items() if value is not None}
    before = _texts(cells.get("workflow_predecessors", ""))
    outcome = joining.to_execution(
        record, tool_type, view, before, cells.get("workflow_resource", "")
    )
    if isinstance(outcome, Rejected):
        return outcome
    predicted, version = _cell(cells.get("predicted", "")), cells.get("model_version", "")
    return outcome.with_prediction(predicted, int(version) if version.isdigit() else None)


def _cell(text: str) -> float | str | None:
    """A number; None for an empty cell; the text itself where it is no number."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _seconds_of(timestamp: str) -> float | str | None:
    """Seconds since the epoch."""
    value = _cell(timestamp)
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return value
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
