"""`events.jsonl`: what happened in one run, a line an event, appended while the run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from malearn.data import files
from malearn.kernel import text
from malearn.kernel.errors import InputError

__all__ = ["DamagedLine", "Event", "read"]

#: A line that is longer than this is not looked at.
_LINE_BYTES = 64 * 2**20


class Event(msgspec.Struct):
    """One event. `number` is that of its line, from 1 on."""

    type: Any = None
    data: Any = None
    number: int = 0


# `Any` throughout: one field of an unexpected type must not spoil the whole event.
class _Data(msgspec.Struct, omit_defaults=True):
    """What is read of an event's data; the rest, such as the nodes that were free, is skipped."""

    task_id: Any = None
    task_name: Any = None
    task_kind: Any = None
    parents: Any = None
    model_anchor: Any = None
    attempt: Any = None
    started_at: Any = None
    finished_at: Any = None
    duration_ms: Any = None
    result: Any = None
    error: Any = None
    scheduling: Any = None
    resource_observation: Any = None
    run_id: Any = None
    run_status: Any = None


class _Line(msgspec.Struct):
    type: Any = None
    data: _Data | None = None


_decoder = msgspec.json.Decoder(_Line)


@dataclass(frozen=True, slots=True)
class DamagedLine:
    """A line that is no event: where it stands, what is wrong with it, and how it begins."""

    number: int
    problem: str
    kept: str


def read(path: Path, *, complete: bool) -> Iterator[Event | DamagedLine]:
    """The events in `path`, in order; none where there is no such file.

    A last line without an end is being written: it counts only where the run is `complete`.
    """
    if not path.exists():
        return
    try:
        with files.opened(path) as file:
            number = 0
            while line := file.readline(_LINE_BYTES):
                number += 1
                whole = line.endswith(b"\n")
                if len(line) == _LINE_BYTES and not whole:
                    _skip_rest(file)
                    problem = f"it is longer than {_LINE_BYTES >> 20} MiB"
                    yield DamagedLine(number, problem, _kept(line))
                elif line.strip():
                    found = _event(line, number)
                    # Half a line that is no event yet is read again once it is whole.
                    if whole or complete or isinstance(found, Event):
                        yield found
    except (EOFError, OSError, InputError) as error:
        problem = error.problem if isinstance(error, InputError) else files.cause(error)
        # Number 0: no line of its own, so that it counts however far the cursor has come.
        yield DamagedLine(0, f"the file cannot be read further ({problem})", "")


def _event(line: bytes, number: int) -> Event | DamagedLine:
    try:
        found = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _odd(line, number)
    return Event(found.type, _named(found.data), number)


def _odd(line: bytes, number: int) -> Event | DamagedLine:
    """What is no strict JSON, or no event: NaN and Infinity are what Python's writer emits."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return DamagedLine(number, files.cause(error), _kept(line))
    if not isinstance(value, dict):
        return DamagedLine(number, "it is no JSON object", _kept(line))
    data = value.get("data")
    return Event(value.get("type"), data if isinstance(data, dict) else {}, number)


def _named(data: _Data | None) -> Mapping[str, Any]:
    return {} if data is None else msgspec.structs.asdict(data)


def _kept(line: bytes) -> str:
    return text.encodable(line[: text.MOST_KEPT].decode("utf-8", "backslashreplace"))


def _skip_rest(file: Any) -> None:
    while rest := file.readline(_LINE_BYTES):
        if rest.endswith(b"\n"):
            return
