"""The columns of a table of executions: `Rows` to Arrow and back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from malearn.data.rows import Rows
from malearn.kernel.reading import run_ids
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolType

__all__ = [
    "ended_after",
    "executions",
    "newest_of_functions",
    "schema",
    "started_between",
    "stored",
    "table",
]

#: What a task waited for, by id, null where no graph told; and the functions that it named.
_EDGES = ("predecessors", "successors")
#: What is derived from other columns, or is no part of an execution.
_DERIVED = {"run", "seconds", "ingested_at"}


# Both are kept, because they differ systematically in real logs: models train on the first, and the
# skew between the two is reported.
_VIEWS = ("serve", "ran")  # as known before a task ran, and as it ran


def schema(tool_type: ToolType) -> pa.Schema:
    """The columns for executions of `tool_type`."""
    text, number = pa.string(), pa.float64()
    fixed = [("task_id", text), ("run", text), ("function", text), ("query", text)]
    fixed += [("start", number), ("end", number), ("seconds", number), ("predicted", number)]
    fixed += [("model_version", pa.int64()), ("ingested_at", number)]
    views = [(f"{view}_{n}", number) for view in _VIEWS for n in tool_type.feature_names]
    views += [(f"{view}_{n}", text) for view in _VIEWS for n in tool_type.context]
    # At the end, where a table that was created without them gets them, too.
    edges = [(name, pa.list_(text)) for name in _EDGES]
    return pa.schema(fixed + views + edges + [("resource", text)])


def table(rows: Rows) -> pa.Table:
    """`rows` in those columns."""
    columns: dict[str, object] = {
        "task_id": rows.task_ids,
        "run": list(map(run_ids.run_of, rows.task_ids, rows.functions)),
        "function": rows.functions,
        "query": rows.queries,
        "start": rows.start,
        "end": rows.end,
        "seconds": rows.seconds,
        # `from_pandas` turns NaN into null: in files "missing" is null, in memory NaN.
        "predicted": pa.array(rows.predicted, from_pandas=True),
        "model_version": rows.versions,
        # Only for people who look into the table: an `Execution` does not carry it.
        "ingested_at": np.full(len(rows), time.time()),
        "predecessors": rows.predecessors,
        "successors": [names or None for names in rows.successors],
        "resource": [name or None for name in rows.resources],
    }
    for view, matrix, contexts in (
        ("serve", rows.serve, rows.serve_contexts),
        ("ran", rows.ran, rows.ran_contexts),
    ):
        for name, column in zip(rows.tool_type.feature_names, matrix.T, strict=True):
            columns[f"{view}_{name}"] = pa.array(column, from_pandas=True)
        for i, name in enumerate(rows.tool_type.context):
            columns[f"{view}_{name}"] = [words[i] or None if words else None for words in contexts]
    return pa.table(columns, schema=schema(rows.tool_type))


def stored(tool_type: ToolType) -> list[str]:
    """The columns that make an execution of `tool_type`."""
    return [name for name in schema(tool_type).names if name not in _DERIVED]


def executions(tool_type: ToolType, found: pa.Table) -> list[Execution]:
    """What `found`, with the `stored` columns, holds, in order of (start, task_id)."""
    # Files come in any order; the same version must always give the same training rows.
    found = found.sort_by([("start", "ascending"), ("task_id", "ascending")])
    features, words = tool_type.feature_names, tool_type.context
    serve, ran = (_tuples(found, [f"{view}_{name}" for name in features]) for view in _VIEWS)
    plain = ("task_id", "function", "start", "end", "query", "predicted", "model_version")
    columns = [found.column(name).to_pylist() for name in plain]
    contexts = [_words(found, [f"{view}_{name}" for name in words]) for view in _VIEWS]
    name = tool_type.name
    before, after = (_lists(found.column(edge)) for edge in _EDGES)
    named = [names or () for names in after]
    on = [word or "" for word in found.column("resource").to_pylist()]
    rows = zip(*columns, serve, ran, *contexts, before, named, on, strict=True)
    return [
        Execution(task_id, function, name, start, end, s, r, query, predicted, model, *rest)
        for task_id, function, start, end, query, predicted, model, s, r, *rest in rows
    ]


def started_between(since: float, before: float) -> pc.Expression:
    """What holds of executions that started from `since` on and before `before`."""
    start = pc.field("start")
    return (start >= since) & (start < before)


def ended_after(moment: float) -> pc.Expression:
    """What holds of executions that ended later than `moment`."""
    return pc.field("end") > moment


def newest_of_functions(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, each: int
) -> pa.Table:
    """Of the rows of `batches`, with the columns of `schema`, the newest `each` of every function.

    Never more than these and one batch are held.
    """
    kept = schema.empty_table()
    for batch in batches:
        kept = _newest_of_functions(pa.concat_tables([kept, pa.Table.from_batches([batch])]), each)
    return kept


def _newest_of_functions(rows: pa.Table, each: int) -> pa.Table:
    codes = rows.column("function").combine_chunks().dictionary_encode().indices.to_numpy()
    ends = rows.column("end").to_numpy()
    # By function, the newest first: a row's rank within its function is then its distance from the
    # function's first row.
    order = np.lexsort((-ends, codes))
    ordered = codes[order]
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    rank = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
    return rows.take(np.sort(order[rank < each])).combine_chunks()


def _tuples(table: pa.Table, names: Sequence[str]) -> list[tuple[float, ...]]:
    """Rows of float columns, nulls as NaN."""
    columns = [table.column(name).to_numpy().astype(np.float64).tolist() for name in names]
    return list(zip(*columns, strict=True)) if columns else [()] * table.num_rows


def _lists(column: pa.ChunkedArray) -> list[tuple[str, ...] | None]:
    """Rows of a column of lists of text; None for nulls."""
    # In datasets of before there were edges, and of logs without any, all are null.
    if column.null_count == len(column):
        return [None] * len(column)
    return [None if one is None else tuple(one) for one in column.to_pylist()]


def _words(table: pa.Table, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Rows of text columns, nulls as ""; empty where all are null."""
    columns = [table.column(name) for name in names]
    # Nearly all logs name no context: no list of strings is then made for them.
    if all(column.null_count == len(column) for column in columns):
        return [()] * table.num_rows
    texts = [[word or "" for word in column.to_pylist()] for column in columns]
    return [words if any(words) else () for words in zip(*texts, strict=True)]
