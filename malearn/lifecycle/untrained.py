"""Untrained rows: what a dataset holds that no registered version was trained on."""

from __future__ import annotations

from malearn.data.dataset import Dataset
from malearn.kernel.tool_types import ToolType
from malearn.lifecycle import registry, trained_on
from malearn.lifecycle.registry import Version

__all__ = ["count", "full"]


def count(dataset: Dataset) -> int:
    """How many executions of `dataset` the newest version of its tool type was not trained on.

    All of them where there is no version, or where the newest does not fit the declaration any
    more. Versions that a person trained on a part of the data do not count. What is new is what
    was ingested since, by the versions of the dataset: the clocks of those who wrote executions
    are not asked. Needs `mlflow_connection.connect` first.
    """
    rows = dataset.rows
    versions = full(dataset.tool_type) if rows else []
    seen = trained_on.of_version(versions[0], dataset.tool_type) if versions else None
    if seen is None:
        return rows
    trained_with = versions[0].tags.get("malearn.dataset_version", "")
    # Registered without a dataset: numbers of rows are all there is to compare.
    if not trained_with.isdigit():
        return max(rows - seen.rows, 0)
    # Replaced rows count as added, and retention deletes: there may be fewer left than came in.
    return min(rows, dataset.rows_added_since(int(trained_with)))


def full(tool_type: ToolType) -> list[Version]:
    """The versions that were trained on all that their dataset held, newest first."""
    return [v for v in registry.versions(tool_type) if trained_on.LIMITS not in v.tags]
