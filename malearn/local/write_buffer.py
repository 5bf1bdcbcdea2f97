"""Executions on their way into a dataset and its CSV file, and rejected ones to the rejections.

A commit costs milliseconds, whatever is in it: so single rows wait here for
company. What could not be written stays, in order, for the next attempt.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from malearn.kernel.records import Execution, Rejected
from malearn.kernel.tool_types import ToolType
from malearn.local.csv_export import CsvExport

if TYPE_CHECKING:
    from malearn.data.dataset import Dataset
    from malearn.data.rejections import Rejections

__all__ = ["WriteBuffer"]


class WriteBuffer:
    """The dataset in `directory`, the rejections at `rejected`, and what waits. Thread-safe.

    `source` says in a rejection where it came from. A directory that holds a CSV file alone, such
    as the original's, begins with what is in it.
    """

    def __init__(self, directory: Path, rejected: Path, tool_type: ToolType, source: str) -> None:
        self._path, self._rejected = directory / "executions", rejected
        self._csv = CsvExport(directory, tool_type)
        self._tool_type, self._source = tool_type, source
        self._waiting: list[Execution] = []
        self._refused: list[tuple[Rejected, float | None, float | None]] = []
        self._tables: tuple[Dataset, Rejections] | None = None
        # Two, so that `add`, on the caller's thread, never waits for a commit: the first guards the
        # lists, the second the tables.
        self._lock, self._writing = threading.Lock(), threading.RLock()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._refused)

    def add(self, execution: Execution) -> None:
        with self._lock:
            self._waiting.append(execution)

    def reject(self, rejected: Rejected, end: float | None, seconds: float | None) -> None:
        """Keep the rejection of an execution that ended at `end` after `seconds`, if known."""
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
                    # Only what was written: more may be behind it. After an error all stays.
                    del self._waiting[: len(waiting)]
                self._csv.add(waiting, dataset)
            if refused:
                name = self._tool_type.name
                rejections.append([RejectedRow(r, self._source, name, e, s) for r, e, s in refused])
                with self._lock:
                    del self._refused[: len(refused)]

    def read(self) -> tuple[list[Execution], int]:
        """The newest version of the dataset, in order of end, and its number; -1: there is none."""
        if not self._path.is_dir() and not self._csv.file.is_file():
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

            dataset = Dataset(self._path, self._tool_type)
            # Only once, into a new table: afterwards the file is a copy of the table, not a source.
            if dataset.version is None:
                for batch in self._csv.found():
                    dataset.append(batch)
            self._csv.complete(dataset)
            self._tables = dataset, Rejections(self._rejected)
        return self._tables
