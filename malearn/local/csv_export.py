"""The CSV file beside a dataset: the same rows, for other programs.

It has the name and the first columns that the original documentation's datasets have, so what
reads those reads this. The table beside it is the truth: the file is written anew from it whenever
they do not agree.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolType

if TYPE_CHECKING:
    from malearn.data.dataset import Dataset

__all__ = ["CsvExport"]

_log = logging.getLogger(__name__)
#: What the original wrote for a task without an id.
_NO_ID = "N/A"


class CsvExport:
    """`<directory>/data/<tool_type>_data.csv`. Not thread-safe."""

    def __init__(self, directory: Path, tool_type: ToolType) -> None:
        self.file = directory / "data" / f"{tool_type.name}_data.csv"
        self._tool_type = tool_type
        self._complete = False

    def found(self) -> Iterator[list[Execution]]:
        """The executions of a file that is older than the dataset, such as the original's.

        Raises `InputError` for a file that is no such dataset.
        """
        from malearn.data import csv_files

        number = 0
        for batch in csv_files.read(self.file, self._tool_type) if self.file.is_file() else ():
            rows = [one for one in batch if isinstance(one, Execution)]
            if len(rows) < len(batch):
                _log.warning("%s: %d rows cannot be used", self.file, len(batch) - len(rows))
            named = []
            for row in rows:
                number += 1
                if row.task_id == _NO_ID:
                    # With one id for all, all but one would be dropped as duplicates.
                    row = replace(row, task_id=f"row{number}-{self._tool_type.name}")
                named.append(row)
            yield named

    def add(self, executions: list[Execution], dataset: Dataset) -> None:
        """Write what has just been added to `dataset`. A file that cannot be written is logged."""
        from malearn.data import csv_files

        try:
            # A file that a person removed is written anew, with its header.
            if self._complete and self.file.is_file():
                csv_files.append(self.file, self._tool_type, executions)
            else:
                self._write(dataset)
        except OSError as error:
            # Logged once: further attempts are likely to fail for the same reason.
            if self._complete:
                _log.warning("%s could not be written: %s", self.file, error)
            self._complete = False

    def complete(self, dataset: Dataset) -> None:
        """Write the file anew unless it holds all of `dataset`, in its columns."""
        from malearn.data import csv_files

        try:
            with self.file.open("r", encoding="utf-8", newline="") as lines:
                first = next(lines, "").rstrip("\r\n")
                rows = sum(1 for _ in lines)
        except (OSError, UnicodeDecodeError):
            first, rows = "", 0
        expected = ",".join(csv_files.columns(self._tool_type))
        # It may have more lines: a replaced execution is appended again, its old line stays.
        self._complete = first == expected and rows >= dataset.rows
        if not self._complete and dataset.rows:
            self.add([], dataset)

    def _write(self, dataset: Dataset) -> None:
        from malearn.data import csv_files

        self.file.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.file.with_name(f".{self.file.name}")
        csv_files.write(scratch, self._tool_type, dataset.read())
        scratch.replace(self.file)
        self._complete = True
