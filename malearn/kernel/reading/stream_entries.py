"""Entries of the Redis stream of executions: how one execution is written and read as JSON.

What is kept of a quarantined execution has the same form.
"""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec

from malearn.kernel import text
from malearn.kernel.errors import InputError
from malearn.kernel.names import Names
from malearn.kernel.reading import record_reader, run_ids
from malearn.kernel.reading.joining import to_execution
from malearn.kernel.records import Execution, Rejected, RejectReason
from malearn.kernel.tool_types import ToolType, ToolTypes

__all__ = [
    "LENGTH_SETTING",
    "STREAM",
    "PlainEntry",
    "decode_plain",
    "encode",
    "length_limit",
    "read",
]


#: The Redis stream to which a scheduler's predictor appends each execution, in field `e`, in an
#: installation without a prefix.
STREAM = Names().stream
#: The variable that says how many entries the stream keeps, and how many without it.
LENGTH_SETTING = "MALEARN_STREAM_LENGTH"
_LENGTH = 100_000
_REASONS = {reason.value: reason for reason in RejectReason}


class PlainEntry(msgspec.Struct, gc=False):
    """An entry as schedulers write nearly all of them: numbers are numbers, text is text.

    `rejected` entries, which a scheduler could not read itself, are not plain.
    """

    task_id: str = ""
    function: str = ""
    tool_type: str | None = None
    start: float = 0.0
    end: float = 0.0
    serve: dict[str, float | str | None] = {}
    ran: dict[str, float | str | None] = {}
    query: str | None = None
    predicted: float | None = None
    model_version: int | None = None
    status: str | None = None
    rejected: None = None
    predecessors: list[str] | None = None
    successors: list[str] = []
    resource: str = ""


class _Entry(msgspec.Struct):
    """An entry that may hold anything under the same names."""

    task_id: Any = None
    function: Any = None
    tool_type: Any = None
    start: Any = None
    end: Any = None
    serve: Any = None
    ran: Any = None
    query: Any = None
    predicted: Any = None
    model_version: Any = None
    status: Any = None
    rejected: Any = None
    predecessors: Any = None
    successors: Any = None
    resource: Any = None


_decode_plain = msgspec.json.Decoder(PlainEntry).decode
_decode_any = msgspec.json.Decoder(_Entry).decode

#: What a decoder raises of JSON that is not what it expects.
_UNEXPECTED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def length_limit() -> int:
    """About how many entries the stream keeps. Raises `InputError` for what is no such number."""
    given = os.environ.get(LENGTH_SETTING) or str(_LENGTH)
    if not given.isascii() or not given.isdigit() or not 0 < int(given) < 2**63:
        raise InputError(LENGTH_SETTING, f"must be a number of entries above 0, not '{given}'")
    return int(given)


def decode_plain(raw: bytes) -> PlainEntry | None:
    """The entry in `raw` where it is plain; None for anything else, which `read` takes apart."""
    if len(raw) > record_reader.LONG:
        return None
    try:
        return _decode_plain(raw)
    except _UNEXPECTED:
        return None


def read(
    raw: object, tool_types: ToolTypes, place: str = "", now: float | None = None
) -> Execution | Rejected:
    """An execution from one entry of the stream `malearn:executions`. Never raises.

    `raw` is the JSON of `encode`; `place` says in a rejection where it stood; `now` is as
    in `record_reader.read`.
    """
    try:
        entry = _decode(raw)
    except (ValueError, RecursionError) as error:
        return Rejected(
            "",
            "",
            RejectReason.INVALID_JSON,
            f"{place}: {text.shortened(error)}",
            record_reader.kept(raw),
        )
    if entry is None or not (isinstance(entry.task_id, str) and entry.task_id):
        return Rejected(
            "", "", RejectReason.NOT_AN_OBJECT, f"{place}: no task_id", record_reader.kept(raw)
        )
    task_id = text.encodable(entry.task_id)
    function = (
        text.encodable(entry.function)
        if isinstance(entry.function, str)
        else run_ids.function_of(task_id)
    )
    rejected = entry.rejected if isinstance(entry.rejected, dict) else {}
    why, detail = rejected.get("reason"), rejected.get("detail")
    if isinstance(why, str) and why in _REASONS:  # the scheduler could not read the record
        detail = text.encodable(detail[: text.MOST_KEPT]) if isinstance(detail, str) else ""
        return Rejected(task_id, function, _REASONS[why], detail, record_reader.kept(raw))
    ran = entry.ran if isinstance(entry.ran, dict) else {}
    serve = entry.serve if isinstance(entry.serve, dict) else {}
    task = {
        "start_time": entry.start,
        "end_time": entry.end,
        "status": entry.status,
        "dag_id": entry.query,
        "curr_task_feat": ran,
        # The names alone, which rejections keep, too: their features stand with who got them.
        "succ_task_feat": {key: {} for key in _texts(entry.successors) or ()},
    }
    record = record_reader.read(task_id, task, function, now)
    if isinstance(record, Rejected):
        return record
    # The scheduler knew what the task ran on; only one of a tool type that is declared no more, or
    # was not there yet, is claimed anew.
    claimed = tool_types.get(entry.tool_type) if isinstance(entry.tool_type, str) else None
    tool_type = claimed or tool_types.for_record(record.function, ran)
    resource = text.encodable(entry.resource) if isinstance(entry.resource, str) else ""
    outcome = to_execution(record, tool_type, serve, _texts(entry.predecessors), resource)
    if isinstance(outcome, Rejected):
        return outcome
    return outcome.with_prediction(entry.predicted, entry.model_version)


def encode(execution: Execution, tool_type: ToolType) -> bytes:
    """`execution` as compact JSON, what is unknown left out; `read` reads it back."""
    views = {
        view: {
            name: number
            for name, number in zip(tool_type.feature_names, numbers, strict=True)
            if number == number
        }
        | {name: word for name, word in zip(tool_type.context, words, strict=False) if word}
        for view, numbers, words in (
            ("serve", execution.serve, execution.serve_context),
            ("ran", execution.ran, execution.ran_context),
        )
    }
    return msgspec.json.encode(
        {
            "task_id": execution.task_id,
            "function": execution.function,
            "tool_type": execution.tool_type,
            "start": execution.start,
            "end": execution.end,
            **views,
            "query": execution.query,
            "predicted": execution.predicted,
            "model_version": execution.model_version,
            "predecessors": execution.predecessors,
            "successors": execution.successors,
            "resource": execution.resource,
        }
    )


def _texts(value: object) -> list[str] | None:
    """The texts of a list; None for what is no list."""
    if not isinstance(value, list):
        return None
    return [text.encodable(one) for one in value if isinstance(one, str)]


def _decode(raw: object) -> _Entry | None:
    """The named keys; None for what is no object. Raises ValueError for what is no JSON."""
    if not isinstance(raw, bytes | str):
        return None
    if len(raw) > record_reader.LONG:
        raise ValueError("it is too long to be an entry")
    try:
        return _decode_any(raw)
    except msgspec.DecodeError:
        # NaN and numbers beyond 64 bits, which Python's writer emits and strict JSON refuses.
        value = json.loads(raw)
    known = _Entry.__struct_fields__
    return _Entry(**{n: value.get(n) for n in known}) if isinstance(value, dict) else None
