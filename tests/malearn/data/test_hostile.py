"""Whatever is thrown at an entrance: no crash, and every record is accounted for by reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import hostile, ingest
from malearn.data import csv_files, run_logs
from malearn.data.batch import Batch
from malearn.kernel import text
from malearn.kernel.errors import InputError
from malearn.kernel.reading import record_reader
from malearn.kernel.records import Record, Rejected, RejectReason
from malearn.kernel.tool_types import declared

TYPES = declared()
TASK = "19725120-6620-445b-9f40-7ceccb20bae2-llm_process"
GOOD = b'"start_time": 1, "end_time": 2, "curr_task_feat": {"text_length": 5}'


def test_hostile_records_are_accounted_for_by_every_entrance(
    redis_url: str, tmp_path: Path
) -> None:
    reports = ingest.hostile_reports(redis_url, tmp_path, 1_500, validate=None)
    found = {name: (given, report) for name, given, report in reports}
    assert len(found) == 7
    for given, report in found.values():
        assert report.records == report.accounted == given
        assert report.accepted > 100
        assert len(report.rejected) > 3


def test_the_same_seed_gives_the_same_records() -> None:
    assert list(hostile.results(200, 3)) == list(hostile.results(200, 3))
    assert len(dict(hostile.results(2_000))) == 2_000


def test_a_long_answer_does_not_keep_a_record_from_teaching() -> None:
    raw = b'{%b, "final_answer": "%b"}' % (GOOD, b"y" * 30_000_000)
    batch = Batch(TYPES)
    batch.add(TASK, raw)
    batch.close()
    assert [e.task_id for e in batch.rows["llm_process"]] == [TASK]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"curr_task_feat": {%b"b": 1}}' % (b'"a": 1, ' * 200_000), "its features are longer"),
        (b'{"a": NaN, "b": "%b"}' % (b"y" * 20_000_000), "it is long, and"),
    ],
)
def test_what_would_fill_the_memory_is_not_decoded(raw: bytes, said: str) -> None:
    rejected = record_reader.read(TASK, raw)
    assert isinstance(rejected, Rejected)
    assert rejected.reason is RejectReason.INVALID_JSON
    assert rejected.detail.startswith(said)
    assert len(rejected.record) <= text.MOST_KEPT


def test_an_entry_of_a_megabyte_is_none() -> None:
    raw = json.dumps({"task_id": TASK, "ran": {"a" * 2**20: 1}}).encode()
    batch = Batch(TYPES)
    batch.add_entry(raw, "entry 1-0")
    (rejected,) = batch.rejected
    assert rejected.detail == "entry 1-0: it is too long to be an entry"


def test_a_line_without_an_end_is_one_rejected_line(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    line = b'{"task_id": "%b", "data": {%b}}\n' % (TASK.encode(), GOOD)
    file.write_bytes(line + b"[" * (70 * 2**20) + b"\n" + line.replace(b"llm", b"vlm"))
    (outcomes,) = run_logs.read([file])
    assert [type(outcome) for outcome in outcomes] == [Rejected, Record, Record]


def test_a_csv_file_whose_header_is_no_header_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "llm.csv"
    file.write_bytes(b"x" * 200_000)
    with pytest.raises(InputError, match=r"llm.csv: is no dataset: .*\.$"):
        next(csv_files.read(file, TYPES["llm_process"]))


def test_a_version_that_is_no_number_is_none() -> None:
    entry = b'{"task_id": "%b", "start": 1, "end": 2, "ran": {"text_length": 5}, %b}'
    batch = Batch(TYPES)
    for version in (b"true", b"-1", b"18446744073709551616", b'"3"', b"3"):
        batch.add_entry(entry % (TASK.encode(), b'"model_version": ' + version), "here")
    assert [e.model_version for e in batch.rows["llm_process"]] == [None] * 4 + [3]
