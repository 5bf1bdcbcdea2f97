"""The flow that keeps the datasets small, and every version that a model was trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from malearn.data import maintenance
from malearn.data.maintenance import Limits, MaintenanceReport
from malearn.flows import failure, parameters, progress
from malearn.kernel import generic, text
from malearn.kernel.errors import InputError
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolTypes
from malearn.lifecycle import mlflow_connection, registry

__all__ = ["maintain"]

_TRACKING = "MLFLOW_TRACKING_URI"


@flow(
    name="maintain",
    flow_run_name="maintain",
    validate_parameters=False,
    on_failure=[failure.record_cause],
)
def maintain(
    home: parameters.Home = None,
    keep_days: Annotated[
        str | None,
        parameters.described(
            "Delete rows older than so many days, such as 365 llm_process=90; without "
            "it MALEARN_KEEP_DAYS holds."
        ),
    ] = None,
    keep_rows: Annotated[
        str | None,
        parameters.described(
            "Keep only the newest so many rows of each table, in the same form; "
            "without it MALEARN_KEEP_ROWS holds."
        ),
    ] = None,
    unused_hours: Annotated[
        float, parameters.described("Remove files that no version has used for so many hours.")
    ] = maintenance.WEEK,
) -> list[MaintenanceReport]:
    """Delete rows beyond the retention limits, compact small files, vacuum unused ones.

    `keep_days` and `keep_rows` are limits such as `"365 llm_process=90"`, else
    `$MALEARN_KEEP_DAYS` and `$MALEARN_KEEP_ROWS`; without any, every row stays. MLflow at
    `$MLFLOW_TRACKING_URI` lists the versions that models were trained on, which are pinned;
    nothing is touched if it does not answer.
    """
    place = Home.find(home)
    types = generic.declared(place)
    days = _limits(keep_days, "MALEARN_KEEP_DAYS", types)
    rows = _limits(keep_rows, "MALEARN_KEEP_ROWS", types, whole=True)
    # NaN compares false; 1e9 hours are more than a time can be counted back by.
    if not 0.0 <= unused_hours <= 1e9:
        raise InputError("unused_hours", f"must be 0 or more hours, not {unused_hours:g}")
    uri = os.environ.get(_TRACKING, "")
    if not uri:
        raise InputError(
            _TRACKING, "is not set; MLflow is needed to know which versions models were trained on"
        )
    # Before anything is deleted: a failure here must leave every table as it is.
    keep = trained_on(types, uri)
    done = []
    bar = progress.Steps("progress-maintenance", len(types) + 1, "Maintenance")
    for name, tool_type in types.items():
        bar.next(f"Maintaining {name}")
        done.append(
            maintenance.tidy(
                place,
                tool_type,
                keep=keep[name],
                days=days.limit_for(name),
                rows=rows.limit_for(name),
                unused_hours=unused_hours,
            )
        )
    # A table without a tool type; no model is trained on it, so no version is pinned.
    rejected = maintenance.REJECTED
    bar.next("Maintaining the rejected records")
    done.append(
        maintenance.tidy(
            place,
            None,
            days=days.limit_for(rejected),
            rows=rows.limit_for(rejected),
            unused_hours=unused_hours,
        )
    )
    # Pages of reports have no versions, so there is nothing to compact or to pin.
    done.append(maintenance.reports(place, days.limit_for(maintenance.REPORTS)))
    bar.end()
    create_markdown_artifact(
        _summary(done, unused_hours),
        key="maintenance",
        description="Rows deleted, files compacted and vacuumed",
    )
    progress.finished(
        # Without the last, whose rows are pages of reports.
        f"Deleted {text.counted(sum(m.rows_deleted for m in done[:-1]), 'row')}, "
        f"compacted {text.counted(sum(m.files_compacted for m in done), 'file')}, "
        f"vacuumed {sum(m.files_vacuumed for m in done):,}"
    )
    return done


@task(cache_policy=NO_CACHE)
def trained_on(types: ToolTypes, uri: str) -> dict[str, set[int]]:
    """The versions of each dataset that models registered at `uri` were trained on."""
    with mlflow_connection.connected(uri):
        return {name: registry.dataset_versions(t) for name, t in types.items()}


def _limits(given: str | None, setting: str, types: ToolTypes, *, whole: bool = False) -> Limits:
    text = os.environ.get(setting, "") if given is None else given
    return Limits.parse(text, setting, maintenance.places(types), whole=whole)


def _summary(done: Sequence[MaintenanceReport], unused_hours: float) -> str:
    lines = [
        "| table | rows | rows deleted | files compacted | files vacuumed | pinned versions |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for m in done:
        kept = ", ".join(f"v{version}" for version in m.pinned_versions) or "–"
        lines.append(
            f"| {m.name} | {m.rows:,} | {m.rows_deleted:,} | {m.files_compacted:,} "
            f"| {m.files_vacuumed:,} | {kept} |"
        )
    lines += [
        "",
        "*Rows deleted*: beyond the retention limits; earlier versions may still hold them. "
        f"*Files vacuumed*: needed only by versions older than {unused_hours:g} hours. *Pinned "
        "versions* are those that a registered model was trained on: their files are kept, so "
        "that it can be refitted exactly. For `_reports`, rows are pages.",
    ]
    return "\n".join(lines)
