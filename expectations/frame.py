"""Executions as the table that a suite looks at: one row each, labelled 0, 1, 2, …"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from expectations import contract
from malearn import errors
from malearn.records import Execution
from malearn.tool_types import ToolType

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame"]


def frame(tool_type: ToolType, executions: Sequence[Execution]) -> pd.DataFrame:
    """The columns that `contract.suite(tool_type)` names, for `executions` in their order.

    Raises:
        DatasetError: an execution has more or fewer values than `tool_type` has features.
    """
    import pandas as pd

    start = np.array([execution.start for execution in executions], dtype=np.float64)
    end = np.array([execution.end for execution in executions], dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # inf - inf; the suite names the cause
        seconds = end - start
    columns: dict[str, object] = {
        "task_id": pd.Series([_name(one.task_id) for one in executions], dtype=object),
        "function": pd.Series([_name(one.function) for one in executions], dtype=object),
        "start": start,
        "end": end,
        "seconds": seconds,
    }
    known = np.zeros(len(executions))
    for view in contract.VIEWS:
        matrix = _matrix(tool_type, executions, view)
        known += np.isfinite(matrix).sum(axis=1)
        by_name = dict(zip(tool_type.feature_names, matrix.T, strict=True))
        columns |= {f"{view}_{name}": values for name, values in by_name.items()}
        with np.errstate(invalid="ignore", over="ignore"):
            for ceiling in contract.ceilings(tool_type):
                columns[ceiling.column(view)] = ceiling.limit(by_name[ceiling.other])
    return pd.DataFrame({**columns, "known_features": known})


def _matrix(
    tool_type: ToolType, executions: Sequence[Execution], view: str
) -> npt.NDArray[np.float64]:
    """Shape (executions, features)."""
    width = len(tool_type.features)
    rows = [execution.serve if view == "serve" else execution.ran for execution in executions]
    for execution, row in zip(executions, rows, strict=True):
        if len(row) != width:
            raise errors.DatasetError(
                tool_type.name,
                f"{execution.task_id!r} has {len(row)} values for {width} features; "
                "was it read with another declaration?",
            )
    return np.array(rows, dtype=np.float64).reshape(len(rows), width)


def _name(name: str) -> str | None:
    """`name` as pandas can hold it: escaped where UTF-8 does not know it; an empty one is none."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return ascii(name)
    return name or None
