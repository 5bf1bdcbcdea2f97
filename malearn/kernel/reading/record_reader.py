"""Reader of the JSON that a worker writes when its task ends.

The shape of a record, and the reason codes, are the execution-log contract. Payload text is
never decoded: only the named fields are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from malearn.kernel import features, text
from malearn.kernel.reading import believable, run_ids
from malearn.kernel.records import Record, Rejected, RejectReason

__all__ = ["LONG", "LONGEST_LENIENT", "is_usable", "kept", "read"]


#: Features longer than this, in characters of JSON, are not decoded; ordinary ones take hundreds.
LONG = 2**20
#: What is longer than this must be strict JSON: Python's lenient reader makes objects of it all.
LONGEST_LENIENT = 16 * 2**20
#: Characters of a status that are looked at.
_LONGEST_STATUS = 100


class _Fields(msgspec.Struct):
    """The only keys that are ever decoded."""

    start_time: Any = None
    end_time: Any = None
    status: Any = None
    dag_id: Any = None
    curr_task_feat: Any = None
    succ_task_feat: Any = None


_decoder = msgspec.json.Decoder(_Fields)


class _Features(msgspec.Struct):
    """The two that may be long, as they stand there."""

    curr_task_feat: msgspec.Raw = msgspec.Raw()
    succ_task_feat: msgspec.Raw = msgspec.Raw()


_features_decoder = msgspec.json.Decoder(_Features)


def read(
    task_id: str,
    raw: bytes | str | Mapping[str, object],
    function: str | None = None,
    now: float | None = None,
) -> Record | Rejected:
    """The record in `raw`, or why it is rejected. Never raises for what it holds.

    `raw` is the value of `result:<task_id>`, or the same already decoded;
    whatever else it is, is not an object.
    `function` is read off the task id when not given. What ended far ahead of `now`, in
    seconds since the epoch (by default this machine's clock), is rejected.
    """
    task_id = text.encodable(task_id)
    function = text.encodable(function) if function is not None else run_ids.function_of(task_id)

    def refuse(
        reason: RejectReason, detail: str, end: float | None = None, start: float | None = None
    ) -> Rejected:
        return Rejected(task_id, function, reason, detail, kept(raw), end, start)

    try:
        fields = _fields(raw)
    except (ValueError, RecursionError) as error:
        return refuse(RejectReason.INVALID_JSON, text.shortened(error))
    if fields is None:
        return refuse(RejectReason.NOT_AN_OBJECT, "the value is no JSON object")
    if fields.start_time is None or fields.end_time is None:
        return refuse(RejectReason.NO_TIMES, "start_time or end_time is missing")
    start, end = features.finite(fields.start_time), features.finite(fields.end_time)
    # Python's booleans are integers: JSON's `true` would be the first second of 1970.
    if start is None or end is None or isinstance(fields.start_time, bool):
        return refuse(RejectReason.BAD_TIMES, "start_time or end_time is not a finite number")
    why = _bad_status(fields.status) if isinstance(fields.status, str) else None
    shortest = believable.SHORTEST if why is None else 0.0
    now = time.time() if now is None else now
    if (odd := believable.problem(start, end, now, shortest)) is not None:
        return refuse(RejectReason(odd[0]), odd[1])
    if why is not None:
        return refuse(*why, end, start)
    return Record(
        task_id,
        function,
        start,
        end,
        fields.curr_task_feat if isinstance(fields.curr_task_feat, dict) else {},
        _successors(fields.succ_task_feat),
        text.encodable(fields.dag_id) if isinstance(fields.dag_id, str) else "",
    )


def is_usable(status: str | None) -> bool:
    """Whether models may learn from a record of that `status`."""
    return status is None or _bad_status(status) is None


def _bad_status(status: str) -> tuple[RejectReason, str] | None:
    """Why a record of that `status` is rejected; None where it is not."""
    # Cut, since what is remembered by the cache below must not be a whole traceback.
    return _bad_word(status if len(status) <= _LONGEST_STATUS else status.strip()[:_LONGEST_STATUS])


@lru_cache(maxsize=1000)  # few are ever used
def _bad_word(status: str) -> tuple[RejectReason, str] | None:
    said = status.strip().casefold()
    if said == "skipped":
        return RejectReason.SKIPPED, "status says skipped"
    if said in {"failed", "failure", "error"}:
        return RejectReason.SOFT_FAILED, f"status says {said}"
    return None


def _fields(raw: object) -> _Fields | None:
    """The named fields; None for what is no object. Raises ValueError for what is no JSON."""
    if not isinstance(raw, (bytes, str)):
        if not isinstance(raw, Mapping):
            return None
        fields = _Fields(**{name: raw.get(name) for name in _Fields.__struct_fields__})
        if isinstance(fields.curr_task_feat, dict):
            fields.curr_task_feat = dict(fields.curr_task_feat)  # the caller may change its own
        return fields
    try:
        if len(raw) > LONG:
            # `Raw` only points at the text: a long one is measured before anything is made of it.
            both = _features_decoder.decode(raw)
            if len(both.curr_task_feat) + len(both.succ_task_feat) > LONG:
                raise ValueError("its features are longer than a megabyte")
        return _decoder.decode(raw)
    except msgspec.DecodeError as error:
        if len(raw) > LONGEST_LENIENT:
            raise ValueError(f"it is long, and {text.shortened(error)}") from error
        # No object, or what Python's own writer emits and strict JSON does not know:
        # NaN, Infinity, numbers beyond 64 bits, half a surrogate pair.
        value = json.loads(raw)
    return _fields(value) if isinstance(value, dict) else None


def _successors(value: object) -> dict[str, Mapping[str, object]]:
    """By function; under the empty name, values that stand there without one."""
    if not isinstance(value, dict):
        return {}
    flat = {name: number for name, number in value.items() if not isinstance(number, dict)}
    if not flat:  # nearly always
        return value
    spoken: dict[str, Mapping[str, object]] = {
        name: features for name, features in value.items() if name not in flat
    }
    spoken[""] = flat
    return spoken


def kept(raw: object) -> str:
    """What is kept of a record: never payload of an object."""
    try:
        fields = _fields(raw)
    except (ValueError, RecursionError):
        fields = None
    if fields is not None:
        return text.as_json(
            {k: v for k, v in msgspec.structs.asdict(fields).items() if v is not None}
        )
    if isinstance(raw, bytes):
        return text.encodable(
            # A character of UTF-8 has four bytes at most, so enough is decoded and no more.
            raw[: 4 * text.MOST_KEPT].decode("utf-8", "replace")[: text.MOST_KEPT]
        )
    return (
        text.encodable(raw[: text.MOST_KEPT])[: text.MOST_KEPT]
        if isinstance(raw, str)
        else text.as_json(raw)
    )
