"""Where records come from: Redis, the scheduler's run log, the original's CSV files.

Each source yields parts that hold *whole runs*, because what is known of a task
before it starts stands in the records of its predecessors (`joining.join`).
Files yield outcomes: each record becomes a `Record`, an `Execution` or a
`Rejected`. Redis, where there may be millions, yields them joined; it is only
read, but for trimming our own stream.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
import redis

from malearn.data import gc_pause
from malearn.data.batch import Batch
from malearn.kernel import joining, record_reader, run_ids, stream_entries, text
from malearn.kernel.errors import InputError, Unreachable, without_password
from malearn.kernel.records import Execution, Record, Rejected, RejectReason
from malearn.kernel.tool_types import ToolType, ToolTypes

__all__ = [
    "REDIS_SETTING",
    "STREAM",
    "Outcomes",
    "Stream",
    "connected",
    "examine",
    "jsonl",
    "scan",
    "table",
    "task_id",
]

#: A part of what a source holds, as it was read; a run's records stand in one part.
Outcomes = list[Record | Execution | Rejected]

STREAM = stream_entries.STREAM
REDIS_SETTING = "MALEARN_REDIS_URL"

_PREFIX = b"result:"
#: Bytes of a key that say of which run it is.
_RUN = len(_PREFIX) + run_ids.RUN_ID_LENGTH
#: Values that one MGET may bring; more at once are hardly quicker, and some may be huge.
_VALUES = 250
#: Bytes of rejected records that one batch holds, about.
_KEPT_BYTES = 64 * 2**20
_FIELD = b"e"
#: Bytes that one answer of Redis may bring, about; bounds memory where values are huge.
_ANSWER_BYTES = 32 * 2**20
#: Entries that one XRANGE may bring.
_ENTRIES = 5_000
#: A line of a file that is longer than this is not looked at.
_LINE_BYTES = 64 * 2**20
#: Bits of a stream position that count entries of one millisecond.
_SEQUENCE_BITS = 21


def scan(
    url: str,
    tool_types: ToolTypes,
    size: int = 150_000,
    known: Callable[[Sequence[str]], npt.NDArray[np.bool_]] | None = None,
    most_keys: int = 1_000_000,
) -> Iterator[Batch]:
    """The records in Redis at `url`, in batches of about `size`.

    Keys are collected first (SCAN; about 130 bytes of memory each, and of more than
    `most_keys` only a part at a time, told by how their run ids begin), values then run by
    run, so that keys written meanwhile wait for the next scan and keys deleted meanwhile are
    passed over. Runs of which every task id is `known` are left out, and with them what was
    written again of a known task. Raises `Unreachable`.
    """
    with connected(url) as client:
        batch = Batch(tool_types)
        for pattern in _patterns(client.dbsize(), most_keys):
            keys = sorted(set(client.scan_iter(match=pattern, count=5_000)))
            if known is not None:
                keys = list(_of_news(keys, known))
            at, most = 0, _VALUES
            while at < len(keys):
                room = size - batch.records if batch.weight < _KEPT_BYTES else 0
                end = _part(keys, at, room, most)
                values = cast("list[bytes | None]", client.mget(keys[at:end]))
                with gc_pause.gc_paused():
                    for key, value in zip(keys[at:end], values, strict=True):
                        if value is not None:
                            batch.add(task_id(key), value)
                mean = sum(len(value) for value in values if value is not None) / len(values)
                at, most = end, _affordable(mean, _VALUES)
                full = batch.records >= size or batch.weight >= _KEPT_BYTES
                if full and not _same_run(keys, at):
                    batch.close()
                    yield batch
                    batch = Batch(tool_types)
        batch.close()
        if batch.records:
            yield batch


def jsonl(paths: Sequence[Path], size: int = 20_000) -> Iterator[Outcomes]:
    """The records in run logs `task_exec_result.jsonl`, plain or gzipped, in batches of runs.

    One line is `{"dag_id", "task_id", "func_name", "status", "data": record}`.
    Files are read twice, line by line: first to learn where each run ends, as
    runs overlap. Every line that is not blank becomes one outcome; one that
    cannot be read, such as a truncated last one, is rejected by name and place.
    Raises `InputError` for a file that is missing or no JSONL.
    """
    last: dict[str, int] = {}
    at = 0
    for path in paths:
        lines = objects = 0
        for line in _lines(path):
            lines, at = lines + 1, at + 1
            task = _task(line) if isinstance(line, _Line) else None
            if task is not None:
                objects += 1
                last[run_ids.run_of(task.task_id)] = at
        if lines and not objects:
            raise _no_log(path, lines)
    yield from _closing_runs(paths, last, size)


def examine(paths: Sequence[Path]) -> None:
    """Look whether `paths` can be run logs, reading each up to its first record.

    Raises `InputError` for one that is missing or no JSONL, as `jsonl` would
    later, and where all of them together hold nothing.
    """
    found = 0
    for path in paths:
        first, lines = _first_record(path)
        if lines and not first:
            raise _no_log(path, lines)
        found += first
    if paths and not found:
        raise InputError(", ".join(str(path) for path in paths), "there is no record in it")


def table(path: Path, tool_type: ToolType, size: int = 20_000) -> Iterator[Outcomes]:
    """The executions in a CSV file of the original, `task_id,timestamp,<features>,execution_time`.

    `timestamp` is the start, in seconds since the epoch or ISO 8601 (UTC unless
    it says otherwise); `execution_time` is in seconds. The features are what
    the task reported of itself. Columns of `Dataset.export_csv` are understood
    too; any other is an error. Raises `InputError`.
    """
    features = tool_type.feature_names
    optional = {"function", "query", "predicted", "model_version"}
    optional |= {f"serve_{name}" for name in (*features, *tool_type.context)}
    optional |= set(tool_type.context)
    with _open(path) as file:
        rows = csv.reader(line.decode("utf-8", "replace") for line in file)
        first = next(_csv_rows(rows), [])
        if isinstance(first, str):
            raise InputError(path, f"is no dataset: {first}")
        header = [name.strip().lstrip("\ufeff") for name in first]
        if missing := {"task_id", "timestamp", "execution_time"} - set(header):
            raise InputError(path, f"is no dataset: its header lacks {', '.join(sorted(missing))}")
        known = {"task_id", "timestamp", "execution_time", *features, *optional}
        if unknown := set(header) - known:
            raise InputError(
                path, f"has columns {tool_type.name} does not know: {', '.join(sorted(unknown))}"
            )
        batch: Outcomes = []
        if len(set(header)) < len(header):
            raise InputError(path, "names a column twice in its header")
        for row in _csv_rows(rows):
            place = f"line {rows.line_num} of {path.name}"
            if isinstance(row, str):
                batch.append(Rejected("", "", RejectReason.INVALID_JSON, f"{place}: {row}"))
            else:
                batch.append(_csv_execution(header, row, tool_type, place))
            if len(batch) >= size:
                yield batch
                batch = []
        if batch:
            yield batch


class Stream:
    """Entries of `malearn:executions`, oldest first, each with its position.

    A position is one integer in the order of the stream, as Delta keeps it in
    a commit. Only `trim` takes anything away. Every method raises `Unreachable`.
    """

    def __init__(self, url: str, tool_types: ToolTypes, key: str = STREAM) -> None:
        self.url, self.key, self._tool_types = url, key, tool_types
        with _answering(url):
            self._client = _connect(url)
            server = cast("Mapping[str, object]", self._client.info("server"))
        #: What tells this stream from any other: within one life of a Redis, ids only grow.
        self.name = f"{key}@{server['run_id']}"

    def last(self) -> int:
        """The position of the newest entry ever added; 0 where there was none."""
        with _answering(self.url):
            if not self._client.exists(self.key):
                return 0
            info = cast("Mapping[str, bytes]", self._client.xinfo_stream(self.key))
            return _position(info["last-generated-id"])

    def read(self, after: int, count: int = 5_000) -> tuple[int, Batch]:
        """At most `count` entries after position `after`, and the position of the last.

        Where there are no more the batch is empty and the position `after`.
        """
        batch, most = Batch(self._tool_types), _ENTRIES // 10
        while batch.records < count and batch.weight < _KEPT_BYTES:
            asked = min(most, count - batch.records)
            with _answering(self.url):
                start = f"({_id(after)}" if after else "-"
                answer = self._client.xrange(self.key, min=start, count=asked)
            entries = cast("list[tuple[bytes, dict[bytes, bytes]]]", answer)
            if not entries:
                break
            with gc_pause.gc_paused():
                for entry_id, values in entries:
                    place = f"entry {entry_id.decode()} of {self.key}"
                    batch.add_entry(values.get(_FIELD, b""), place)
            after = _position(entries[-1][0])
            mean = sum(len(v) for _, values in entries for v in values.values()) / len(entries)
            most = _affordable(mean, _ENTRIES)
        return after, batch

    def trim(self, upto: int) -> int:
        """Remove the entries up to and including position `upto`; returns how many."""
        with _answering(self.url):
            return int(self._client.xtrim(self.key, minid=_id(upto + 1), approximate=False))

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Line(msgspec.Struct):
    """One line of a run log; `data` is decoded by the contract, later."""

    task_id: Any = None
    func_name: Any = None
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Task(msgspec.Struct):
    """The same, once it names a task."""

    task_id: str
    function: str | None
    data: object


_line_decoder = msgspec.json.Decoder(_Line)


@contextmanager
def connected(url: str) -> Iterator[redis.Redis]:
    """A client of the Redis at `url`. Raises `Unreachable` when that is or goes away."""
    with _answering(url), _connect(url) as client:
        yield client


@contextmanager
def _answering(url: str) -> Iterator[None]:
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise Unreachable("Redis", url, REDIS_SETTING, _cause(error)) from error
    except redis.ResponseError as error:
        raise InputError(f"Redis at {without_password(url)}", f"refuses: {error}") from error


def _connect(url: str) -> redis.Redis:
    try:
        return redis.Redis.from_url(
            url, decode_responses=False, socket_connect_timeout=5.0, socket_timeout=60.0
        )
    except ValueError as error:
        raise InputError(without_password(url), f"is no Redis URL ({error})") from error


def _cause(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).rstrip(".")


def task_id(key: bytes) -> str:
    """The task id within a key `result:<task_id>`."""
    return key[len(_PREFIX) :].decode("utf-8", "backslashreplace")


def _patterns(keys: int, most: int) -> list[bytes]:
    """Globs that together match each result in a Redis of so many `keys` exactly once.

    Run ids are hexadecimal and random: each further digit parts them in sixteen.
    """
    heads, digits = [b""], b"0123456789abcdef"
    found = []
    while keys > most and len(heads[0]) < 3:
        found += [_PREFIX + head + b"[^0-9a-f]*" for head in heads]
        found += [_PREFIX + head for head in heads]
        heads = [head + bytes([digit]) for head in heads for digit in digits]
        keys //= len(digits)
    return [*(_PREFIX + head + b"*" for head in heads), *found]


def _of_news(
    keys: Sequence[bytes], known: Callable[[Sequence[str]], npt.NDArray[np.bool_]]
) -> Iterator[bytes]:
    """Of the sorted `keys` those of runs that are not `known` as a whole."""
    seen = np.zeros(len(keys), np.bool_)
    for at in range(0, len(keys), 10_000):
        part = keys[at : at + 10_000]
        seen[at : at + len(part)] = known([task_id(key) for key in part])
    if not seen.any():
        yield from keys
        return
    at = 0
    for _, run in groupby(keys, lambda key: key[:_RUN]):
        tasks = list(run)
        if not seen[at : at + len(tasks)].all():
            yield from tasks
        at += len(tasks)


def _affordable(mean: float, most: int) -> int:
    """How many values of `mean` bytes may be asked for at once, at most `most`."""
    return max(1, min(most, int(_ANSWER_BYTES / (mean + 1))))


def _part(keys: Sequence[bytes], at: int, room: int, most: int) -> int:
    """Where the next part of `keys` ends that begins `at`.

    It has at most `most` keys, and no more than `room` but to complete a run.
    """
    end = min(at + max(1, min(room, most)), len(keys))
    while end - at < most and room <= most and _same_run(keys, end):
        end += 1
    return end


def _same_run(keys: Sequence[bytes], at: int) -> bool:
    """Whether the key `at`, if there is one, is of the same run as the one before it."""
    return at < len(keys) and keys[at][:_RUN] == keys[at - 1][:_RUN]


def _closing_runs(paths: Sequence[Path], last: Mapping[str, int], size: int) -> Iterator[Outcomes]:
    """Batches of runs, each from the moment that its last line has been read."""
    open_runs: dict[str, Outcomes] = defaultdict(list)
    batch: Outcomes = []
    at = 0
    for path in paths:
        for number, line in enumerate(_lines(path), start=1):
            at += 1
            task = _task(line) if isinstance(line, _Line) else None
            if task is None:
                batch.append(_bad_line(line, f"line {number} of {path.name}"))
            else:
                run = run_ids.run_of(task.task_id)
                open_runs[run].append(
                    record_reader.read(task.task_id, _raw(task.data), task.function)
                )
                if last.get(run, at) <= at:
                    batch.extend(open_runs.pop(run))
            if len(batch) >= size:
                yield batch
                batch = []
    for rest in open_runs.values():  # only where the files changed between the two readings
        batch.extend(rest)
    if batch:
        yield batch


def _first_record(path: Path) -> tuple[bool, int]:
    """Whether there is a task's record, and how many lines were read to learn it."""
    number = 0
    for line in _lines(path):
        number += 1
        if isinstance(line, _Line) and _task(line) is not None:
            return True, number
    return False, number


