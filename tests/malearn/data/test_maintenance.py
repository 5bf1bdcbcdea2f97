"""Datasets are kept small without taking from any model what it was trained on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from malearn.data import maintenance
from malearn.data.dataset import Dataset
from malearn.data.ingest import Ingest
from malearn.data.maintenance import Limits, MaintenanceReport
from malearn.data.rejected_row import RejectedRow
from malearn.data.rejections import Rejections
from malearn.kernel.errors import DatasetError, InputError
from malearn.kernel.home import Home
from malearn.kernel.records import Execution, Rejected, RejectReason
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.learning import matrix, regressor
from malearn.lifecycle import logged_models, registry, training

Synthetic = Callable[..., list[Execution]]
DAY = 86_400.0


def test_small_files_are_merged_and_the_rows_stay_the_same(
    home: Home, own_tool_type: ToolType, synthetic: Synthetic
) -> None:
    dataset = Dataset.open(home, own_tool_type)
    for execution in synthetic(own_tool_type, 6):  # after eight, appending merges by itself
        dataset.append([execution])
    before = repr(dataset.read())  # nan is not nan
    done = maintenance.tidy(home, own_tool_type)
    assert (done.rows, done.rows_deleted, done.files_compacted, done.files_vacuumed) == (6, 0, 5, 0)
    assert repr(dataset.read()) == before
    assert len(dataset.read(5)) == 5
    assert maintenance.tidy(home, own_tool_type) == replace(done, files_compacted=0)


def test_what_is_too_old_or_too_much_is_deleted_and_does_not_come_back(
    home: Home, own_tool_type: ToolType, synthetic: Synthetic
) -> None:
    now = time.time()
    executions = [
        replace(e, start=now - age * DAY - 5.0, end=now - age * DAY)
        for age, e in zip((9.0, 7.0, 5.0, 3.0, 1.0), synthetic(own_tool_type, 5), strict=True)
    ]
    ingestion = Ingest(home, ToolTypes([own_tool_type]))
    ingestion.take(executions, "test")
    dataset = ingestion.datasets[own_tool_type.name]

    assert maintenance.tidy(home, own_tool_type, days=8.0).rows_deleted == 1
    assert maintenance.tidy(home, own_tool_type, days=8.0, rows=3).rows_deleted == 1
    assert maintenance.tidy(home, own_tool_type, rows=3, days=100.0).rows_deleted == 0
    assert [e.task_id for e in dataset.read()] == [e.task_id for e in executions[2:]]
    assert len(dataset.read(1)) == 5

    again = ingestion.take(executions, "test")
    assert again.rejected == {"duplicate": 3, "past_retention": 2}
    assert dataset.rows == 3


def test_a_vacuum_keeps_the_versions_it_is_told_to(
    home: Home, own_tool_type: ToolType, synthetic: Synthetic
) -> None:
    dataset = Dataset.open(home, own_tool_type)
    executions = synthetic(own_tool_type, 6)
    for execution in executions:
        dataset.append([execution])
    done = maintenance.tidy(home, own_tool_type, keep=[3, 99], rows=2, unused_hours=0.0)
    assert (done.rows_deleted, done.files_compacted, done.pinned_versions) == (4, 1, (3, 99))
    assert done.files_vacuumed > 0
    assert len(dataset.read(3)) == 3
    assert dataset.rows == 2
    with pytest.raises(DatasetError, match="the files of version 5 were cleaned up"):
        dataset.read(5)
    assert maintenance.tidy(home, own_tool_type, keep=[3], unused_hours=0.0).files_vacuumed == 0
    dataset.append(executions[:1])
    assert Dataset.open(home, own_tool_type).rows == 3


def test_files_in_use_until_lately_stay(
    home: Home, own_tool_type: ToolType, synthetic: Synthetic
) -> None:
    """Whoever began to read a version an hour ago reads it to the end."""
    dataset = Dataset.open(home, own_tool_type)
    for execution in synthetic(own_tool_type, 4):
        dataset.append([execution])
    assert maintenance.tidy(home, own_tool_type).files_vacuumed == 0
    assert len(dataset.read(2)) == 2


def test_a_registered_model_is_fitted_again_exactly_after_everything(
    home: Home, own_tool_type: ToolType, synthetic: Synthetic, connected: str
) -> None:
    types = ToolTypes([own_tool_type])
    dataset = Dataset.open(home, own_tool_type)
    executions = synthetic(own_tool_type, 140)
    for at in range(0, 120, 20):
        dataset.append(executions[at : at + 20])
    version = dataset.version
    assert version is not None
    rows = matrix.build(own_tool_type, dataset.read(version))
    source = training.DatasetVersion(str(dataset.path), version)
    trained = training.train(rows, types, source, families=["xgboost"])
    assert trained.version is not None
    kept = registry.dataset_versions(own_tool_type)
    assert kept == {version}

    for execution in executions[120:]:
        dataset.append([execution])
    maintenance.tidy(home, own_tool_type, keep=kept, rows=10, unused_hours=0.0)
    assert dataset.rows == 10
    with pytest.raises(DatasetError, match="were cleaned up"):
        dataset.read(version + 1)

    registered = registry.version(own_tool_type, trained.version)
    old = Dataset.open(home, own_tool_type).read(int(registered.tags["malearn.dataset_version"]))
    assert repr(old) == repr(list(rows.executions))
    again = regressor.fit("xgboost", matrix.build(own_tool_type, old))
    native = logged_models.load_native(registered.tags["malearn.native"])
    assert np.array_equal(again.seconds(rows.inputs), native.seconds(rows.inputs))


def test_rejections_and_reports_have_limits_too(home: Home) -> None:
    rejections = Rejections.open(home)
    for number in range(4):
        one = Rejected(f"t{number}", "tool", RejectReason.SKIPPED, "why", "{}")
        age = (4 - number) * DAY
        rejections.append([RejectedRow(one, "test", time=time.time() - age)], ("stream", number))
    assert maintenance.tidy(home, None, days=3.5).rows_deleted == 1
    done = maintenance.tidy(home, None, rows=2, unused_hours=0.0)
    assert (done.rows, done.rows_deleted) == (2, 1)
    assert [r.rejected.task_id for r in rejections.read()] == ["t2", "t3"]
    assert rejections.position("stream") == 3

    folder = home.data / maintenance.REPORTS
    folder.mkdir()
    for name, age in (("validation-1.html", 5), ("validation-2.html", 1), ("mine.html", 9)):
        (folder / name).write_text("a page")
        os.utime(folder / name, (time.time() - age * DAY,) * 2)
    assert maintenance.reports(home, None) == MaintenanceReport(maintenance.REPORTS, 2)
    assert maintenance.reports(home, 3.0).rows_deleted == 1
    assert {page.name for page in folder.iterdir()} == {"validation-2.html", "mine.html"}


def test_a_dataset_that_is_not_there_needs_nothing(home: Home, own_tool_type: ToolType) -> None:
    assert maintenance.tidy(home, own_tool_type, days=1.0, rows=1) == MaintenanceReport(
        own_tool_type.name
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nobody=3", "there is no 'nobody'; limits hold for a, b"),
        ("a=soon", "'a=soon' is neither a number above 0 nor NAME=NUMBER"),
        ("0", "'0' is neither a number above 0"),
        ("nan", "'nan' is neither a number above 0"),
    ],
)
def test_a_limit_that_is_none_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=f"--keep-days: {problem}"):
        Limits.parse(text, "--keep-days", ["a", "b"])


def test_rows_are_kept_in_whole_numbers() -> None:
    assert Limits.parse("1e6 a=3", "--keep-rows", ["a"], whole=True) == Limits(1e6, {"a": 3.0})
    with pytest.raises(InputError, match=r"'1\.5' is neither a whole number above 0 nor NAME"):
        Limits.parse("1.5", "--keep-rows", ["a"], whole=True)


def test_a_limit_holds_for_all_that_have_none_of_their_own() -> None:
    limits = Limits.parse("30, b=7", "--keep-days", ["a", "b"])
    assert (limits.limit_for("a"), limits.limit_for("b")) == (30.0, 7.0)
    assert Limits.parse("", "--keep-days", []).limit_for("a") is None
