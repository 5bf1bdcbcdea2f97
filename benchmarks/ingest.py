"""Ingestion: speed beside the floor, memory, a trickle's reads.

The floor of a scan is SCAN, MGET and `json.loads` of each whole value with redis-py and hiredis;
that of the stream XREAD and `json.loads`. Ours also validates with Great Expectations, fences
and commits to Delta tables; it runs in a process of its own, of which memory is the peak,
and imports are not timed. Floors are taken before and after it, because a busy machine slows
both alike. `python -m benchmarks.ingest RECORDS` does the same with fewer records.
"""

from __future__ import annotations

import csv
import gzip
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time, sleep
from typing import Any, cast

import msgspec
import redis
from deltalake import DeltaTable

from benchmarks import hostile, logs
from benchmarks.figure import Figure, at_least, at_most, table
from benchmarks.original import append
from benchmarks.serving import _redis
from malearn import DAGTaskPredictor, expectations
from malearn.data import csv_files, outliers, redis_scan, run_logs
from malearn.data.batch import Batch
from malearn.data.dataset import Dataset
from malearn.data.ingest import Ingest, Validate
from malearn.data.ingest_report import IngestReport
from malearn.data.stream import Stream
from malearn.expectations import contract
from malearn.kernel.home import Home
from malearn.kernel.reading import joining, record_reader, stream_entries
from malearn.kernel.records import Record
from malearn.kernel.tool_types import ToolType, declared
from malearn.serving import stream_format

__all__ = ["figures", "hostile_figures", "hostile_reports"]

_FLOOR_STREAM = "floor"
_Decode = Callable[[bytes], object]
#: Of XREAD: streams with their entries.
_Answer = list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]


def figures(count: int = 1_000_000) -> Iterator[Figure]:
    """Every figure of ingestion, on `count` records."""
    yield from _scan(count)
    yield from _stream(min(count, 300_000))
    yield _trickle()


def _scan(count: int) -> list[Figure]:
    with TemporaryDirectory() as folder, _redis(Path(folder)) as (url, client, _):
        logs.fill(client, count)
        before, strict = _scan_floor(client, json.loads), _scan_floor(client, _partly())
        ours = _in_child("scan", url, folder)
        floor = mean((before, _scan_floor(client, json.loads)))
    speed = count / ours["seconds"]
    print(f"scan: {speed:,.0f} records/s; SCAN, MGET and json.loads {floor:,.0f}, with msgspec's")
    print(f"partial decoding {strict:,.0f}, of which ours is {speed / strict:.0%}; ours took")
    print(f"{ours['cpu'] / count * 1e6:.1f} µs of its processor a record", flush=True)
    what = f"scan ingest of {count:,} records of 1 KB"
    return [
        at_least(f"{what}, against SCAN + MGET + json.loads", speed / floor, "share", 0.25),
        at_most(f"{what}, peak memory", ours["memory"], "MiB", 1024),
        at_most(f"{what}, unaccounted", abs(count - ours["accounted"]), "records", 0),
    ]


def _stream(count: int) -> list[Figure]:
    with TemporaryDirectory() as folder, _redis(Path(folder)) as (url, client, _):
        _fill_stream(client, count)
        before = _stream_floor(client)
        ours = _in_child("stream", url, folder)
        floor = mean((before, _stream_floor(client)))
        collected = _original(Path(folder))
    speed = count / ours["seconds"]
    print(f"stream: {speed:,.0f} entries/s; XREAD and json.loads {floor:,.0f}", flush=True)
    what = f"stream ingest of {count:,} entries"
    return [
        at_least(f"{what}, against XREAD + json.loads", speed / floor, "share", 0.35),
        at_least(
            f"{what}, against the original's collection at 10,000 rows",
            speed * collected,
            "times",
            1_000,
        ),
        at_most(f"{what}, unaccounted", abs(count - ours["accounted"]), "entries", 0),
    ]


def _trickle(rows: int = 6_000, commits: int = 200) -> Figure:
    """10 a second for ten minutes, ingested every three seconds, without the waiting."""
    tool_type = declared()["llm_process"]
    batch = Batch(declared())
    for task_id, raw in logs.tasks(rows * 4):
        batch.add(task_id, raw)
    batch.close()
    executions = batch.rows[tool_type.name][:rows]
    with TemporaryDirectory() as folder:
        place, compacted = Path(folder) / "trickle", Path(folder) / "compacted"
        dataset, size = Dataset(place, tool_type), rows // commits
        for at in range(0, rows, size):
            dataset.append(executions[at : at + size])
        shutil.copytree(place, compacted)
        DeltaTable(str(compacted)).optimize.compact()
        taken: dict[Path, list[float]] = {place: [], compacted: []}
        for _ in range(25):
            for path, times in taken.items():
                began = perf_counter()
                read = Dataset(path, tool_type).read()
                times.append(perf_counter() - began)
                if len(read) != rows:
                    raise AssertionError(f"{len(read)} rows of {rows}")
        share = median(taken[place]) / median(taken[compacted])
    return at_most(f"reading after {commits} commits, against compacted", share, "times", 1.5)