def _no_log(path: Path, lines: int) -> InputError:
    what = "its only line is no" if lines == 1 else f"not one of its {lines} lines is a"
    return InputError(path, f"is no task_exec_result.jsonl: {what} task's record")


def _raw(data: object) -> Any:
    return bytes(data) if isinstance(data, msgspec.Raw) else data


def _lines(path: Path) -> Iterator[_Line | tuple[bytes, str]]:
    """Each line that is not blank, or its first bytes and what is wrong with it."""
    with _open(path) as file:
        while True:
            try:
                line = file.readline(_LINE_BYTES)
                rest = line
                while len(rest) == _LINE_BYTES and not rest.endswith(b"\n"):
                    rest = file.readline(_LINE_BYTES)
            except (EOFError, OSError, zlib.error) as error:
                yield b"", f"the file cannot be read further ({_cause(error)})"
                return
            if not line:
                return
            if rest is not line:
                yield line[: text.MOST_KEPT], f"it is longer than {_LINE_BYTES >> 20} MiB"
            elif line.strip():
                yield _line(line)


def _line(line: bytes) -> _Line | tuple[bytes, str]:
    try:
        return _line_decoder.decode(line)
    except (ValueError, RecursionError):
        pass
    if len(line) > record_reader.LONGEST_LENIENT:
        return line[: text.MOST_KEPT], "it is long, and no strict JSON"
    try:  # NaN and Infinity, which Python's own writer emits, are no strict JSON
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return line[: text.MOST_KEPT], _cause(error)
    if not isinstance(value, dict):
        return line[: text.MOST_KEPT], ""
    return _Line(value.get("task_id"), value.get("func_name"), cast("Any", value.get("data")))


