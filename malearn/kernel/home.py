"""Where malearn keeps things, and where it finds the servers it was given.

A home is one directory: MLflow's database and artifacts, the datasets, the
state of the embedded servers. Nothing is created until something is written.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from malearn.kernel import home_format
from malearn.kernel.errors import InputError

__all__ = ["Home"]

# Two letters at least, so that a drive is none; and one slash, which is what Path leaves of two.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@dataclass(frozen=True, slots=True)
class Home:
    """The directories of one installation, all below `root`."""

    root: Path

    @classmethod
    def find(cls, root: str | os.PathLike[str] | None = None) -> Home:
        """`root`, else `$MALEARN_HOME`, else the working directory.

        Raises `HomeTooNew` for one that a newer malearn wrote, `InputError` for an address.
        """
        given = os.fspath(root or os.environ.get("MALEARN_HOME") or ".")
        if _URL.match(given):
            # A command's option has lost one slash by now.
            address = re.sub(r":/+", "://", given, count=1)
            raise InputError(
                "home",
                f"must be a directory of this machine, not '{address}'; datasets in object "
                "storage are named by MALEARN_DATA",
            )
        place = Path(given).absolute()
        home_format.check(place)
        return cls(place)

    @property
    def data(self) -> Path:
        """One Delta Lake table per tool type."""
        return self.root / "data"

    @property
    def mlruns(self) -> Path:
        """MLflow's database (`mlflow.db`) and artifacts."""
        return self.root / "mlruns"

    @property
    def state(self) -> Path:
        """What the embedded servers keep: Redis, Prefect, logs, the predictor's cache."""
        return self.root / ".malearn"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def cache(self) -> Path:
        """Last good models of a predictor that runs beside this home."""
        return self.state / "cache"
