"""Maintenance of the datasets: retention, compaction and vacuum.

Nothing is deleted unless it is asked for. Deleted rows stay in the earlier versions of the
table; a vacuum removes the files of old versions, but never those of a version that a
registered model was trained on, which the caller names.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from malearn.data import locks, validation_pages
from malearn.data.dataset import Dataset
from malearn.data.rejections import Rejections
from malearn.kernel.errors import InputError
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolType

__all__ = [
    "REJECTED",
    "REPORTS",
    "WEEK",
    "Limits",
    "MaintenanceReport",
    "places",
    "reports",
    "tidy",
]

#: What else lies beside the datasets, by the name of its directory.
REJECTED, REPORTS = "_rejected", validation_pages.FOLDER
#: Hours for which a vacuum keeps files that only old versions need.
#: A week, which is Delta's own default: readers of an old version have that long to finish.
WEEK = 168.0

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of each table to keep; what has no limit is kept whole.

    >>> limits = Limits.parse("365 llm_process=90", "--keep-days", ["llm_process", "vlm_process"])
    >>> limits.limit_for("llm_process"), limits.limit_for("vlm_process")
    (90.0, 365.0)
    """

    everywhere: float | None = None
    named: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(
        cls, text: str, setting: str, names: Collection[str], *, whole: bool = False
    ) -> Limits:
        """From `NUMBER` for all of `names` or `NAME=NUMBER` for one, separated by blanks or commas.

        `whole` numbers are what rows are counted in. Raises `InputError`, naming `setting`.
        """
        everywhere, named = None, {}
        for word in text.replace(",", " ").split():
            name, equals, number = word.rpartition("=")
            if equals and name not in names:
                raise InputError(setting, f"there is no '{name}'; limits hold for {_list(names)}")
            try:
                limit = float(number)
            except ValueError:
                limit = math.nan
            # NaN, from above or as it was given, compares false and ends here, too.
            if not 0.0 < limit < math.inf or (whole and not limit.is_integer()):
                number = "a whole number" if whole else "a number"
                raise InputError(setting, f"'{word}' is neither {number} above 0 nor NAME=NUMBER")
            if equals:
                named[name] = limit
            else:
                everywhere = limit
        return cls(everywhere, named)

    def limit_for(self, name: str) -> float | None:
        """The limit for `name`, or None."""
        return self.named.get(name, self.everywhere)


@dataclass(frozen=True, slots=True)
class MaintenanceReport:
    """What was done to one table, or to the reports.

    `rows` and `version` are the table's afterwards, `files_compacted` by how many fewer
    files it reads, `files_vacuumed` how many were deleted from the disk, `pinned_versions`
    those that models were trained on.
    """

    name: str
    rows: int = 0
    rows_deleted: int = 0
    files_compacted: int = 0
    files_vacuumed: int = 0
    version: int | None = None
    pinned_versions: tuple[int, ...] = ()


def places(tool_types: Iterable[str]) -> list[str]:
    """Everything that a limit can be set for."""
    return [*tool_types, REJECTED, REPORTS]


def tidy(
    home: Home,
    tool_type: ToolType | None,
    *,
    keep: Collection[int] = (),
    days: float | None = None,
    rows: float | None = None,
    unused_hours: float = WEEK,
) -> MaintenanceReport:
    """Delete rows beyond the limits of retention, compact small files, vacuum unused ones.

    Of the dataset of `tool_type`, or of the rejections without one. What ended (was
    rejected) more than `days` ago goes, and all but the newest `rows`; of rows that ended at one
    moment all stay or go. The files of
    versions in `keep`, and of the newest, stay; others once they have been of no use to
    it for `unused_hours`. Waits for its turn. Raises `DatasetError`.
    """
    with locks.dataset_lock(home):
        if tool_type is None:
            rejections = Rejections.open(home)
            until = _until(days, rejections.time_of_newest(math.ceil(rows)) if rows else None)
            gone = rejections.delete_before(until) if until is not None else 0
            merged, removed = rejections.compact(), rejections.vacuum(unused_hours)
            return MaintenanceReport(REJECTED, rejections.rows, gone, merged, removed)
        dataset = Dataset.open(home, tool_type)
        until = _until(days, dataset.end_of_newest(math.ceil(rows)) if rows else None)
        # In this order: deletion rewrites files, compaction replaces them, and the vacuum removes
        # what both have left behind, once it is old enough.
        gone = dataset.delete_before(until) if until is not None else 0
        merged, removed = dataset.compact(), dataset.vacuum(keep, unused_hours)
        kept = tuple(sorted(keep))
        return MaintenanceReport(
            tool_type.name, dataset.rows, gone, merged, removed, dataset.version, kept
        )


def reports(home: Home, days: float | None) -> MaintenanceReport:
    """Delete the validation reports older than `days`."""
    pages = validation_pages.written(home)
    until = _until(days, None)
    old = [page for page, at in pages.items() if until is not None and at < until]
    for page in old:
        validation_pages.delete(home, page)
    return MaintenanceReport(REPORTS, len(pages) - len(old), len(old), files_vacuumed=len(old))


def _until(days: float | None, newest: float | None) -> float | None:
    """The moment before which all goes, the later of two; None where all stays."""
    moments = [newest] if newest is not None else []
    if days is not None:
        moments.append(time.time() - days * _DAY)
    # Both limits hold at once, so that the stricter one, the later moment, decides.
    return max(moments, default=None)


def _list(names: Collection[str]) -> str:
    return ", ".join(names)
