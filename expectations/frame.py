"""Executions as the table that a suite validates: one row each, labelled 0, 1, 2, …"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from malearn.data.rows import Rows
from malearn.expectations import contract
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolType

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame"]


def frame(tool_type: ToolType, executions: Sequence[Execution]) -> pd.DataFrame:
    """The columns that `contract.suite(tool_type)` names, for `executions` in their order.

    Raises:
        DatasetError: an execution has more or fewer values than `tool_type` has features.
    """
    import pandas as pd

    rows = Rows.from_executions(tool_type, executions)
    columns: dict[str, object] = {
        # dtype=object: pandas would infer a string type of its own, and None would become NaN.
        "task_id": pd.Series(list(map(_name, rows.task_ids)), dtype=object),
        "function": pd.Series(list(map(_name, rows.functions)), dtype=object),
        "start": rows.start,
        "end": rows.end,
        "seconds": rows.seconds,
    }
    known = np.zeros(len(rows))
    for view in contract.VIEWS:
        matrix = rows.serve if view == "serve" else rows.ran
        known += np.isfinite(matrix).sum(axis=1)
        # Column-major, or each column that pandas takes would be a strided view.
        by_name = dict(zip(tool_type.feature_names, np.asfortranarray(matrix).T, strict=True))
        columns |= {f"{view}_{name}": values for name, values in by_name.items()}
        # Infinite and huge values are for the suite to find, not to warn about here.
        with np.errstate(invalid="ignore", over="ignore"):
            for ceiling in contract.ceilings(tool_type):
                columns[ceiling.column(view)] = ceiling.limit(by_name[ceiling.other])
    return pd.DataFrame({**columns, "known_features": known})


def _name(name: str) -> str | None:
    """`name` as pandas can hold it: escaped where UTF-8 does not know it; an empty one is none."""
    if not name.isascii():
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            return ascii(name)
    return name or None
