"""From executions to the numbers a model sees: features, history, target.

The one place where columns are put in order. Training builds whole matrices
here, the predictor single rows, from the same declaration and the same history.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from malearn.kernel import causality, features
from malearn.kernel.errors import InputError
from malearn.kernel.estimation import history, replay
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolType

__all__ = ["Matrix", "build", "context_before", "known_before", "observation"]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One tool type's executions as a model sees them, in order of their start.

    `inputs` is float32 of shape (rows, features + history), NaN where missing;
    `seconds` float64 of shape (rows,).
    """

    tool_type: ToolType
    executions: tuple[Execution, ...]
    inputs: NDArray[np.float32]
    seconds: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.executions)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns of `inputs`: the tool type's features, then the history's."""
        return (*self.tool_type.feature_names, *history.FEATURES)

    @property
    def log_seconds(self) -> NDArray[np.float64]:
        """The natural logarithms of `seconds`, shape (rows,): what models are fitted to."""
        return np.log(self.seconds)

    def inputs_for(self, columns: Sequence[str]) -> NDArray[np.float32]:
        """The inputs of a model of `columns`, shape (rows, columns); NaN in those not there."""
        # One column of NaN at the end, to which every column that is not there points.
        missing = np.full((len(self.inputs), 1), np.nan, dtype=np.float32)
        own = {name: place for place, name in enumerate(self.columns)}
        places = [own.get(name, len(own)) for name in columns]
        return np.hstack([self.inputs, missing])[:, places]

    def rows(self, chosen: NDArray[np.intp]) -> Matrix:
        """The chosen rows, in the order given."""
        return Matrix(
            self.tool_type,
            tuple(self.executions[i] for i in chosen),
            self.inputs[chosen],
            self.seconds[chosen],
        )

    def split(self, newest: float, since: float = -math.inf) -> tuple[Matrix, Matrix]:
        """The older rows and the `newest` share of them, by time of start.

        The older ones are those that had *ended* when the newest share began:
        nothing in them was unknown then. Nothing that started before `since`,
        seconds since the epoch, is in the newest share, which has at least one row.
        Raises `InputError` for what is no share, 0 to 1.
        """
        # NaN compares false.
        if not 0.0 <= newest <= 1.0:
            raise InputError("newest", f"must be a share of the rows from 0 to 1, not {newest:g}")
        first = len(self) - max(1, round(len(self) * newest))
        # The last row stays in any case: a window without a row could not be scored.
        while first < len(self) - 1 and self.executions[first].start < since:
            first += 1
        # Rows that were still running at the cut are in neither part: their outcome was unknown.
        cut = self.executions[first].start
        older = [i for i in range(first) if causality.was_known(self.executions[i].end, cut)]
        return self.rows(np.array(older, dtype=np.intp)), self.rows(np.arange(first, len(self)))


def known_before(execution: Execution) -> tuple[float, ...]:
    """The features as known before the task ran.

    Where its predecessors reported none, or their records are gone, the features
    that it reported itself stand in: the best guess at theirs.
    What float32 cannot hold is missing, as it is to a scheduler.
    """
    values = execution.serve if _was_announced(execution) else execution.ran
    return tuple(value if abs(value) <= features.LARGEST else math.nan for value in values)


def context_before(execution: Execution) -> tuple[str, ...]:
    """The context as known before the task ran, by the same rule."""
    return execution.serve_context if _was_announced(execution) else execution.ran_context


def observation(execution: Execution) -> Observation:
    """What a history takes in of `execution`."""
    return Observation(
        execution.function,
        execution.tool_type,
        execution.start,
        execution.end,
        known_before(execution),
        execution.context,
    )


def build(
    tool_type: ToolType, executions: Sequence[Execution], before: Sequence[Execution] = ()
) -> Matrix:
    """The matrix of `tool_type` from `executions` of any tool types, replayed in time.

    Executions `before` them are no rows; the history takes them in.
    """
    snapshots = replay.replay(
        # All tool types together: the history also follows what their functions have in common.
        [observation(e) for e in executions],
        [context_before(e) for e in executions],
        [observation(e) for e in before],
    )
    rows = sorted(
        (
            (execution, snapshot)
            for execution, snapshot in zip(executions, snapshots, strict=True)
            if execution.tool_type == tool_type.name
        ),
        key=lambda row: (row[0].start, row[0].task_id),
    )
    width = len(tool_type.features) + len(history.FEATURES)
    inputs = np.array([(*known_before(e), *s) for e, s in rows], dtype=np.float32)
    return Matrix(
        tool_type,
        tuple(e for e, _ in rows),
        # Without any row numpy could not know the width.
        inputs.reshape(len(rows), width),
        np.array([e.seconds for e, _ in rows], dtype=np.float64),
    )


def _was_announced(execution: Execution) -> bool:
    """Whether its predecessors reported any of its features."""
    return any(not math.isnan(value) for value in execution.serve)
