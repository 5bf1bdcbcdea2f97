"""Every record is accounted for, once, whoever is killed, whoever else is at it."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_execution
from pathlib import Path
from uuid import UUID

import pytest
import redis
from msgspec.structs import replace

from malearn.data import outliers, redis_scan, run_logs
from malearn.data.dataset import Dataset
from malearn.data.ingest import Ingest
from malearn.data.ingest_report import IngestReport, ToolTypeReport
from malearn.data.rejected_row import RejectedRow
from malearn.data.rejections import Rejections
from malearn.data.stream import Stream
from malearn.kernel.errors import BatchRefused, DatasetError
from malearn.kernel.home import Home
from malearn.kernel.reading import stream_entries
from malearn.kernel.reading.stream_entries import STREAM
from malearn.kernel.records import Execution, Record, Rejected, RejectReason
from malearn.kernel.tool_types import ToolType, ToolTypes, declared, parse
from malearn.platform import EmbeddedRedis

TYPES = declared()
LLM, SPEECH = TYPES["llm_process"], TYPES["speech_process"]


@dataclass(frozen=True)
class Verdict:
    accepted: list[Execution]
    quarantined: list[Rejected]


def short_text(tool_type: ToolType, executions: Sequence[Execution]) -> Verdict:
    """A validator that quarantines what took 13 s, and refuses a batch of mostly such."""
    bad = [e for e in executions if e.seconds == 13.0]
    if len(bad) * 2 > len(executions):
        raise BatchRefused(tool_type.name, len(bad), len(executions), "not 13", 0.5)
    quarantined = [
        Rejected(e.task_id, e.function, RejectReason.INVALID_FEATURE, "took 13 s") for e in bad
    ]
    return Verdict([e for e in executions if e.seconds != 13.0], quarantined)


def under_a_minute(
    executions: Sequence[Execution],
    recent: Mapping[str, Sequence[float]],
    recent_outliers: Mapping[str, Sequence[float]],
) -> tuple[list[Execution], list[Rejected]]:
    """A fence at 60 s."""
    odd = [e for e in executions if e.seconds > 60.0]
    return [e for e in executions if e.seconds <= 60.0], [
        Rejected(e.task_id, e.function, RejectReason.OUTLIER, "above a minute") for e in odd
    ]


def record(number: int, seconds: float = 5.0, function: str = "llm_process") -> Record:
    features = {"text_length": number, "duration": number}
    task = f"{UUID(int=number)}-{function}"
    return Record(task, function, 1000.0 + number, 1000.0 + number + seconds, features)


def ingest(home: Home, types: ToolTypes = TYPES) -> Ingest:
    return Ingest(home, types, short_text, under_a_minute)


def test_the_real_logs_are_accounted_for_to_the_last_record(home: Home, traces: Path) -> None:
    files = sorted((traces / "maze").glob("run*.jsonl"))

    def take_all(ingestion: Ingest) -> IngestReport:
        batches = run_logs.read(files, size=1000)
        return sum((ingestion.take(batch, "traces") for batch in batches), IngestReport())

    report = take_all(Ingest(home, TYPES))
    assert report.records == report.accounted == 5266
    assert {name: r.accepted for name, r in report.tool_types.items()} == {
        "vlm_process": 1218,
        "llm_process": 644,
        "llm_fuse2In1": 229,
        "speech_process": 16,
    }
    assert report.rejected == {
        "no_features": 2003,
        "unmapped_function": 900,
        "soft_failed": 217,
        "skipped": 30,
        "no_times": 9,
    }
    again = take_all(Ingest(home, TYPES))
    assert (again.records, again.rejected) == (5266, {"duplicate": 5266})
    fresh = Ingest(home, TYPES)
    assert fresh.rejections.rows == 3159
    assert sum(dataset.rows for dataset in fresh.datasets.values()) == 2107


def test_what_is_accepted_quarantined_and_fenced_is_stored_and_counted(home: Home) -> None:
    batch = [record(1), record(2), record(3), record(4, 13.0), record(5, 90.0)]
    report = ingest(home).take(batch, "test")
    assert report.tool_types["llm_process"] == ToolTypeReport(3, 1, 1, 0, 1)
    assert report.rejected == {}
    assert report.reasons == {"invalid_feature": 1, "outlier": 1}
    assert report.functions["outlier"] == {record(5).function: 1}
    assert report.sources == {"test": 5}
    after = ingest(home)
    assert after.datasets["llm_process"].rows == 3
    kept = {r.rejected.reason: r for r in after.rejections.read("llm_process")}
    assert kept[RejectReason.INVALID_FEATURE].rejected.detail == "took 13 s"
    outlier = kept[RejectReason.OUTLIER]
    assert (outlier.source, outlier.seconds) == ("test", 90.0)
    back = stream_entries.read(outlier.rejected.record, TYPES)
    assert isinstance(back, Execution) and back.task_id == record(5).task_id


def test_a_batch_mostly_bad_teaches_nothing_and_stops_no_other_tool_type(home: Home) -> None:
    bad = [record(n, 13.0) for n in range(3)]
    batch = [*bad, record(9), record(10, function="speech_process")]
    report = ingest(home).take(batch, "test")
    refused = report.tool_types["llm_process"]
    assert (refused.accepted, refused.quarantined) == (0, 4)
    assert refused.refused[0].startswith("3 of 4 llm_process rows break their contract")
    assert report.tool_types["speech_process"].accepted == 1
    assert report.accounted == report.records == 5
    assert ingest(home).rejections.counts() == {("llm_process", RejectReason.BATCH_REFUSED): 4}


def test_taking_the_same_batch_again_changes_nothing(home: Home) -> None:
    batch: list[Record | Execution | Rejected] = [
        *(record(n) for n in range(4)),
        record(4, 13.0),
        record(5, 90.0),
        record(6, function="read_file"),
        Rejected("", "", RejectReason.INVALID_JSON, "line 9", "{"),
    ]
    first = ingest(home).take(batch, "test")
    rows = ingest(home).rejections.rows
    for ingestion in (ingest(home), ingest(home)):
        again = ingestion.take(batch, "test")
        assert (again.rejected, again.accounted) == ({"duplicate": 8}, 8)
    assert first.accounted == 8
    assert ingest(home).rejections.rows == rows == 4


def test_a_task_that_ended_later_after_all_is_judged_anew(home: Home) -> None:
    ingestion = ingest(home)
    ingestion.take([record(1), record(2), record(3, 90.0)], "test")
    retried = replace(record(3), start=1200.0, end=1220.0)
    report = ingestion.take([record(1, 6.0), record(2, 4.0), retried], "test")
    assert report.tool_types["llm_process"] == ToolTypeReport(2, 0, 0, 1, 2)
    assert report.rejected == {"duplicate": 1}
    assert sorted(e.seconds for e in ingestion.datasets["llm_process"].read()) == [5, 6, 20]


def test_repetitions_within_a_batch_count_as_duplicates(home: Home) -> None:
    skipped = Rejected("t", "llm_process", RejectReason.SKIPPED, "status says skipped")
    report = ingest(home).take([record(1), record(1, 6.0), skipped, skipped], "test")
    assert report.rejected == {"duplicate": 2, "skipped": 1}
    assert report.accounted == report.records == 4


def test_executions_are_taken_beside_records(home: Home) -> None:
    execution = Execution("t", "llm_process", "llm_process", 1.0, 2.0, (1.0,) * 4, (1.0,) * 4)
    report = ingest(home).take([execution, execution, record(1)], "test")
    assert report.accepted == 2
    assert report.rejected == {"duplicate": 1}


def test_an_empty_batch_writes_nothing(home: Home) -> None:
    assert ingest(home).take([], "test") == IngestReport()
    assert ingest(home).datasets["llm_process"].version is None


def test_reports_add_up() -> None:
    one = IngestReport(3, {"skipped": 1}, {"a": ToolTypeReport(1, 1, 0, 0, 4, ("why",))})
    two = IngestReport(2, {"skipped": 1}, {"a": ToolTypeReport(), "b": ToolTypeReport(1)})
    total = one + two
    assert (total.records, total.accounted, total.accepted) == (5, 5, 2)
    assert total.rejected == {"skipped": 2}


def test_reports_tell_only_so_many_functions_apart() -> None:
    names = {f"f{n}": 2 for n in range(900)}
    one = IngestReport(functions={"skipped": names}, sources={"a log": 1})
    two = IngestReport(
        functions={"skipped": {f"g{n}": 1 for n in range(900)}}, sources={"a log": 2}
    )
    total = one + two
    assert total.sources == {"a log": 3}
    assert len(total.functions["skipped"]) == 1_001
    assert total.reasons == {"skipped": 2_700}


def test_reports_of_one_tool_type_add_up() -> None:
    one = IngestReport(3, {"skipped": 1}, {"a": ToolTypeReport(1, 1, 0, 0, 4, ("why",))})
    total = one + IngestReport(2, {"skipped": 1}, {"a": ToolTypeReport(), "b": ToolTypeReport(1)})
    assert total.tool_types["a"] == ToolTypeReport(1, 1, 0, 0, 4, ("why",))


def test_a_tool_type_that_a_user_declares_is_ingested_like_any_other(home: Home) -> None:
    video = parse("[video_process.features]\nframe_count = { min = 1 }", "malearn.toml")
    types = ToolTypes([*TYPES.values(), *video])
    task = replace(record(1, function="task1_video_process"), features={"frame_count": 24})
    report = ingest(home, types).take([task], "test")
    assert report.tool_types["video_process"].accepted == 1


def test_the_fence_sees_what_the_dataset_holds_and_what_was_fenced_off(home: Home) -> None:
    seen: list[tuple[Mapping[str, Sequence[float]], ...]] = []

    def fence(executions: Sequence[Execution], *past: Mapping[str, Sequence[float]]) -> object:
        seen.append(past)
        return under_a_minute(executions, *past)

    ingestion = Ingest(home, TYPES, None, fence)  # type: ignore[arg-type]  # it records
    ingestion.take([record(1), record(2, 90.0)], "test")
    ingestion.take([record(3)], "test")
    assert seen[0] == ({}, {})
    recent, recent_outliers = seen[1]
    assert recent["llm_process"] == pytest.approx([math.log(5.0)])
    assert recent_outliers["llm_process"] == pytest.approx([math.log(90.0)])


def test_the_real_fence_fits_in(home: Home) -> None:
    batch = [record(n, 4.0 + n % 3) for n in range(30)] + [record(99, 812.0)]
    report = Ingest(home, TYPES, short_text, outliers.fence).take(batch, "test")
    assert (report.accepted, report.tool_types["llm_process"].outliers) == (30, 1)


def test_redis_is_scanned_incrementally(
    home: Home, redis_url: str, redis_client: redis.Redis
) -> None:
    def put(number: int) -> None:
        value = {"start_time": 1.0, "end_time": 6.0, "curr_task_feat": {"text_length": number}}
        redis_client.set(f"result:{UUID(int=number)}-llm_process", json.dumps(value))

    put(1)
    ingestion = ingest(home)
    for expected in (1, 0):
        batches = redis_scan.scan(redis_url, TYPES, ends=ingestion.ends)
        assert sum(ingestion.take(batch, "redis").accepted for batch in batches) == expected
    put(2)
    (batch,) = redis_scan.scan(redis_url, TYPES, ends=ingestion.ends)
    assert [e.run for e in batch.rows["llm_process"]] == [str(UUID(int=2))]


def put(client: redis.Redis, task: str, start: float, end: float, **changes: object) -> None:
    given = {"start_time": start, "end_time": end, "curr_task_feat": {"text_length": 9}}
    client.set(f"result:{task}", json.dumps(given | changes))


@pytest.mark.parametrize("run", [str(UUID(int=7)), "run7"])
def test_a_task_that_is_written_again_with_a_later_end_replaces_what_was_known(
    home: Home, redis_url: str, redis_client: redis.Redis, run: str
) -> None:
    """A retry may follow a failure, or a success; a scan finds it among a run that is known."""
    failed, slower, steady = (f"{run}-task{n}_llm_process" for n in (1, 2, 3))
    put(redis_client, failed, 1.0, 3.0, status="failed")
    put(redis_client, slower, 1.0, 6.0)
    put(redis_client, steady, 1.0, 4.0)

    def scan() -> IngestReport:
        ingestion = ingest(home)
        batches = redis_scan.scan(redis_url, TYPES, ends=ingestion.ends)
        return sum((ingestion.take(batch, "redis") for batch in batches), IngestReport())

    assert (scan().accepted, scan().records) == (2, 0)
    put(redis_client, failed, 3.0, 9.0)
    put(redis_client, slower, 6.0, 20.0)
    report = scan()
    assert (report.accepted, report.rejected) == (2, {"duplicate": 1})
    assert report.tool_types["llm_process"].replaced == 1
    stored = {e.task_id: e.end for e in ingest(home).datasets["llm_process"].read()}
    assert stored == {failed: 9.0, slower: 20.0, steady: 4.0}
    put(redis_client, slower, 2.0, 5.0)  # an older attempt, written late
    assert scan().accepted == 0


def test_what_ended_in_the_future_is_rejected_by_a_reason_of_its_own(
    home: Home, redis_url: str, redis_client: redis.Redis
) -> None:
    task, tomorrow = f"{UUID(int=1)}-llm_process", time.time() + 86_400.0
    put(redis_client, task, tomorrow, tomorrow + 5.0)
    ingestion = ingest(home)
    (batch,) = redis_scan.scan(redis_url, TYPES, ends=ingestion.ends)
    assert ingestion.take(batch, "redis").rejected == {"future_times": 1}
    put(redis_client, task, 1.0, 6.0)  # once the worker's clock was set right
    (batch,) = redis_scan.scan(redis_url, TYPES, ends=ingestion.ends)
    assert ingestion.take(batch, "redis").accepted == 1


def test_a_dataset_that_holds_rows_of_the_future_recovers(home: Home) -> None:
    """0.1.0 took them in; the next ingestion moves them into quarantine, and the truth comes in."""
    ingestion = ingest(home)
    ingestion.take([record(1), record(2)], "test")
    tomorrow = time.time() + 86_400.0
    odd = replace_execution(execution(8), start=tomorrow, end=tomorrow + 5.0)
    dataset = ingestion.datasets["llm_process"]
    dataset.append([odd])
    version = dataset.version
    assert ingest(home).take([record(3)], "test").accepted == 1
    assert dataset.rows == 3
    assert max(e.end for e in dataset.read()) < tomorrow
    (kept,) = (r for r in Rejections.open(home).each() if r.rejected.task_id == odd.task_id)
    assert kept.rejected.reason is RejectReason.FUTURE_TIMES
    assert ingest(home).take([execution(8)], "test").accepted == 1
    assert dataset.rows_added_since(version) == 2


# The stream, exactly once.


def execution(number: int) -> Execution:
    """One in five is an outlier, one in seven of speech."""
    tool_type = SPEECH if number % 7 == 0 else LLM
    seconds = 90.0 if number % 5 == 0 else 5.0
    numbers = (float(number),) * len(tool_type.features)
    task = f"{UUID(int=number)}-{tool_type.name}"
    start = 1000.0 + number
    return Execution(task, tool_type.name, tool_type.name, start, start + seconds, numbers, numbers)


def add(client: redis.Redis, numbers: Sequence[int]) -> None:
    with client.pipeline() as pipe:
        for number in numbers:
            e = execution(number)
            pipe.xadd(STREAM, {b"e": stream_entries.encode(e, TYPES[e.tool_type])})
        pipe.execute()


def stored(home: Home) -> Counter[str]:
    """How often each task stands in a dataset, or in the rejections."""
    ingestion = ingest(home)
    tasks = Counter(e.task_id for d in ingestion.datasets.values() for e in d.read())
    tasks.update(r.rejected.task_id for r in ingestion.rejections.read())
    return tasks


def expected(count: int) -> Counter[str]:
    return Counter(execution(n).task_id for n in range(count))


def test_the_stream_is_drained_and_then_empty(
    home: Home, redis_url: str, redis_client: redis.Redis
) -> None:
    add(redis_client, range(70))
    ingestion = ingest(home)
    with Stream(redis_url, TYPES) as stream:
        report = sum(ingestion.drain(stream, size=20), IngestReport())
        assert (report.records, report.accounted, report.accepted) == (70, 70, 56)
        last = stream.state().last
        assert ingestion.rejections.position(stream.name) == last
        assert list(ingestion.drain(stream)) == []
    assert redis_client.xlen(STREAM) == 0
    assert stored(home) == expected(70)


def test_a_steady_load_does_not_keep_an_ingestion_for_ever(
    home: Home, redis_url: str, redis_client: redis.Redis
) -> None:
    add(redis_client, range(10))
    ingestion, records = ingest(home), 0
    with Stream(redis_url, TYPES) as stream:
        for number, report in enumerate(ingestion.drain(stream, size=5)):
            records += report.records
            assert number < 2
            add(redis_client, range(10 + 5 * number, 15 + 5 * number))
        assert records == 10
        assert sum(ingestion.drain(stream), IngestReport()).records == 10
    assert stored(home) == expected(20)


def test_nothing_is_trimmed_that_is_not_committed(
    home: Home, redis_url: str, redis_client: redis.Redis
) -> None:
    def broken(*_: object) -> Verdict:
        raise RuntimeError("the validator broke")

    add(redis_client, range(10))
    with Stream(redis_url, TYPES) as stream:
        with pytest.raises(RuntimeError):
            list(Ingest(home, TYPES, broken).drain(stream))
        assert redis_client.xlen(STREAM) == 10
        assert sum(ingest(home).drain(stream), IngestReport()).records == 10
    assert stored(home) == expected(10)


class OutOfDisk(Rejections):
    """Rejections that cannot be written."""

    def append(self, *_: object) -> list[RejectedRow]:
        raise DatasetError(self.path.name, "there is no space left")


def test_what_was_interrupted_between_two_tables_is_completed(
    home: Home, redis_url: str, redis_client: redis.Redis
) -> None:
    add(redis_client, range(12))
    first = ingest(home)
    first.rejections = OutOfDisk.open(home)
    with Stream(redis_url, TYPES) as stream:
        with pytest.raises(DatasetError, match="no space left"):
            list(first.drain(stream))
        assert redis_client.xlen(STREAM) == 12
        assert sum(ingest(home).datasets[name].rows for name in TYPES) == 9
        report = sum(ingest(home).drain(stream), IngestReport())
    assert (report.accounted, report.rejected) == (12, {"duplicate": 9})
    assert stored(home) == expected(12)


def test_what_another_writer_commits_while_a_batch_is_taken_is_not_doubled(home: Home) -> None:
    given = [record(n) for n in range(3)] + [record(n, function="speech_process") for n in range(3)]

    def meanwhile(tool_type: ToolType, executions: Sequence[Execution]) -> Verdict:
        # As where a lock expired: a dataset of its own knows nothing of what is held here.
        Dataset.open(home, tool_type).append(executions[:2])
        return short_text(tool_type, executions)

    Ingest(home, TYPES).take([record(9), record(9, function="speech_process")], "test")
    Ingest(home, TYPES, meanwhile).take(given, "test")
    for tool_type in (LLM, SPEECH):
        found = [row.task_id for row in Dataset.open(home, tool_type).read()]
        assert len(found) == len(set(found)) == 4


def test_a_stream_that_began_anew_is_read_from_its_start(
    home: Home, redis_url: str, redis_client: redis.Redis
) -> None:
    ingestion = ingest(home)
    with Stream(redis_url, TYPES) as stream:
        redis_client.xadd(STREAM, {b"e": b"?"}, f"{int(time.time() * 1000) + 10**9}-0")
        assert sum(r.records for r in ingestion.drain(stream)) == 1
        redis_client.delete(STREAM)
        add(redis_client, range(3))
        assert sum(r.accounted for r in ingestion.drain(stream)) == 3
    assert redis_client.xlen(STREAM) == 0


# Forks, for each line it reads, a process that drains the stream, and kills it so many seconds
# later. It imports once and starts no thread of its own, so that forking it is safe and quick.
NURSERY = """
import importlib.util, os, signal, sys, time, warnings
from pathlib import Path
from malearn.kernel.home import Home
from malearn.data.ingest import Ingest
from malearn.data.stream import Stream

