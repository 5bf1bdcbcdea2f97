"""The log file of an embedded server, and its last meaningful line since the start."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

__all__ = ["Log"]

MAX_BYTES = 16 * 2**20  # a larger log is rotated, replacing the one rotated before
#: As Redis begins its lines (`4711:M 02 Jan 2026 10:00:00.000 * `), and as Python's logging does in
#: MLflow and Prefect (`2026/01/02 10:00:00 INFO `).
TIME_STAMP = re.compile(r"^(\d+:[A-Z] \d+ \w+ \d+ [\d:.]+ [*#.-] |[\d/-]+ [\d:.]+,? [A-Z]+:?\s+)")
MAX_LINE = 200  # characters of a line that go into a sentence


@dataclass(frozen=True, slots=True)
class Log:
    """An open log file of one server, and where this start begins in it."""

    file: BinaryIO
    path: Path
    begin_at: int

    @classmethod
    def begin(cls, path: Path) -> Log:
        """Open `path` for appending, under a line with the time."""
        # Only at a start: a running server keeps its file open and would write on into the old one.
        if path.exists() and path.stat().st_size > MAX_BYTES:
            path.replace(path.with_suffix(".old.log"))
        path.touch(0o600)  # a log may name what only its owner should know
        # Unbuffered: the server writes to the same file, and this line must come first.
        file = path.open("ab", buffering=0)
        file.write(f"--- {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())
        return cls(file, path, file.tell())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.file.close()

    def last_line(self) -> str:
        """The last line that begins with a word, without its time stamp; "" without one.

        Not the code lines of a traceback, nor SQLAlchemy's footnotes in brackets.
        """
        with self.path.open("rb") as file:
            file.seek(self.begin_at)
            lines = file.read().decode("utf-8", "replace").splitlines()
        meaningful = [line.strip() for line in lines if re.match(r"\w+\W*\w", line)]
        return TIME_STAMP.sub("", meaningful[-1])[:MAX_LINE].rstrip(".") if meaningful else ""