def _task(line: _Line) -> _Task | None:
    if not (isinstance(line.task_id, str) and line.task_id):
        return None
    function = line.func_name if isinstance(line.func_name, str) else None
    return _Task(line.task_id, function, line.data)


def _bad_line(line: _Line | tuple[bytes, str], place: str) -> Rejected:
    if isinstance(line, _Line):
        kept = json.dumps({"func_name": repr(line.func_name)[:200]})
        return Rejected("", "", RejectReason.NOT_AN_OBJECT, f"{place}: no task_id", kept)
    raw, problem = line
    kept = raw.decode("utf-8", "backslashreplace")
    if not problem:
        return Rejected("", "", RejectReason.NOT_AN_OBJECT, f"{place}: no JSON object", kept)
    return Rejected("", "", RejectReason.INVALID_JSON, f"{place}: {problem}", kept)


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """`path` for reading bytes, unpacked where it is gzipped."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if packed:
                with gzip.open(file) as unpacked:
                    yield cast("IO[bytes]", unpacked)
            else:
                yield file
    except FileNotFoundError:
        raise InputError(path, "does not exist") from None
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror or error})") from error


def _csv_rows(rows: Iterator[list[str]]) -> Iterator[list[str] | str]:
    """Each row that is not blank, or what is wrong with it."""
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield _cause(error)
        except (EOFError, OSError, zlib.error) as error:
            yield f"the file cannot be read further ({_cause(error)})"
            return
        else:
            if row:
                yield row


def _csv_execution(
    header: Sequence[str], row: Sequence[str], tool_type: ToolType, place: str
) -> Execution | Rejected:
    cells = {name: value.strip() for name, value in zip(header, row, strict=False)}
    task_id = cells.get("task_id", "")
    function = cells.get("function") or run_ids.function_of(task_id) or tool_type.name
    if len(row) != len(header) or not task_id:
        problem = f"{place}: {len(row)} values under {len(header)} names"
        kept = json.dumps(cells)[: text.MOST_KEPT]
        return Rejected(task_id, function, RejectReason.INVALID_JSON, problem, kept)
    start, seconds = _seconds_of(cells["timestamp"]), _cell(cells["execution_time"])
    late = isinstance(start, float) and isinstance(seconds, float)
    serve = {name: _cell(cells.get(f"serve_{name}", "")) for name in tool_type.feature_names}
    serve |= {name: cells.get(f"serve_{name}") or None for name in tool_type.context}
    task = {
        "start_time": start,
        "end_time": cast("float", start) + cast("float", seconds) if late else seconds,
        "dag_id": cells.get("query", ""),
        "curr_task_feat": {n: _cell(cells[n]) for n in tool_type.feature_names if n in cells}
        | {n: cells[n] for n in tool_type.context if n in cells},
        "succ_task_feat": {function: serve},
    }
    record = record_reader.read(task_id, task, function)
    if isinstance(record, Rejected):
        return record
    view = {name: value for name, value in serve.items() if value is not None}
    outcome = joining.to_execution(record, tool_type, view)
    if isinstance(outcome, Rejected):
        return outcome
    predicted, version = _cell(cells.get("predicted", "")), cells.get("model_version", "")
    return outcome.with_prediction(predicted, int(version) if version.isdigit() else None)


def _cell(text: str) -> float | str | None:
    """A number; None for an empty cell; the text itself where it is no number."""
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def _seconds_of(timestamp: str) -> float | str | None:
    """Seconds since the epoch."""
    value = _cell(timestamp)
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return value
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _position(entry_id: bytes) -> int:
    milliseconds, _, sequence = entry_id.partition(b"-")
    if int(sequence) >> _SEQUENCE_BITS or int(milliseconds) >> (63 - _SEQUENCE_BITS):
        raise InputError(f"stream entry {entry_id.decode()}", "has an id out of the clock's range")
    return int(milliseconds) << _SEQUENCE_BITS | int(sequence)


def _id(position: int) -> str:
    return f"{position >> _SEQUENCE_BITS}-{position & (1 << _SEQUENCE_BITS) - 1}"
