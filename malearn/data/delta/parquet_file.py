"""A single Parquet file, for reading a result with other tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["write"]


def write(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Write `columns`, all of one length, to `path`. Raises `OSError`."""
    pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), path)
