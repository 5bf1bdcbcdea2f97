"""The file of `malearn evaluate --predictions`: one row a scored task, CSV or Parquet."""

from __future__ import annotations

import csv
from pathlib import Path

from malearn.data.delta import parquet_file
from malearn.kernel.errors import InputError
from malearn.learning.evaluation import Evaluation

__all__ = ["SUFFIXES", "check", "write"]

SUFFIXES = (".csv", ".parquet")


def check(path: Path) -> None:
    """Raise `InputError` where no such file can be written, before a replay takes minutes."""
    if not path.absolute().parent.is_dir():
        raise InputError(str(path), "cannot be written: its directory does not exist")


def write(path: Path, done: Evaluation) -> None:
    """Write what everyone predicted of each scored task. Raises `InputError`."""
    columns = done.columns()
    try:
        if path.suffix.lower() == ".parquet":
            parquet_file.write(path, columns)
            return
        with path.open("w", newline="", encoding="utf-8") as out:
            rows = csv.writer(out)
            rows.writerow(columns)
            rows.writerows(zip(*columns.values(), strict=True))
    except OSError as error:
        raise InputError(str(path), f"cannot be written ({error.strerror or error})") from error
