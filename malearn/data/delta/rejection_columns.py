"""The columns of the table of rejected records: `RejectedRow`s to Arrow and back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from malearn.data.rejected_row import RejectedRow
from malearn.kernel.records import Rejected, RejectReason

__all__ = ["SCHEMA", "came_in_since", "keys", "rows", "table"]


SCHEMA = pa.schema(
    [
        (name, pa.string())
        for name in ("task_id", "function", "tool_type", "reason", "detail", "record", "source")
    ]
    # Stored, so that the index of known rejections can be rebuilt without reading `record`, which
    # is up to 4,096 characters a row.
    + [("digest", pa.string())]
    + [(name, pa.float64()) for name in ("end", "seconds", "ingested_at")]
)


def table(rejected_rows: Sequence[RejectedRow]) -> pa.Table:
    """`rejected_rows` in the columns of `SCHEMA`."""
    rejected, now = [r.rejected for r in rejected_rows], time.time()
    columns: dict[str, object] = {
        "task_id": [r.task_id for r in rejected],
        "function": [r.function for r in rejected],
        "tool_type": [r.tool_type for r in rejected_rows],
        "reason": [r.reason.value for r in rejected],
        "detail": [r.detail for r in rejected],
        "record": [r.record for r in rejected],
        "source": [r.source for r in rejected_rows],
        "digest": [row.digest for row in rejected_rows],
        "end": [r.end for r in rejected_rows],
        "seconds": [r.seconds for r in rejected_rows],
        "ingested_at": [now if r.time is None else r.time for r in rejected_rows],
    }
    return pa.table(columns, schema=SCHEMA)


def keys(columns: Mapping[str, Sequence[str]]) -> pa.Table:
    """Columns of text, such as the keys of rows to replace."""
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def came_in_since(moment: float) -> pc.Expression:
    """What holds of records that came in from `moment` on, seconds since the epoch."""
    return pc.field("ingested_at") >= moment


def rows(batch: pa.RecordBatch, task_ids: tuple[str, str] | None = None) -> Iterator[RejectedRow]:
    """What `batch` holds, or of it tasks from the first to the last of `task_ids`."""
    # Run ids are random, every file spans nearly all of them: a filter in the scan would skip none.
    if task_ids is not None:
        column = pc.field("task_id")
        batch = batch.filter((column >= task_ids[0]) & (column <= task_ids[1]))
    for row in batch.to_pylist():
        yield _row(row)


def _row(row: Mapping[str, Any]) -> RejectedRow:
    rejected = Rejected(
        row["task_id"], row["function"], RejectReason(row["reason"]), row["detail"], row["record"]
    )
    return RejectedRow(
        rejected, row["source"], row["tool_type"], row["end"], row["seconds"], row["ingested_at"]
    )
