"""Repair of the tables below a home, and an account of what was lost and found again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from malearn.data import locks
from malearn.data.dataset import Dataset
from malearn.data.delta.repair import DAMAGED
from malearn.data.rejections import Rejections
from malearn.kernel.errors import DatasetError
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolTypes

__all__ = ["DAMAGED", "RepairReport", "repair"]


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was done to one table.

    `damage` lists what was wrong, a sentence each; empty where nothing was. `lost` rows
    stood in files that are gone, and `recovered` of all that was missing were found in others.
    `failure` is the reason why a table could not be repaired.
    """

    table: str
    damage: tuple[str, ...] = ()
    lost: int = 0
    recovered: int = 0
    rows: int = 0
    failure: str = ""


def repair(home: Home, tool_types: ToolTypes) -> Iterator[RepairReport]:
    """Mend every table below `home`, and report on each.

    Rows of lost files are looked for in the files of earlier versions. Entries that were not
    committed are still in the stream, and come in with the next ingestion.
    """
    tables: list[Dataset | Rejections] = [Dataset.open(home, t) for t in tool_types.values()]
    tables.append(Rejections.open(home))
    for table in tables:
        # Table by table: ingestion into the others goes on.
        with locks.dataset_lock(home):
            yield _repair(table)


def _repair(table: Dataset | Rejections) -> RepairReport:
    name = table.path.name
    try:
        damage = table.mend()
        if not damage.found:
            return RepairReport(name, rows=table.rows)
        recovered = table.recover()
        # Recovered may exceed lost: earlier files also bring back rows of missing commits.
        lost = max(damage.lost - recovered, 0)
        return RepairReport(name, damage.found, lost, recovered, table.rows)
    except DatasetError as error:
        return RepairReport(name, failure=str(error))
