"""What can be repaired is, what was lost is counted, and nobody else stops meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from malearn.data import quarantine
from malearn.data.dataset import Dataset
from malearn.data.delta import durability
from malearn.data.ingest import Ingest
from malearn.data.quarantine import QuarantineFilter, RetryReport
from malearn.data.rejected_row import RejectedRow
from malearn.data.rejections import Rejections
from malearn.data.repair import RepairReport, repair
from malearn.kernel.errors import DatasetDamaged
from malearn.kernel.home import Home
from malearn.kernel.records import Execution, Rejected, RejectReason
from malearn.kernel.tool_types import declared

TYPES = declared()
SPEECH = TYPES["speech_process"]


def execution(number: int, tool_type: str = "speech_process") -> Execution:
    features = (1.0,) * len(TYPES[tool_type].features)
    task = f"run{number}-{tool_type}"
    return Execution(task, tool_type, tool_type, 1.0 + number, 2.0 + number, features, features)


def newest_commit(table: Path) -> Path:
    return max((table / "_delta_log").glob("*.json"))


def data_file(table: Path) -> Path:
    """One that the newest version needs."""
    return table / next(iter(durability.added_files(newest_commit(table).read_bytes())))


def empty(table: Path) -> None:
    newest_commit(table).write_bytes(b"")


def cut(table: Path) -> None:
    file = newest_commit(table)
    file.write_bytes(file.read_bytes()[:200])


def remove_a_middle_one(table: Path) -> None:
    durability.commit_file(table, 25).unlink()


def ruin_the_checkpoint(table: Path) -> None:
    for file in (table / "_delta_log").glob("*.checkpoint.parquet"):
        file.write_bytes(b"garbage")


def lose_a_file(table: Path) -> None:
    data_file(table).unlink()


def ruin_a_file(table: Path) -> None:
    data_file(table).write_bytes(b"garbage")


#: How each leaves the rows: all of them can be found again, or one is lost for good.
DAMAGES: list[tuple[Callable[[Path], None], str, int]] = [
    (empty, "was empty or cut", 0),
    (cut, "was empty or cut", 0),
    (remove_a_middle_one, "commit 25 was missing", 0),
    (ruin_the_checkpoint, "could not be read; the log is used instead", 0),
    (
        lose_a_file,
        "with 1 row was missing: task run24-speech_process, ended 1970-01-01 00:00:26",
        1,
    ),
    (ruin_a_file, "with 1 row could not be read", 1),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose dataset has 25 rows in as many commits, and a checkpoint."""
    root = tmp_path_factory.mktemp("written")
    dataset = Dataset.open(Home(root), SPEECH)
    for number in range(25):
        dataset.append([execution(number)])
    return root


@pytest.mark.parametrize(
    ("damage", "said", "lost"), DAMAGES, ids=lambda one: getattr(one, "__name__", str(one)[:24])
)
def test_a_damaged_table_is_named_and_repaired(
    written: Path, tmp_path: Path, damage: Any, said: str, lost: int
) -> None:
    import shutil

    home = Home(shutil.copytree(written, tmp_path / "home"))
    table = home.data / SPEECH.name
    damage(table)
    with pytest.raises(DatasetDamaged, match=r"speech_process is damaged .*doctor --repair"):
        Dataset.open(home, SPEECH).read()
    done = {report.table: report for report in repair(home, TYPES)}
    report = done.pop("speech_process")
    assert any(said in sentence for sentence in report.damage), report
    assert (report.rows, report.lost, report.failure) == (25 - lost, lost, "")
    assert len(Dataset.open(home, SPEECH).read()) == 25 - lost
    assert set(done.values()) == {RepairReport(name) for name in done}
    assert [r.damage for r in repair(home, TYPES)] == [()] * 5  # all is well now
    Dataset.open(home, SPEECH).append([execution(99)])


def test_of_a_lost_file_the_tasks_are_named_as_far_as_the_log_tells(home: Home) -> None:
    dataset = Dataset.open(home, SPEECH)
    dataset.append([execution(number) for number in range(1, 8)])
    lose_a_file(dataset.path)
    (report,) = (one for one in repair(home, TYPES) if one.table == SPEECH.name)
    (sentence,) = report.damage
    assert (report.rows, report.lost) == (0, 7)
    assert "with 7 rows was missing: tasks between run1-speech_process and run7-" in sentence
    assert sentence.endswith("ended 1970-01-01 00:00:03 to 1970-01-01 00:00:09 UTC")


def test_ingestion_of_other_tool_types_goes_on_and_the_rows_wait(home: Home) -> None:
    Ingest(home, TYPES).take([execution(1), execution(1, "llm_process")], "test")
    empty(home.data / SPEECH.name)
    batch = [execution(2), execution(2, "llm_process"), replace(execution(3), function="f")]
    report = Ingest(home, TYPES).take(batch, "test")
    assert report.records == report.accounted == 3
    assert report.tool_types["llm_process"].accepted == 1
    damaged = report.tool_types["speech_process"]
    assert damaged.quarantined == 2 and "doctor --repair" in damaged.refused[0]

    (speech,) = (one for one in repair(home, TYPES) if one.table == "speech_process")
    assert speech.rows == 1
    which = QuarantineFilter(TYPES, reason=RejectReason.DATASET_DAMAGED)
    done = sum(quarantine.retry(Ingest(home, TYPES), which), RetryReport())
    assert done.accepted == {"speech_process": 2}
    assert Dataset.open(home, SPEECH).rows == 3


def test_what_was_rejected_is_repaired_too(home: Home) -> None:
    rejections = Rejections.open(home)
    for number in range(3):
        one = Rejected(f"run{number}-f", "f", RejectReason.SKIPPED, "")
        rejections.append([RejectedRow(one, "test", None, 2.0)])
    cut(rejections.path)
    report = list(repair(home, TYPES))[-1]
    assert (report.table, report.rows, report.lost) == ("_rejected", 3, 0)
