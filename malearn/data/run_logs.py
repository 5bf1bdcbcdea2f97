"""Reader of the scheduler's run logs, `task_exec_result.jsonl`, plain or gzipped.

One line is `{"dag_id", "task_id", "func_name", "status", "data": record}`.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from malearn.data import files
from malearn.data.batch import Outcomes
from malearn.kernel import text
from malearn.kernel.errors import InputError
from malearn.kernel.reading import record_reader, run_ids
from malearn.kernel.records import Record, Rejected, RejectReason

__all__ = ["examine", "read", "tasks"]


#: A line of a file that is longer than this is not looked at.
_LINE_BYTES = 64 * 2**20


def read(paths: Sequence[Path], size: int = 20_000) -> Iterator[Outcomes]:
    """The records in run logs `task_exec_result.jsonl`, plain or gzipped, in batches of runs.

    One line is `{"dag_id", "task_id", "func_name", "status", "data": record}`.
    Files are read twice, line by line: first to learn where each run ends, as
    runs overlap. Every line that is not blank becomes one outcome; one that
    cannot be read, such as a truncated last one, is rejected by name and place.
    Raises `InputError` for a file that is missing or no JSONL.
    """
    # By the number of its line, counted over all files: a run may go on in the next, rotated one.
    last: dict[str, int] = {}
    at = 0
    for path in paths:
        lines = objects = 0
        for line in _lines(path):
            lines, at = lines + 1, at + 1
            task = _task(line) if isinstance(line, _Line) else None
            if task is not None:
                objects += 1
                last[run_ids.run_of(task.task_id, task.function)] = at
        # A file of another kind, named by mistake, is refused whole; single bad lines are rejected.
        if lines and not objects:
            raise _no_log(path, lines)
    yield from _closing_runs(paths, last, size)


def tasks(path: Path) -> Iterator[tuple[str, Record | Rejected]]:
    """Every task of a run log in the order of its lines, each with the id of its run.

    That is what the line names (`dag_id`), unless the task's id begins with a UUID: schedulers may
    number the tasks of each run alike. Lines without a task are left out. Raises `InputError` for a
    file that is missing or no JSONL.
    """
    lines = objects = 0
    for line in _lines(path):
        lines += 1
        task = _task(line) if isinstance(line, _Line) else None
        if task is None or not isinstance(line, _Line):
            continue
        objects += 1
        run = run_ids.run_of(task.task_id, task.function)
        if isinstance(line.dag_id, str) and line.dag_id:
            named = text.encodable(line.dag_id)
            run = run if run_ids.is_unmistakable(task.task_id, "") else named
        yield run, record_reader.read(task.task_id, _raw(task.data), task.function)
    if lines and not objects:
        raise _no_log(path, lines)


def examine(paths: Sequence[Path]) -> None:
    """Check whether `paths` can be run logs, reading each up to its first record.

    Raises `InputError` for one that is missing or no JSONL, as `read` would
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


class _Line(msgspec.Struct):
    """One line of a run log; `data` is decoded by the contract, later."""

    task_id: Any = None
    dag_id: Any = None
    func_name: Any = None
    data: msgspec.Raw = msgspec.Raw(b"null")


class _TaskLine(msgspec.Struct):
    """A line that names a task, with the data still to be read."""

    task_id: str
    function: str | None
    data: object


_line_decoder = msgspec.json.Decoder(_Line)


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
                run = run_ids.run_of(task.task_id, task.function)
                open_runs[run].append(
                    record_reader.read(task.task_id, _raw(task.data), task.function)
                )
                # A run is yielded once its last line is read, or its tasks could not be joined.
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
    with files.opened(path) as file:
        while True:
            try:
                line = file.readline(_LINE_BYTES)
                rest = line
                # The rest of a line that is too long is read in parts, each of which is dropped.
                while len(rest) == _LINE_BYTES and not rest.endswith(b"\n"):
                    rest = file.readline(_LINE_BYTES)
            except (EOFError, OSError, zlib.error) as error:
                yield b"", f"the file cannot be read further ({files.cause(error)})"
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
    # Python's own reader would turn megabytes of text into many times as many of objects.
    if len(line) > record_reader.LONGEST_LENIENT:
        return line[: text.MOST_KEPT], "it is long, and no strict JSON"
    try:  # NaN and Infinity, which Python's own writer emits, are no strict JSON
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return line[: text.MOST_KEPT], files.cause(error)
    if not isinstance(value, dict):
        return line[: text.MOST_KEPT], ""
    known = ("task_id", "dag_id", "func_name", "data")
    return _Line(*(cast("Any", value.get(name)) for name in known))


def _task(line: _Line) -> _TaskLine | None:
    if not (isinstance(line.task_id, str) and line.task_id):
        return None
    # Without a name, a run id of any form still tells where the function begins.
    function = line.func_name if isinstance(line.func_name, str) else None
    run = line.dag_id
    if not function and isinstance(run, str) and run and line.task_id.startswith(f"{run}-"):
        function = line.task_id[len(run) + 1 :]
    return _TaskLine(line.task_id, function, line.data)


def _bad_line(line: _Line | tuple[bytes, str], place: str) -> Rejected:
    if isinstance(line, _Line):
        kept = json.dumps({"func_name": repr(line.func_name)[:200]})
        return Rejected("", "", RejectReason.NOT_AN_OBJECT, f"{place}: no task_id", kept)
    raw, problem = line
    kept = raw.decode("utf-8", "backslashreplace")
    if not problem:
        return Rejected("", "", RejectReason.NOT_AN_OBJECT, f"{place}: no JSON object", kept)
    return Rejected("", "", RejectReason.INVALID_JSON, f"{place}: {problem}", kept)