spec = importlib.util.spec_from_file_location("laws", sys.argv[1])
laws = importlib.util.module_from_spec(spec)
sys.modules["laws"] = laws
spec.loader.exec_module(laws)
warnings.simplefilter("ignore")

def drain():
    ingestion = laws.ingest(Home(Path(sys.argv[2])))
    with Stream(sys.argv[3], laws.TYPES) as stream:
        for report in ingestion.drain(stream, size=8):
            pass

for line in sys.stdin:
    children, moments = {}, [float(word) for word in line.split()]
    began = time.perf_counter()
    for moment in moments:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                drain()
                code = 0
            finally:
                os._exit(code)
        children[pid] = began + moment
    codes = []
    while children:
        for pid, end in list(children.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes.append(os.waitstatus_to_exitcode(status))
                del children[pid]
            elif time.perf_counter() >= end:
                os.kill(pid, signal.SIGKILL)
                children[pid] = float("inf")
        time.sleep(0.0005)
    print(time.perf_counter() - began, *codes, flush=True)
"""


class Nursery:
    """Processes that drain, each killed after so many seconds unless it is done by then."""

    def __init__(self, home: Home, url: str) -> None:
        arguments = [sys.executable, "-c", NURSERY, __file__, str(home.root), url]
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def drain(self, *moments: float) -> tuple[float, list[int]]:
        """How long it took, in seconds, and each one's exit code: 0, or -9 if killed."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(*moments, file=self.process.stdin, flush=True)
        seconds, *codes = self.process.stdout.readline().split()
        return float(seconds), [int(code) for code in codes]

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait(300)


def test_killed_at_random_moments_nothing_is_lost_and_nothing_doubled(
    home: Home, redis_url: str, redis_client: redis.Redis
) -> None:
    """Processes die by SIGKILL, each anywhere in its batches; new entries keep coming."""
    chance = random.Random(20250812)
    add(redis_client, range(24))
    added, kills = 24, 0
    with Nursery(home, redis_url) as nursery:
        whole, codes = nursery.drain(600.0)
        assert codes == [0]
        for _ in range(24):
            add(redis_client, range(added, added := added + 12))
            seconds, codes = nursery.drain(chance.uniform(0.0, whole))
            kills += codes.count(-signal.SIGKILL)
            if codes == [0]:
                whole = seconds
        _, codes = nursery.drain(600.0)
    assert codes == [0]
    assert kills >= 6
    assert redis_client.xlen(STREAM) == 0
    assert stored(home) == expected(added)


def test_two_at_once_and_one_of_them_killed_share_the_work(
    home: Home, redis_url: str, redis_client: redis.Redis
) -> None:
    chance = random.Random(7)
    added = 0
    with Nursery(home, redis_url) as nursery:
        for _ in range(2):
            add(redis_client, range(added, added := added + 32))
            _, codes = nursery.drain(600.0, 600.0, chance.uniform(0.0, 0.3))
            assert codes.count(0) >= 2
    assert stored(home) == expected(added)


def test_a_redis_that_is_restarted_in_between_loses_nothing(home: Home, tmp_path: Path) -> None:
    server_home = Home(tmp_path / "redis")
    ingestion = ingest(home)
    for half in (range(30), range(30, 60)):
        with EmbeddedRedis(server_home) as server, redis.Redis.from_url(server.url) as client:
            add(client, half)
            with Stream(server.url, TYPES) as stream:
                next(ingestion.drain(stream, size=20))  # and the server goes away
    with EmbeddedRedis(server_home) as server, Stream(server.url, TYPES) as stream:
        assert sum(r.records for r in ingestion.drain(stream)) == 20
    assert stored(home) == expected(60)
