"""Every line, key and entry that a source holds comes out once, whole runs together."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from malearn.data import csv_files, redis_scan, run_logs
from malearn.data.batch import Outcomes
from malearn.data.stream import Stream
from malearn.kernel.errors import InputError, Unreachable
from malearn.kernel.reading import stream_entries
from malearn.kernel.records import Execution, Record, Rejected, RejectReason
from malearn.kernel.tool_types import declared

TYPES = declared()
LLM = TYPES["llm_process"]


def run(number: int) -> str:
    return str(UUID(int=number))


def value(**changes: object) -> dict[str, object]:
    features = {"text_length": 10, "token_count": 3}
    return {"start_time": 1.0, "end_time": 2.0, "curr_task_feat": features, **changes}


def line(number: int, function: str = "llm_process", **changes: object) -> dict[str, object]:
    task = f"{run(number)}-{function}"
    outer = {"dag_id": run(number), "task_id": task, "func_name": function, "status": "finished"}
    return {**outer, "data": value(), **changes}


def write(path: Path, *lines: object) -> Path:
    texts = [text if isinstance(text, str) else json.dumps(text) for text in lines]
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


def flat(batches: Iterable[Outcomes]) -> list[Any]:
    return [outcome for batch in batches for outcome in batch]


def reasons(outcomes: Iterable[Any]) -> list[RejectReason]:
    return [o.reason for o in outcomes if isinstance(o, Rejected)]


class TestJsonl:
    def test_each_line_becomes_one_record(self, tmp_path: Path) -> None:
        file = write(tmp_path / "log.jsonl", line(1), line(1, "other"), line(2))
        outcomes = flat(run_logs.read([file]))
        assert [(o.run, o.function) for o in outcomes] == [
            (run(1), "llm_process"),
            (run(1), "other"),
            (run(2), "llm_process"),
        ]

    def test_a_batch_holds_whole_runs_however_they_overlap(self, tmp_path: Path) -> None:
        order = [1, 2, 1, 3, 2, 3, 4, 1]
        half = [line(n, f"f{i}") for i, n in enumerate(order)]
        files = [write(tmp_path / "a", *half[:5]), write(tmp_path / "b", *half[5:])]
        batches = list(run_logs.read(files, size=1))
        assert sorted(len(batch) for batch in batches) == [1, 2, 2, 3]
        assert all(len({o.run for o in batch if isinstance(o, Record)}) == 1 for batch in batches)

    def test_a_gzipped_file_is_read_like_a_plain_one(self, tmp_path: Path) -> None:
        packed = tmp_path / "log"  # told by its content, not its name
        packed.write_bytes(gzip.compress(json.dumps(line(1)).encode()))
        assert len(flat(run_logs.read([packed]))) == 1

    def test_a_truncated_last_line_is_rejected_by_name_and_place(self, tmp_path: Path) -> None:
        file = write(tmp_path / "log.jsonl", line(1), json.dumps(line(2))[:-9])
        good, bad = flat(run_logs.read([file]))
        assert isinstance(good, Record)
        assert (bad.reason, bad.task_id) == (RejectReason.INVALID_JSON, "")
        assert bad.detail.startswith("line 2 of log.jsonl: ")

    def test_a_gzipped_file_cut_short_gives_what_it_holds_and_says_so(self, tmp_path: Path) -> None:
        packed = gzip.compress("\n".join(json.dumps(line(n)) for n in range(500)).encode())
        file = tmp_path / "log.gz"
        file.write_bytes(packed[: len(packed) // 2])
        *good, bad = flat(run_logs.read([file]))
        assert good and all(isinstance(o, Record) for o in good)
        assert "cannot be read further" in bad.detail

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("[1]", RejectReason.NOT_AN_OBJECT),
            ("{}", RejectReason.NOT_AN_OBJECT),
            ('{"task_id": 7}', RejectReason.NOT_AN_OBJECT),
            ('{"task_id": "x"}', RejectReason.NOT_AN_OBJECT),
            ('{"task_id": "x", "data": [1]}', RejectReason.NOT_AN_OBJECT),
            ('{"task_id": "x", "data": {}}', RejectReason.NO_TIMES),
            ("{'task_id'}", RejectReason.INVALID_JSON),
            ("\x00\x01", RejectReason.INVALID_JSON),
            ("[" * 100_000, RejectReason.INVALID_JSON),
        ],
    )
    def test_a_bad_line_is_rejected_and_the_next_one_read(
        self, tmp_path: Path, text: str, reason: RejectReason
    ) -> None:
        file = write(tmp_path / "log.jsonl", line(1), text, line(2))
        outcomes = flat(run_logs.read([file]))
        assert reasons(outcomes) == [reason]
        assert len(outcomes) == 3

    def test_nan_is_read_as_python_writes_it(self, tmp_path: Path) -> None:
        features = {"text_length": float("nan"), "token_count": 5}
        file = write(tmp_path / "log.jsonl", line(1, data=value(curr_task_feat=features)))
        (record,) = flat(run_logs.read([file]))
        assert record.features["token_count"] == 5

    def test_blank_lines_and_windows_line_ends_are_no_records(self, tmp_path: Path) -> None:
        file = tmp_path / "log.jsonl"
        file.write_bytes(b"\r\n" + json.dumps(line(1)).encode() + b"\r\n\n  \n")
        assert len(flat(run_logs.read([file]))) == 1

    def test_an_empty_file_holds_no_records(self, tmp_path: Path) -> None:
        assert flat(run_logs.read([write(tmp_path / "log.jsonl")])) == []

    @pytest.mark.parametrize(
        "content", [b"\x89PNG\r\n\x1a\n\x00\x00", b"task_id,x\n1,2\n", b"[\n{}\n]"]
    )
    def test_a_file_that_is_no_jsonl_is_refused_in_one_sentence(
        self, tmp_path: Path, content: bytes
    ) -> None:
        file = tmp_path / "log.bin"
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"log.bin: is no task_exec_result.jsonl: .+\.$"):
            flat(run_logs.read([file]))

    def test_a_missing_file_or_a_directory_is_refused_before_anything_is_read(
        self, tmp_path: Path
    ) -> None:
        good = write(tmp_path / "log.jsonl", line(1))
        with pytest.raises(InputError, match=r"gone.jsonl: does not exist\.$"):
            next(run_logs.read([good, tmp_path / "gone.jsonl"]))
        with pytest.raises(InputError, match="cannot be read"):
            next(run_logs.read([good, tmp_path]))

    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.lists(st.binary(max_size=30) | st.just(b'{"task_id":"a"}'), max_size=8))
    def test_every_line_that_is_not_blank_has_one_outcome(
        self, tmp_path: Path, lines: list[bytes]
    ) -> None:
        file = tmp_path / "log.jsonl"
        text = b"\n".join([json.dumps(line(1)).encode(), *lines])
        file.write_bytes(text)
        expected = sum(1 for piece in text.split(b"\n") if piece.strip())
        assert len(flat(run_logs.read([file], size=3))) == expected

    def test_every_real_record_is_read(self, traces: Path) -> None:
        files = sorted((traces / "maze").glob("run*.jsonl"))
        assert len(flat(run_logs.read(files))) == 5266


HEADER = "task_id,timestamp,text_length,token_count,batch_size,reason,execution_time"


class TestTable:
    def read(self, tmp_path: Path, *rows: str, header: str = HEADER) -> list[Any]:
        file = tmp_path / "llm.csv"
        file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return flat(csv_files.read(file, LLM))

    def test_a_row_is_an_execution_as_it_ran(self, tmp_path: Path) -> None:
        (execution,) = self.read(tmp_path, "t1,1700000000.5,10,3,,1,2.25")
        assert isinstance(execution, Execution)
        assert (execution.start, execution.end) == (1700000000.5, 1700000002.75)
        assert execution.ran == (10.0, 3.0, 1.0, 1.0)
        assert all(number != number for number in execution.serve)
        assert execution.function == "llm_process"

    def test_a_task_id_of_the_schedulers_form_names_the_function(self, tmp_path: Path) -> None:
        (execution,) = self.read(tmp_path, f"{run(1)}-task2_llm_process_qwen,1,10,3,1,0,2")
        assert execution.function == "task2_llm_process_qwen"

    @pytest.mark.parametrize("when", ["2023-11-14T22:13:20", "2023-11-14T22:13:20+00:00", "1.7e9"])
    def test_timestamps_are_seconds_or_iso_8601(self, tmp_path: Path, when: str) -> None:
        (execution,) = self.read(tmp_path, f"t1,{when},10,3,1,0,2")
        assert execution.start == 1.7e9

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ("t1,soon,10,3,1,0,2", RejectReason.BAD_TIMES),
            ("t1,,10,3,1,0,2", RejectReason.NO_TIMES),
            ("t1,1,10,3,1,0,", RejectReason.NO_TIMES),
            ("t1,1,10,3,1,0,fast", RejectReason.BAD_TIMES),
            ("t1,1,10,3,1,0,-2", RejectReason.BAD_TIMES),
            ("t1,1,10,3,1,0,nan", RejectReason.BAD_TIMES),
            ("t1,1,ten,3,1,0,2", RejectReason.INVALID_FEATURE),
            ("t1,1,inf,3,1,0,2", RejectReason.INVALID_FEATURE),
            ("t1,1,,,,,2", RejectReason.NO_FEATURES),
            ("t1,1,10", RejectReason.INVALID_JSON),
            (",1,10,3,1,0,2", RejectReason.INVALID_JSON),
            ("t1," + "9" * 200_000, RejectReason.INVALID_JSON),
        ],
    )
    def test_a_bad_row_is_rejected_and_the_next_one_read(
        self, tmp_path: Path, row: str, reason: RejectReason
    ) -> None:
        outcomes = self.read(tmp_path, row, "t2,1,10,3,1,0,2")
        assert reasons(outcomes) == [reason]
        assert isinstance(outcomes[-1], Execution)

    @pytest.mark.parametrize(
        ("header", "problem"),
        [
            ("a,b", "its header lacks execution_time, task_id, timestamp"),
            ("task_id;timestamp;execution_time", "is separated by ';', not by commas"),
            (HEADER + ",colour", "has columns llm_process does not know: colour"),
            (HEADER + ",reason", "names a column twice"),
        ],
    )
    def test_a_file_of_another_form_is_refused(
        self, tmp_path: Path, header: str, problem: str
    ) -> None:
        with pytest.raises(InputError, match=problem):
            self.read(tmp_path, header=header)


class TestScan:
    def fill(self, client: redis.Redis, runs: int, tasks: int = 3) -> None:
        client.mset(
            {
                f"result:{run(n)}-f{t}_llm_process": json.dumps(value())
                for n in range(runs)
                for t in range(tasks)
            }
        )

    def test_batches_hold_whole_runs(self, redis_url: str, redis_client: redis.Redis) -> None:
        self.fill(redis_client, runs=40)
        batches = list(redis_scan.scan(redis_url, TYPES, size=10))
        seen = [{e.run for e in batch.rows["llm_process"]} for batch in batches]
        assert sum(batch.records for batch in batches) == 120
        assert sum(map(len, seen)) == len(set().union(*seen)) == 40
        assert len(batches) == 10

    def test_nothing_but_results_is_read_and_nothing_is_changed(
        self, redis_url: str, redis_client: redis.Redis
    ) -> None:
        self.fill(redis_client, runs=1, tasks=1)
        redis_client.set(b"func:x", b"pickled code")
        redis_client.rpush("task_completion_queue", "one", "two")
        redis_client.hset("result:hash", "a", "b")
        redis_client.config_resetstat()
        assert [batch.records for batch in redis_scan.scan(redis_url, TYPES)] == [1]
        called = {str(name) for name in redis_client.info("commandstats")}
        wanted = {"cmdstat_scan", "cmdstat_mget", "cmdstat_dbsize"}
        harmless = {"cmdstat_client|setinfo", "cmdstat_hello", "cmdstat_config|resetstat"}
        harmless.add("cmdstat_exists")  # which tells a node of a cluster from a single server
        assert wanted <= called <= wanted | harmless | {"cmdstat_info", "cmdstat_select"}
        assert redis_client.llen("task_completion_queue") == 2

    def test_keys_that_vanish_meanwhile_are_passed_over(
        self, redis_url: str, redis_client: redis.Redis
    ) -> None:
        self.fill(redis_client, runs=20)
        batches = redis_scan.scan(redis_url, TYPES, size=3)
        first = next(batches)
        redis_client.flushall()
        assert first.records == 3
        assert list(batches) == []

    def test_a_value_that_is_no_record_is_rejected(
        self, redis_url: str, redis_client: redis.Redis
    ) -> None:
        redis_client.set(b"result:\xff", b"\xff")
        redis_client.set(b"result:", b"[]")
        (batch,) = redis_scan.scan(redis_url, TYPES)
        assert sorted(reasons(batch.rejected)) == [
            RejectReason.INVALID_JSON,
            RejectReason.NOT_AN_OBJECT,
        ]

    def test_runs_that_are_known_are_left_out(
        self, redis_url: str, redis_client: redis.Redis
    ) -> None:
        self.fill(redis_client, runs=3, tasks=2)
        gone = {f"{run(0)}-f0_llm_process", f"{run(0)}-f1_llm_process", f"{run(1)}-f0_llm_process"}

        def ends(task_ids: Sequence[str]) -> npt.NDArray[np.float64]:
            return np.array([1e9 if task_id in gone else -np.inf for task_id in task_ids])

        (batch,) = redis_scan.scan(redis_url, TYPES, ends=ends)
        assert {e.run for e in batch.rows["llm_process"]} == {run(1), run(2)}
        assert batch.records == 4

    def test_huge_values_are_fetched_a_few_at_a_time(
        self, redis_url: str, redis_client: redis.Redis
    ) -> None:
        payload = json.dumps(value(final_answer="x" * 2**20))
        for n in range(50):
            redis_client.set(f"result:{run(n)}-llm_process", payload)
        (batch,) = redis_scan.scan(redis_url, TYPES)
        assert batch.records == 50

    def test_of_very_many_keys_a_part_is_read_at_a_time_and_each_once(
        self, redis_url: str, redis_client: redis.Redis
    ) -> None:
        odd = ["", "0", "ab", "abc", "x", "ABC", "0f", "[a-f]*", "\n", f"{run(1)}-llm_process"]
        self.fill(redis_client, runs=40)
        redis_client.mset({f"result:{name}": b"{}" for name in odd})
        batches = list(redis_scan.scan(redis_url, TYPES, most_keys=2))
        assert sum(batch.records for batch in batches) == redis_client.dbsize() == 130

    def test_a_redis_that_does_not_answer_is_named_without_its_password(self) -> None:
        sentence = r"Redis at redis://:\*\*\*@127.0.0.1:1/0 cannot be reached .*MALEARN_REDIS_URL"
        with pytest.raises(Unreachable, match=sentence):
            next(redis_scan.scan("redis://:secret@127.0.0.1:1/0", TYPES))

    def test_what_is_no_redis_url_is_refused(self) -> None:
        with pytest.raises(InputError, match="is not a usable Redis URL"):
            next(redis_scan.scan("http://127.0.0.1:1", TYPES))


class TestStream:
    def add(self, client: redis.Redis, number: int, entry_id: str = "*") -> None:
        execution = Execution(
            f"{run(number)}-llm_process",
            "llm_process",
            "llm_process",
            1.0,
            2.0,
            (1.0,) * 4,
            (2.0,) * 4,
        )
        client.xadd(stream_entries.STREAM, {b"e": stream_entries.encode(execution, LLM)}, entry_id)

    def test_entries_come_in_order_and_reading_goes_on_after_a_position(
        self, redis_url: str, redis_client: redis.Redis
    ) -> None:
        for n in range(5):
            self.add(redis_client, n)
        with Stream(redis_url, TYPES) as stream:
            position, first = stream.read(0, 3)
            last, rest = stream.read(position, 3)
            batches = (first, rest)
            assert [e.run for batch in batches for e in batch.rows["llm_process"]] == [
                run(n) for n in range(5)
            ]
            assert last == stream.state().last

    def test_trimming_removes_what_came_up_to_a_position(
        self, redis_url: str, redis_client: redis.Redis
    ) -> None:
        for entry_id in ("5-1", "5-2", "6-0"):
            self.add(redis_client, 1, entry_id)
        with Stream(redis_url, TYPES) as stream:
            assert stream.trim(stream.read(0, 2)[0]) == 2
            assert [entry for entry, _ in redis_client.xrange(stream_entries.STREAM)] == [b"6-0"]

    def test_an_entry_that_is_no_execution_is_rejected_by_place(
        self, redis_url: str, redis_client: redis.Redis
    ) -> None:
        redis_client.xadd(stream_entries.STREAM, {b"other": b"{}"}, "7-0")
        with Stream(redis_url, TYPES) as stream:
            (outcome,) = stream.read(0)[1].rejected
        assert outcome.reason is RejectReason.INVALID_JSON
        assert outcome.detail.startswith("entry 7-0 of malearn:executions: ")

    def test_no_stream_is_an_empty_one(self, redis_url: str) -> None:
        with Stream(redis_url, TYPES) as stream:
            position, batch = stream.read(0)
            assert (position, batch.records, stream.state().last, stream.trim(1)) == (0, 0, 0, 0)

    def test_a_key_that_is_no_stream_is_refused(
        self, redis_url: str, redis_client: redis.Redis
    ) -> None:
        redis_client.set(stream_entries.STREAM, "text")
        with Stream(redis_url, TYPES) as stream, pytest.raises(InputError, match="WRONGTYPE"):
            stream.read(0)

    def test_an_unreachable_redis_is_named(self) -> None:
        with pytest.raises(Unreachable):
            Stream("redis://127.0.0.1:1/0", TYPES)