def hostile_figures(count: int) -> Iterator[Figure]:
    """What became of `count` hostile records at each entrance, and the memory that it took."""
    with TemporaryDirectory() as folder, _redis(Path(folder)) as (url, _, _):
        found = _in_child("hostile", url, folder, str(count))
    for entrance, numbers in found["entrances"].items():
        print(f"hostile {entrance}: {json.dumps(numbers)}", flush=True)
        lost = abs(numbers["given"] - numbers["accounted"])
        yield at_most(f"{count:,} hostile records by {entrance}, unaccounted", lost, "records", 0)
    yield at_most("hostile records, peak memory", found["memory"], "MiB", 1024)


def hostile_reports(
    url: str,
    folder: Path,
    count: int,
    huge: int = 0,
    validate: Validate | None = expectations.validate,
) -> Iterator[tuple[str, int, IngestReport]]:
    """Ingest `count` hostile records by each entrance, into a home of its own below `folder`.

    Yields the entrance, how many records were given, and what became of them. Redis at `url`
    is emptied first, each time.
    """
    types = declared()
    with redis.Redis.from_url(url) as client:
        client.flushall()
        for key, value in hostile.results(count, huge=huge):
            client.set(b"result:" + key, value)
        yield "scan", int(client.dbsize()), _scanned(_ingest(validate, folder / "scan"), url)
        client.flushall()
        raws = hostile.entries(count)
        while entries := list(islice(raws, 1_000)):
            with client.pipeline(transaction=False) as pipe:
                for raw in entries:
                    pipe.xadd(stream_entries.STREAM, {b"e": raw})
                pipe.execute()
        yield (
            "stream",
            int(client.xlen(stream_entries.STREAM)),
            _drained(_ingest(validate, folder / "stream"), url),
        )
        client.flushall()
    plain, packed, cut = (folder / name for name in ("log.jsonl", "log.jsonl.gz", "cut.jsonl.gz"))
    with plain.open("wb") as log, gzip.open(packed, "wb", compresslevel=1) as zipped:
        for line in hostile.lines(count):
            log.write(line + b"\n")
            zipped.write(line + b"\n")
    cut.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    for name, file in (("JSONL", plain), ("gzipped JSONL", packed), ("truncated JSONL", cut)):
        report = _imported(_ingest(validate, folder / name), file)
        yield name, count if file != cut else report.records, report
    llm = types["llm_process"]
    dataset = folder / "llm.csv"
    with dataset.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows(hostile.rows(count, llm.feature_names))
    yield "CSV", count, _tabled(_ingest(validate, folder / "CSV"), dataset, llm)
    with DAGTaskPredictor(url, "http://127.0.0.1:1", cache_dir=folder / "cache") as predictor:
        predictor.wait_until_ready()
        for task_id, raw in hostile.results(count):
            name = task_id.decode("utf-8", "surrogateescape")
            predictor.collect_data_for_task(name, None, raw)
            while predictor.stats().queued > 10_000:
                sleep(0.001)
        while predictor.stats().queued:
            sleep(0.01)
        stats = predictor.stats()
    if stats.internal_errors:
        raise AssertionError(f"{stats.internal_errors} internal errors in the predictor")
    report = _drained(_ingest(validate, folder / "predictor"), url)
    dropped = IngestReport(stats.dropped, {"dropped by the collector": stats.dropped})
    yield "collect_data_for_task", count, report + dropped


def child(kind: str, url: str, folder: str, count: str = "0") -> None:
    """What runs in a process of its own; prints what it found as JSON."""
    contract.suite(declared()["llm_process"])  # imports Great Expectations
    found: dict[str, Any]
    if kind == "hostile":
        entrances = {}
        for entrance, given, report in hostile_reports(url, Path(folder), int(count), huge=5):
            entrances[entrance] = {"given": given, "accounted": report.accounted, **_counts(report)}
        found = {"entrances": entrances}
    else:
        ingestion = _ingest(expectations.validate, Path(folder) / kind)
        began, cpu = perf_counter(), process_time()
        report = _scanned(ingestion, url) if kind == "scan" else _drained(ingestion, url)
        found = {"seconds": perf_counter() - began, "cpu": process_time() - cpu}
        found["accounted"] = report.accounted
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps(found | {"memory": peak / (2**20 if sys.platform == "darwin" else 1024)}))


