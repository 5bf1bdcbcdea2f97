"""A dataset holds each task once, every version can be read again, and writers may race."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from malearn.data import csv_files
from malearn.data.dataset import Dataset
from malearn.data.key_index import KeyIndex
from malearn.data.recent_durations import RecentDurations
from malearn.data.rejected_row import RejectedRow
from malearn.data.rejections import Rejections
from malearn.kernel.errors import DatasetError
from malearn.kernel.home import Home
from malearn.kernel.records import Execution, Rejected, RejectReason
from malearn.kernel.tool_types import Feature, ToolType

TOOL = ToolType("tool", ("tool",), "cpu", (Feature("a"), Feature("b")))


def execution(number: int, end: float | None = None, **changes: object) -> Execution:
    start = 1000.0 + number
    made = Execution(
        f"{UUID(int=number)}-tool_{number % 3}",
        f"tool_{number % 3}",
        "tool",
        start,
        end if end is not None else start + 1.0 + number % 7,
        (float(number), math.nan),
        (math.nan, -0.5),
        "query",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def same(one: list[Execution], other: list[Execution]) -> bool:
    """Equal, where NaN equals NaN."""
    return sorted(map(repr, one)) == sorted(map(repr, other))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(tmp_path / "data" / "tool", TOOL)


def test_what_is_appended_reads_back_in_order_of_start(dataset: Dataset) -> None:
    rows = [execution(n) for n in (3, 1, 2)]
    rows[0] = replace(rows[0], predicted=2.5, model_version=7, ran_context=("qwen", "", "3"))
    dataset.append(rows)
    assert repr(dataset.read()) == repr(sorted(rows, key=lambda e: e.start))


def test_a_dataset_that_was_never_written_to_is_empty(dataset: Dataset) -> None:
    assert (dataset.version, dataset.rows, dataset.read(), dataset.history()) == (None, 0, [], [])
    assert dataset.append([]).version is None
    assert dataset.ends(["x"]).tolist() == [-math.inf]
    assert dataset.recent_log_seconds(["x"]) == {}
    assert not dataset.path.exists()


def test_every_version_can_be_read_again(dataset: Dataset) -> None:
    versions = [dataset.append([execution(n)]).version for n in range(3)]
    assert [len(dataset.read(version)) for version in versions] == [1, 2, 3]
    with pytest.raises(DatasetError, match=r"Dataset tool: .*99"):
        dataset.read(99)


def test_history_tells_each_commit(dataset: Dataset) -> None:
    before = time.time() - 1
    dataset.append([execution(1), execution(2)])
    newest = dataset.history()[0]
    assert (newest.version, newest.rows_added, newest.operation) == (1, 2, "WRITE")
    assert before < newest.time < time.time() + 1


def test_a_task_that_is_there_is_not_added_again(dataset: Dataset) -> None:
    first = dataset.append([execution(1), execution(1)])
    again = Dataset(dataset.path, TOOL).append([execution(1), execution(1, end=1001.5)])
    assert (len(first.added), again.added, again.version) == (1, (), first.version)
    assert again.duplicates == (execution(1).task_id,)
    assert dataset.rows == 1


def test_a_later_end_takes_the_place_of_the_earlier_in_one_commit(dataset: Dataset) -> None:
    before = dataset.append([execution(1), execution(2)]).version
    later = execution(1, end=1500.0)
    after = dataset.append([later, execution(3)])
    assert after.replaced == (later.task_id,) and len(after.added) == 1
    assert after.version == (before or 0) + 1
    assert same(dataset.read(), [later, execution(2), execution(3)])
    assert same(dataset.read(before), [execution(1), execution(2)])
    assert dataset.append([execution(1)]).duplicates


@pytest.mark.parametrize("hostile", ["it's", 'x" OR 1=1 --', "\x00", "任务", "a" * 10_000, "\\"])
def test_hostile_names_are_stored_as_they_are(dataset: Dataset, hostile: str) -> None:
    odd = execution(1, task_id=hostile, function=hostile, query=hostile)
    dataset.append([odd])
    dataset.append([replace(odd, end=odd.end + 1)])
    assert same(dataset.read(), [replace(odd, end=odd.end + 1)])


def test_a_position_is_committed_with_the_rows_and_never_moves_back(dataset: Dataset) -> None:
    assert dataset.position("stream") is None
    dataset.append([execution(1)], ("stream", 5))
    dataset.append([execution(2)], ("stream", 3))
    assert dataset.position("stream") == 5
    assert dataset.rows == 2


def test_the_recent_past_is_the_same_however_rows_came_in(tmp_path: Path) -> None:
    rows = [execution(n) for n in range(30)]
    forth, back = Dataset(tmp_path / "forth", TOOL), Dataset(tmp_path / "back", TOOL)
    forth.append(rows)
    for at in range(30, 0, -10):
        back.append(rows[at - 10 : at])
    names = ["tool_0", "tool_1", "unknown"]
    assert forth.recent_log_seconds(names, 4) == back.recent_log_seconds(names, 4)
    ended = sorted((e for e in rows if e.function == "tool_0"), key=lambda e: (e.end, e.task_id))
    expected = [math.log(e.seconds) for e in ended[-4:]]
    assert forth.recent_log_seconds(names, 4)["tool_0"] == pytest.approx(expected)
    fresh = Dataset(forth.path, TOOL)
    assert fresh.recent_log_seconds(names) == forth.recent_log_seconds(names)


def test_a_trickle_leaves_few_files_and_every_version(dataset: Dataset) -> None:
    rows = [execution(n) for n in range(40)]
    for row in rows:
        dataset.append([row])
    files = DeltaTable(str(dataset.path)).file_uris()
    assert len(files) < 10
    assert same(dataset.read(), rows)
    assert len(dataset.read(5)) == 5
    assert dataset.append(rows).added == ()
    assert (
        sum(commit.rows_added for commit in dataset.history() if commit.operation == "WRITE") == 40
    )


def test_what_is_known_of_a_table_outlives_its_tidying(dataset: Dataset) -> None:
    other = Dataset(dataset.path, TOOL)
    for number in range(20):
        dataset.append([execution(number)])
        assert other.append([execution(number)]).added == ()
        other.append([execution(100 + number)])
    assert dataset.rows == other.rows == 40


def test_a_table_that_lacks_a_feature_reads_it_as_missing(dataset: Dataset) -> None:
    dataset.append([execution(1)])
    wider = replace(TOOL, features=(Feature("c"), *TOOL.features))
    grown = Dataset(dataset.path, wider)
    (read,) = grown.read()
    assert [math.isnan(number) for number in read.serve] == [True, False, True]
    grown.append([execution(2, serve=(9.0, 1.0, 2.0), ran=(1.0, 1.0, 1.0))])
    assert grown.read()[1].serve == (9.0, 1.0, 2.0)
    narrow = Dataset(dataset.path, replace(TOOL, features=(Feature("b"),)))
    narrow.append([execution(3, serve=(4.0,), ran=(4.0,))])
    assert [e.serve[0] for e in narrow.read()][1:] == [2.0, 4.0]
    assert len(grown.read()) == 3


def test_a_replacement_may_bring_a_new_feature(dataset: Dataset) -> None:
    dataset.append([execution(1)])
    grown = Dataset(dataset.path, replace(TOOL, features=(Feature("c"), *TOOL.features)))
    grown.append([execution(1, end=1999.0, serve=(9.0, 1.0, 2.0), ran=(1.0, 1.0, 1.0))])
    assert [e.serve for e in grown.read()] == [(9.0, 1.0, 2.0)]


def test_csv_goes_out_and_comes_in_again(dataset: Dataset, tmp_path: Path) -> None:
    rows = [execution(n, predicted=0.1 * n, model_version=n) for n in range(5)]
    rows[2] = replace(rows[2], serve_context=("", "", "007"), ran_context=("qwen", "vllm", ""))
    dataset.append(rows)
    file = tmp_path / "tool.csv"
    assert dataset.export_csv(file) == 5
    with file.open(encoding="utf-8") as lines:
        header = next(csv.reader(lines))
    assert header[:5] == ["task_id", "timestamp", "a", "b", "execution_time"]
    back = [e for batch in csv_files.read(file, TOOL) for e in batch]
    assert all(isinstance(e, Execution) for e in back)
    assert same([e for e in back if isinstance(e, Execution)], rows)


def test_features_named_as_columns_of_the_file_go_out_and_come_in_again(tmp_path: Path) -> None:
    names = ("execution_time", "timestamp", "function", "a", "serve_a", "ran_timestamp")
    tool = ToolType("tool", ("tool",), "cpu", tuple(map(Feature, names)))
    row = execution(1, serve=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0), ran=(6.0, 5.0, 4.0, 3.0, 2.0, 1.0))
    dataset, file = Dataset(tmp_path / "data" / "tool", tool), tmp_path / "tool.csv"
    dataset.append([row])
    dataset.export_csv(file)
    assert [list(batch) for batch in csv_files.read(file, tool)] == [[row]]


@pytest.mark.parametrize(
    "text", ["=HYPERLINK(1)", " =1", "+1", "-2+3", "@SUM(A1)", "\t=1", "'=1", "＝1", "'", "-"]
)
def test_no_cell_of_an_export_is_a_formula_and_each_comes_back(
    dataset: Dataset, tmp_path: Path, text: str
) -> None:
    row = replace(execution(1), function=text, query=text, ran_context=(text, "", ""))
    dataset.append([row])
    file = tmp_path / "tool.csv"
    dataset.export_csv(file)
    with file.open(encoding="utf-8", newline="") as lines:
        cells = [cell for line in csv.reader(lines) for cell in line]
    runs = [cell for cell in cells if cell.strip()[:1] in tuple("=+-@＝＋－＠")]
    assert [cell for cell in runs if not cell.lstrip("-").replace(".", "").isdigit()] == []
    (back,) = (e for batch in csv_files.read(file, TOOL) for e in batch)
    assert isinstance(back, Execution)
    assert (back.function, back.query, back.ran_context[0]) == (text, text, text.strip())


def test_parquet_goes_out_with_every_column_of_a_version(dataset: Dataset, tmp_path: Path) -> None:
    version = dataset.append([execution(1)]).version
    dataset.append([execution(2)])
    assert dataset.export_parquet(tmp_path / "tool.parquet", version) == 1
    table = pq.read_table(tmp_path / "tool.parquet")
    assert table.num_rows == 1
    assert {"task_id", "run", "seconds", "serve_a", "ran_b", "ingested_at"} <= set(
        table.column_names
    )
    assert table.column("serve_b").null_count == 1


def test_exporting_what_is_not_there_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is none at .*; ingest something first"):
        dataset.export_csv(tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()


def test_a_hundred_thousand_rows_are_read(dataset: Dataset) -> None:
    dataset.append(execution(n) for n in range(100_000))
    assert len(dataset.read()) == 100_000


def test_processes_that_append_the_same_rows_at_once_store_each_once(tmp_path: Path) -> None:
    place = tmp_path / "tool"
    script = f"""
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("rows", {str(__file__)!r})
rows = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rows)
dataset = rows.Dataset(Path({str(place)!r}), rows.TOOL)
for first in range(0, 40, 4):
    dataset.append([rows.execution(n) for n in range(first, first + 8)])
    dataset.append([rows.execution(first, end=5000.0)])
