"""Counts and figures that flows leave in the home, for `/metrics` to show.

One JSON file below `.malearn/metrics`, written under a lock: flows run in processes of their own,
which end before anybody asks. Each figure costs its label values, not what was ever logged.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from malearn.kernel.home import Home
from malearn.platform import private

__all__ = ["MetricStore", "Sample"]

_Stored = dict[str, list[tuple[dict[str, str], float]]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of the metric `name`, for these labels."""

    name: str
    labels: Mapping[str, str]
    value: float


class MetricStore:
    """The figures of one home. A damaged file counts as empty: counters then begin at zero."""

    def __init__(self, home: Home) -> None:
        self._file = home.state / "metrics" / "figures.json"

    def read(self) -> list[Sample]:
        """Every figure, in the order of their names."""
        return [
            Sample(name, labels, value)
            for name, values in sorted(self._load().items())
            for labels, value in values
        ]

    def update(self, *, add: Iterable[Sample] = (), put: Iterable[Sample] = ()) -> None:
        """Add to counters, and put gauges in place of what stood for the same labels."""
        private.make_directory(self._file.parent)
        # A file of its own: the figures are replaced by renaming, and a lock on them with them.
        lock = os.open(self._file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released when it is closed
            stored = self._load()
            for sample, keep in [*((s, True) for s in add), *((s, False) for s in put)]:
                values = stored.setdefault(sample.name, [])
                labels = dict(sample.labels)
                before = sum(v for known, v in values if known == labels) if keep else 0.0
                values[:] = [one for one in values if one[0] != labels]
                values.append((labels, before + sample.value))
            self._save(stored)
        finally:
            os.close(lock)

    def _load(self) -> _Stored:
        try:
            content = json.loads(self._file.read_bytes())
            return {name: [(dict(k), float(v)) for k, v in vs] for name, vs in content.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _save(self, stored: _Stored) -> None:
        fresh = self._file.with_suffix(f".{os.getpid()}.new")
        _write_private(fresh, json.dumps(stored))
        fresh.replace(self._file)


def _write_private(path: Path, text: str) -> None:
    # The mode before the content.
    path.touch(0o600)
    path.write_text(text, "utf-8")
