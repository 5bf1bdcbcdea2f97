"""The executions of one tool type as columns, which is how a million of them fit and move."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import overload

import numpy as np
import numpy.typing as npt

from malearn.kernel.errors import DatasetError
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolType

__all__ = ["Builder", "Rows", "chosen"]

Floats = npt.NDArray[np.float64]
_NAN = float("nan")


class Rows(Sequence[Execution]):
    """A sequence of executions, read only, that makes each `Execution` when asked for it.

    `start` and `end`, shape (rows,), are in seconds since the epoch; `serve` and `ran`,
    shape (rows, features), hold NaN where a value is missing; so does `predicted`, seconds.
    The others are lists of what an `Execution` has.
    """

    __slots__ = (
        "end",
        "functions",
        "predecessors",
        "predicted",
        "queries",
        "ran",
        "ran_contexts",
        "resources",
        "serve",
        "serve_contexts",
        "start",
        "successors",
        "task_ids",
        "tool_type",
        "versions",
    )

    def __init__(
        self,
        tool_type: ToolType,
        task_ids: list[str],
        functions: list[str],
        queries: list[str],
        start: Floats,
        end: Floats,
        serve: Floats,
        ran: Floats,
        predicted: Floats,
        versions: list[int | None],
        serve_contexts: list[tuple[str, ...]],
        ran_contexts: list[tuple[str, ...]],
        predecessors: list[tuple[str, ...] | None],
        successors: list[tuple[str, ...]],
        resources: list[str],
    ) -> None:
        self.tool_type = tool_type
        self.task_ids, self.functions, self.queries = task_ids, functions, queries
        self.start, self.end, self.serve, self.ran = start, end, serve, ran
        self.predicted, self.versions = predicted, versions
        self.serve_contexts, self.ran_contexts = serve_contexts, ran_contexts
        self.predecessors, self.successors = predecessors, successors
        self.resources = resources

    @classmethod
    def from_executions(cls, tool_type: ToolType, executions: Iterable[Execution]) -> Rows:
        """`executions` as they are where they are rows already.

        Raises `DatasetError` where one has more or fewer values than `tool_type` has features.
        """
        if isinstance(executions, Rows):
            return executions
        builder = Builder(tool_type)
        for execution in executions:
            builder.add(execution)
        return builder.rows()

    @property
    def seconds(self) -> Floats:
        """What each took."""
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf; validation rejects it
            return self.end - self.start

    def latest(self) -> npt.NDArray[np.bool_]:
        """Which are the last of their task to end, shape (rows,); of equals, the first."""
        mask = np.ones(len(self), np.bool_)
        # Nearly never: the loop below is one of Python, the rest of this class is numpy's.
        if len(set(self.task_ids)) < len(self):
            best: dict[str, int] = {}
            for at, task_id in enumerate(self.task_ids):
                other = best.setdefault(task_id, at)
                if self.end[at] > self.end[other]:
                    mask[other], best[task_id] = False, at
                elif other != at:
                    mask[at] = False
        return mask

    def take(self, mask: npt.NDArray[np.bool_]) -> Rows:
        """Those where `mask`, shape (rows,), is true."""
        # Nothing is copied, which is safe as rows are never changed.
        if mask.all():
            return self
        return Rows(
            self.tool_type,
            list(compress(self.task_ids, mask)),
            list(compress(self.functions, mask)),
            list(compress(self.queries, mask)),
            self.start[mask],
            self.end[mask],
            self.serve[mask],
            self.ran[mask],
            self.predicted[mask],
            list(compress(self.versions, mask)),
            list(compress(self.serve_contexts, mask)),
            list(compress(self.ran_contexts, mask)),
            list(compress(self.predecessors, mask)),
            list(compress(self.successors, mask)),
            list(compress(self.resources, mask)),
        )

    def __len__(self) -> int:
        return len(self.task_ids)

    @overload
    def __getitem__(self, at: int) -> Execution: ...
    @overload
    def __getitem__(self, at: slice) -> list[Execution]: ...
    def __getitem__(self, at: int | slice) -> Execution | list[Execution]:
        if isinstance(at, slice):
            return [self[row] for row in range(*at.indices(len(self)))]
        predicted = float(self.predicted[at])
        return Execution(
            self.task_ids[at],
            self.functions[at],
            self.tool_type.name,
            float(self.start[at]),
            float(self.end[at]),
            tuple(self.serve[at].tolist()),
            tuple(self.ran[at].tolist()),
            self.queries[at],
            None if predicted != predicted else predicted,
            self.versions[at],
            self.serve_contexts[at],
            self.ran_contexts[at],
            self.predecessors[at],
            self.successors[at],
            self.resources[at],
        )


class Builder:
    """Rows that grow one by one: numbers in arrays, not in objects."""

    __slots__ = (
        "_end",
        "_functions",
        "_predecessors",
        "_predicted",
        "_queries",
        "_ran",
        "_ran_contexts",
        "_resources",
        "_serve",
        "_serve_contexts",
        "_start",
        "_successors",
        "_task_ids",
        "_versions",
        "tool_type",
    )

    def __init__(self, tool_type: ToolType) -> None:
        self.tool_type = tool_type
        self._task_ids: list[str] = []
        self._functions: list[str] = []
        self._queries: list[str] = []
        self._versions: list[int | None] = []
        self._serve_contexts: list[tuple[str, ...]] = []
        self._ran_contexts: list[tuple[str, ...]] = []
        self._predecessors: list[tuple[str, ...] | None] = []
        self._successors: list[tuple[str, ...]] = []
        self._resources: list[str] = []
        # Eight bytes a number, where a list of floats takes 32.
        self._start, self._end, self._predicted = array("d"), array("d"), array("d")
        self._serve, self._ran = array("d"), array("d")

    def __len__(self) -> int:
        return len(self._task_ids)

    def add(self, execution: Execution) -> None:
        """Append one. Raises `DatasetError` where it is of another declaration."""
        e, width = execution, len(self.tool_type.features)
        for view in (e.serve, e.ran):
            if len(view) != width:
                raise DatasetError(
                    self.tool_type.name,
                    f"{e.task_id!r} has {len(view)} values for {width} features; "
                    "was it read with another declaration?",
                )
        self.put(
            e.task_id,
            e.function,
            e.query,
            e.start,
            e.end,
            e.serve,
            e.ran,
            e.predicted,
            e.model_version,
            e.serve_context,
            e.ran_context,
            e.predecessors,
            e.successors,
            e.resource,
        )

    def put(
        self,
        task_id: str,
        function: str,
        query: str,
        start: float,
        end: float,
        serve: Iterable[float],
        ran: Iterable[float],
        predicted: float | None = None,
        version: int | None = None,
        serve_context: tuple[str, ...] = (),
        ran_context: tuple[str, ...] = (),
        predecessors: tuple[str, ...] | None = None,
        successors: tuple[str, ...] = (),
        resource: str = "",
    ) -> None:
        """Append one that is known to have a value for every feature, in declared order."""
        self._task_ids.append(task_id)
        self._functions.append(function)
        self._queries.append(query)
        self._start.append(start)
        self._end.append(end)
        self._serve.extend(serve)
        self._ran.extend(ran)
        self._predicted.append(_NAN if predicted is None else predicted)
        self._versions.append(version)
        self._serve_contexts.append(serve_context)
        self._ran_contexts.append(ran_context)
        self._predecessors.append(predecessors)
        self._successors.append(successors)
        self._resources.append(resource)

    def rows(self) -> Rows:
        """What was appended; nothing may be appended afterwards."""
        # Numpy uses the arrays' own memory, which Python then keeps from growing.
        shape = (len(self), len(self.tool_type.features))
        return Rows(
            self.tool_type,
            self._task_ids,
            self._functions,
            self._queries,
            np.frombuffer(self._start),
            np.frombuffer(self._end),
            np.frombuffer(self._serve).reshape(shape),
            np.frombuffer(self._ran).reshape(shape),
            np.frombuffer(self._predicted),
            self._versions,
            self._serve_contexts,
            self._ran_contexts,
            self._predecessors,
            self._successors,
            self._resources,
        )


def chosen(executions: Sequence[Execution], mask: npt.NDArray[np.bool_]) -> Sequence[Execution]:
    """Those of `executions` where `mask` is true; rows stay rows, anything else becomes a list."""
    if isinstance(executions, Rows):
        return executions.take(mask)
    return list(compress(executions, mask.tolist()))