"""
    writers = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    expected = [execution(n, end=5000.0 if n % 4 == 0 and n < 40 else None) for n in range(44)]
    assert same(Dataset(place, TOOL).read(), expected)


def refusal(
    task_id: str, reason: RejectReason, end: float | None = None, record: str = "{}"
) -> RejectedRow:
    rejected = Rejected(task_id, "tool", reason, "why", record)
    return RejectedRow(rejected, "test", "tool", end, None if end is None else 2.0)


class TestRejections:
    @pytest.fixture
    def rejections(self, tmp_path: Path) -> Rejections:
        return Rejections.open(Home(tmp_path))

    def test_each_is_kept_once_with_its_reason(self, rejections: Rejections) -> None:
        one, other = refusal("t1", RejectReason.SKIPPED), refusal("t1", RejectReason.NO_TIMES)
        assert rejections.append([one, one, other]) == [one, other]
        fresh = Rejections(rejections.path)
        assert fresh.append([one, other]) == []
        assert fresh.read() == [one, other]
        assert fresh.counts() == {
            ("tool", RejectReason.SKIPPED): 1,
            ("tool", RejectReason.NO_TIMES): 1,
        }

    def test_those_without_a_task_id_are_told_apart_by_what_they_hold(
        self, rejections: Rejections
    ) -> None:
        a, b = (refusal("", RejectReason.INVALID_JSON, record=text) for text in "ab")
        assert rejections.append([a, b, a]) == [a, b]
        assert Rejections(rejections.path).append([a, b]) == []

    def test_tasks_that_a_verdict_kept_out_are_known_by_their_end(
        self, rejections: Rejections
    ) -> None:
        rejections.append(
            [refusal("t1", RejectReason.OUTLIER, 9.0), refusal("t2", RejectReason.SKIPPED)]
        )
        for table in (rejections, Rejections(rejections.path)):
            assert table.rejected_ends(["t1", "t2", "t3"]).tolist() == [9.0, -math.inf, -math.inf]
            assert table.recent_outliers(["tool"]) == {"tool": [math.log(2.0)]}
        later = refusal("t1", RejectReason.OUTLIER, 12.0)
        assert rejections.append([later]) == [later]
        assert rejections.rejected_ends(["t1"]).tolist() == [12.0]

    def test_a_position_is_committed_even_with_nothing_to_keep(
        self, rejections: Rejections
    ) -> None:
        rejections.append([], ("stream", 4))
        rejections.append([], ("stream", 2))
        assert (rejections.position("stream"), rejections.rows) == (4, 0)

    def test_a_trickle_of_them_leaves_few_files(self, rejections: Rejections) -> None:
        kept = [refusal(f"t{number}", RejectReason.SKIPPED) for number in range(30)]
        for number, one in enumerate(kept):
            assert rejections.append([one], ("stream", number)) == [one]
        assert len(DeltaTable(str(rejections.path)).file_uris()) < 10
        assert (rejections.position("stream"), rejections.append(kept)) == (29, [])
        assert len(Rejections(rejections.path).read()) == 30

    def test_nothing_is_written_for_nothing(self, rejections: Rejections) -> None:
        assert rejections.append([]) == rejections.read() == []
        assert not rejections.path.exists()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.tuples(st.text(max_size=2), st.floats(0, 9)), max_size=6), max_size=6))
def test_what_was_seen_is_known_with_its_latest_end(batches: list[list[tuple[str, float]]]) -> None:
    seen, expected = KeyIndex(), dict[str, float]()
    for batch in batches:
        seen.add([key for key, _ in batch], [end for _, end in batch])
        for key, end in batch:
            expected[key] = max(end, expected.get(key, 0.0))
    assert len(seen) == len(expected)
    assert seen.ends(list(expected)).tolist() == list(expected.values())
    assert "never" not in seen
    assert seen.ends([]).tolist() == []


def test_only_the_latest_of_each_function_are_remembered() -> None:
    recent = RecentDurations()
    recent.add((f"t{n:04}", "f", float(n % 1000), 1.0 + n) for n in range(2000))
    assert len(recent.log_seconds(["f"], 10_000)["f"]) == 500
    assert recent.log_seconds(["f"], 2)["f"] == pytest.approx([math.log(1000.0), math.log(2000.0)])


def test_edges_read_back(dataset: Dataset) -> None:
    rows = [
        execution(1, predecessors=("run-a", "run-b"), successors=("tool_2",), resource="gpu"),
        execution(2, predecessors=()),
        execution(3),
    ]
    dataset.append(rows)
    assert same(dataset.read(), rows)


def test_a_table_without_edges_is_read_and_gets_them(dataset: Dataset, tmp_path: Path) -> None:
    """As every dataset of before there were any."""
    dataset.append([execution(1)])
    table = DeltaTable(str(dataset.path)).to_pyarrow_table()
    old = Dataset(tmp_path / "data" / "old", TOOL)
    kept = [n for n in table.column_names if n not in ("predecessors", "successors", "resource")]
    write_deltalake(str(old.path), table.select(kept))
    assert same(old.read(), [execution(1)])
    rows = [execution(2, predecessors=("run-a",), successors=("tool_1",), resource="io")]
    old.append(rows)
    assert same(Dataset(old.path, TOOL).read(), [execution(1), *rows])


def test_a_csv_file_carries_edges(dataset: Dataset, tmp_path: Path) -> None:
    rows = [
        execution(1, predecessors=("run-a", "run-b"), successors=("tool_2",), resource="gpu"),
        execution(2, predecessors=()),
        execution(3),
    ]
    dataset.append(rows)
    dataset.export_csv(tmp_path / "tool.csv")
    (found,) = csv_files.read(tmp_path / "tool.csv", TOOL)
    edges = [(e.predecessors, e.successors, e.resource) for e in found if isinstance(e, Execution)]
    assert edges == [(e.predecessors, e.successors, e.resource) for e in rows]
