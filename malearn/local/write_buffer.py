"""Executions on their way into a dataset, and rejected ones on their way to the rejections.

A commit costs milliseconds, whatever is in it: so single rows wait here for
company. What could not be written stays, in order, for the next attempt.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from malearn.kernel.records import Execution, Rejected
from malearn.kernel.tool_types import ToolType

if TYPE_CHECKING:
    from malearn.data.dataset import Dataset
    from malearn.data.rejections import Rejections

__all__ = ["WriteBuffer"]


class WriteBuffer:
    """The dataset at `path`, the rejections at `rejected`, and what waits for them. Thread-safe.

    `source` says in a rejection where it came from.
    """

    def __init__(self, path: Path, rejected: Path, tool_type: ToolType, source: str) -> None:
        self._path, self._rejected = path, rejected
        self._tool_type, self._source = tool_type, source
        self._waiting: list[Execution] = []
        self._refused: list[tuple[Rejected, float, float]] = []
        self._tables: tuple[Dataset, Rejections] | None = None
        self._lock, self._writing = threading.Lock(), threading.RLock()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._refused)

    def add(self, execution: Execution) -> None:
        with self._lock:
            self._waiting.append(execution)

    def reject(self, rejected: Rejected, end: float, seconds: float) -> None:
        """Keep the rejection of an execution that ended at `end` after `seconds`."""
        with self._lock:
            self._refused.append((rejected, end, seconds))

    def flush(self) -> None:
        """Write what waits, in one commit per table. Raises `DatasetError` or `OSError`."""
        from malearn.data.rejected_row import RejectedRow

        with self._writing:
            dataset, rejections = self._open()
            with self._lock:
                waiting, refused = list(self._waiting), list(self._refused)
            if waiting:
                dataset.append(waiting)
                with self._lock:
                    del self._waiting[: len(waiting)]
            if refused:
                name = self._tool_type.name
                rejections.append([RejectedRow(r, self._source, name, e, s) for r, e, s in refused])
                with self._lock:
                    del self._refused[: len(refused)]

    def read(self) -> tuple[list[Execution], int]:
        """The newest version of the dataset, in order of end, and its number; -1: there is none."""
        if not self._path.is_dir():
            return [], -1
        with self._writing:
            dataset, _ = self._open()
            version = dataset.version
            executions = [] if version is None else dataset.read(version)
        return sorted(executions, key=lambda e: e.end), -1 if version is None else version

    def _open(self) -> tuple[Dataset, Rejections]:
        if self._tables is None:
            from malearn.data.dataset import Dataset
            from malearn.data.rejections import Rejections

            self._tables = Dataset(self._path, self._tool_type), Rejections(self._rejected)
        return self._tables