def _in_child(*arguments: str) -> dict[str, Any]:
    program = "import sys; from benchmarks.ingest import child; child(*sys.argv[1:])"
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _ingest(validate: Validate | None, root: Path) -> Ingest:
    return Ingest(Home(root), declared(), validate, outliers.fence)


def _scanned(ingestion: Ingest, url: str) -> IngestReport:
    batches = redis_scan.scan(url, ingestion.tool_types, ends=ingestion.ends)
    return sum((ingestion.take(batch, "redis") for batch in batches), IngestReport())


def _drained(ingestion: Ingest, url: str) -> IngestReport:
    with Stream(url, ingestion.tool_types) as stream:
        return sum(ingestion.drain(stream), IngestReport())


def _imported(ingestion: Ingest, file: Path) -> IngestReport:
    return sum((ingestion.take(part, "log") for part in run_logs.read([file])), IngestReport())


def _tabled(ingestion: Ingest, file: Path, tool_type: ToolType) -> IngestReport:
    parts = csv_files.read(file, tool_type)
    return sum((ingestion.take(part, "csv") for part in parts), IngestReport())


def _counts(report: IngestReport) -> dict[str, int]:
    counts = {"accepted": report.accepted, **report.rejected}
    for one in report.tool_types.values():
        counts["quarantined"] = counts.get("quarantined", 0) + one.quarantined
        counts["outliers"] = counts.get("outliers", 0) + one.outliers
    return counts


def _scan_floor(client: redis.Redis, decode: _Decode) -> float:
    """Records a second."""
    began, count = perf_counter(), 0
    keys: list[bytes] = []
    for key in client.scan_iter(match=b"result:*", count=5_000):
        keys.append(key)
        if len(keys) == 1_000:
            count += _decoded(client, keys, decode)
            keys = []
    count += _decoded(client, keys, decode) if keys else 0
    return count / (perf_counter() - began)


def _decoded(client: redis.Redis, keys: list[bytes], decode: _Decode) -> int:
    values = cast("list[bytes]", client.mget(keys))
    for raw in values:
        decode(raw)
    return len(values)


def _partly() -> _Decode:
    """A decoder of the fields that teach, and no others."""
    names = ("start_time", "end_time", "status", "dag_id", "curr_task_feat", "succ_task_feat")
    fields = [(name, Any, None) for name in names]
    return msgspec.json.Decoder(msgspec.defstruct("Fields", fields)).decode


def _stream_floor(client: redis.Redis) -> float:
    """Entries a second."""
    began, count, last = perf_counter(), 0, b"0"
    while answer := cast("_Answer", client.xread({_FLOOR_STREAM: last}, count=5_000)):
        ((_, entries),) = answer
        for _, fields in entries:
            json.loads(fields[b"e"])
        count += len(entries)
        last = entries[-1][0]
    return count / (perf_counter() - began)


def _fill_stream(client: redis.Redis, count: int) -> None:
    """The same entries into the stream and into the floor's, as a scheduler writes them."""
    types = declared()
    made = logs.tasks(count)
    while part := list(islice(made, 1_100)):  # whole runs
        read = [record_reader.read(task_id, raw) for task_id, raw in part]
        executions = {e.task_id: e for e in joining.join(read, types)[0]}
        with client.pipeline(transaction=False) as pipe:
            for record in read:
                if not isinstance(record, Record):
                    raise AssertionError("a good record was rejected")
                execution = executions.get(record.task_id)
                report = stream_format.CompletedTask(record)
                if execution is not None:
                    predicted = stream_format.Predicted(
                        execution.serve, 30.0, 1, None, execution.serve_context
                    )
                    report = stream_format.CompletedTask(
                        record, types[execution.tool_type], predicted
                    )
                entry = stream_format.stream_entry(report)
                for key in (stream_entries.STREAM, _FLOOR_STREAM):
                    pipe.xadd(key, {b"e": entry})
            pipe.execute()


def _original(folder: Path, rows: int = 10_000) -> float:
    """Seconds that the original takes to collect one sample at so many."""
    file = folder / "original.csv"
    row: dict[str, object] = {"task_id": "t", "timestamp": 1_754_000_000.0}
    row |= dict.fromkeys(declared()["llm_process"].feature_names, 1.0) | {"execution_time": 1.0}
    line = ",".join(map(str, row.values()))
    file.write_text("\n".join([",".join(row), *[line] * rows]) + "\n")
    times = []
    for _ in range(5):
        began = perf_counter()
        append(file, row)
        times.append(perf_counter() - began)
    return median(times)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    print(table(list(figures(*numbers))))
