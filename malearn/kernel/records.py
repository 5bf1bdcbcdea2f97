"""From what a worker wrote to an `Execution`, or to a `Rejected` that says why not.

Two steps, because what is known of a task *before* it runs stands in the
records of its predecessors: `read` takes one record apart; `join` brings the
records of a run together and gives each typed task both of its feature views.

The shape of a record, and the reason codes, are the execution-log contract.
Payload text is never decoded: only the named fields are.
"""

from __future__ import annotations

import enum
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import msgspec

from malearn.kernel.tool_types import ToolType, ToolTypes

__all__ = [
    "KEPT",
    "LONG",
    "LONGEST",
    "LONGEST_LENIENT",
    "RUN_ID_LENGTH",
    "STREAM",
    "Execution",
    "Record",
    "RejectReason",
    "Rejected",
    "as_text",
    "context_of",
    "function_of",
    "join",
    "read",
    "read_entry",
    "run_of",
    "serve_view",
    "teaches",
    "to_entry",
    "typed",
    "unclaimed",
    "with_prediction",
    "words_of",
]

#: The Redis stream to which a scheduler's predictor appends each execution, in field `e`.
STREAM = "malearn:executions"

#: A task id is a run's UUID, a hyphen and the function's name.
RUN_ID_LENGTH = 36

#: How many characters of a rejected record are kept.
KEPT = 4096

#: How many characters of a word of context count.
_LONGEST_WORD = 100

#: Features longer than this, in characters of JSON, are not decoded; ordinary ones take hundreds.
LONG = 2**20

#: What is longer than this must be strict JSON: Python's lenient reader makes objects of it all.
LONGEST_LENIENT = 16 * 2**20

#: A task that claims to have run longer than this, in seconds, has a broken clock.
LONGEST = 30 * 86_400.0


class RejectReason(enum.StrEnum):
    """Why a record does not teach."""

    INVALID_JSON = "invalid_json"
    NOT_AN_OBJECT = "not_an_object"
    NO_TIMES = "no_times"
    BAD_TIMES = "bad_times"
    FUTURE_TIMES = "future_times"
    SKIPPED = "skipped"
    SOFT_FAILED = "soft_failed"
    NO_FEATURES = "no_features"
    UNMAPPED_FUNCTION = "unmapped_function"
    INVALID_FEATURE = "invalid_feature"
    OUTLIER = "outlier"
    BATCH_REFUSED = "batch_refused"
    DUPLICATE = "duplicate"
    PAST_RETENTION = "past_retention"

    @classmethod
    def _missing_(cls, value: object) -> RejectReason | None:
        """The reason that 0.1.0 wrote under another name."""
        return cls.PAST_RETENTION if value == "expired" else None


_REASONS = {reason.value: reason for reason in RejectReason}


class Record(msgspec.Struct, frozen=True, gc=False):
    """One finished task as its worker reported it.

    `start` and `end` are seconds since the epoch. `features` is what the task
    says of itself as it ran; `successors` what it says of tasks after it, by
    function, where the empty name stands for a map that names none.
    """

    task_id: str
    function: str
    start: float
    end: float
    features: Mapping[str, object] = {}
    successors: Mapping[str, Mapping[str, object]] = {}
    query: str = ""

    @property
    def run(self) -> str:
        return run_of(self.task_id)

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Execution:
    """One task that can teach.

    `serve` and `ran` hold one number per feature of its tool type, in declared
    order, NaN where missing: `serve` as known from its predecessors before it
    started, `ran` as it reported itself. `serve_context` and `ran_context` hold
    one text per name of its tool type's context, "" where unknown, and are empty
    where none is known. Times are seconds since the epoch.
    """

    task_id: str
    function: str
    tool_type: str
    start: float
    end: float
    serve: tuple[float, ...]
    ran: tuple[float, ...]
    query: str = ""
    predicted: float | None = None
    model_version: int | None = None
    serve_context: tuple[str, ...] = ()
    ran_context: tuple[str, ...] = ()

    @property
    def context(self) -> tuple[str, ...]:
        """What it ran with: as it reported, else as was known before."""
        return self.ran_context or self.serve_context

    @property
    def run(self) -> str:
        return run_of(self.task_id)

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Rejected:
    """One record that does not teach, and why; `record` is what is kept of it, as JSON."""

    task_id: str
    function: str
    reason: RejectReason
    detail: str
    record: str = ""


class _Entry(msgspec.Struct):
    """An execution as one JSON object: how it travels in the stream, and is kept when refused."""

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


_entry_decoder = msgspec.json.Decoder(_Entry)


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


def function_of(task_id: str) -> str:
    """The function's name within a task id.

    >>> function_of("19725120-6620-445b-9f40-7ceccb20bae2-task1_speech_process")
    'task1_speech_process'
    """
    return task_id[RUN_ID_LENGTH + 1 :]


def run_of(task_id: str) -> str:
    """The run's UUID within a task id."""
    return task_id[:RUN_ID_LENGTH]


def read(
    task_id: str, raw: bytes | str | Mapping[str, object], function: str | None = None
) -> Record | Rejected:
    """Take one record apart. Never raises for what it holds.

    `raw` is the value of `result:<task_id>`, or the same already decoded;
    whatever else it is, is not an object.
    `function` is read off the task id when not given.
    """
    task_id = as_text(task_id)
    function = as_text(function) if function is not None else function_of(task_id)

    def refuse(reason: RejectReason, detail: str) -> Rejected:
        return Rejected(task_id, function, reason, detail, _kept(raw))

    try:
        fields = _fields(raw)
    except (ValueError, RecursionError) as error:
        return refuse(RejectReason.INVALID_JSON, _short(error))
    if fields is None:
        return refuse(RejectReason.NOT_AN_OBJECT, "the value is no JSON object")
    if fields.start_time is None or fields.end_time is None:
        return refuse(RejectReason.NO_TIMES, "start_time or end_time is missing")
    start, end = _number(fields.start_time), _number(fields.end_time)
    if start is None or end is None or isinstance(fields.start_time, bool):
        return refuse(RejectReason.BAD_TIMES, "start_time or end_time is not a finite number")
    if not 0.0 < end - start < LONGEST:
        return refuse(RejectReason.BAD_TIMES, f"it would have taken {end - start:g} s")
    if isinstance(fields.status, str) and (why := _bad_status(fields.status)) is not None:
        return refuse(*why)
    return Record(
        task_id,
        function,
        start,
        end,
        fields.curr_task_feat if isinstance(fields.curr_task_feat, dict) else {},
        _successors(fields.succ_task_feat),
        as_text(fields.dag_id) if isinstance(fields.dag_id, str) else "",
    )


def teaches(status: str | None) -> bool:
    """Whether a record of that `status` may teach."""
    return status is None or _bad_status(status) is None


def join(
    records: Iterable[Record | Rejected], tool_types: ToolTypes
) -> tuple[list[Execution], list[Rejected]]:
    """Executions, and what was rejected, of records that hold whole runs.

    Of records with one task id the one that ended last counts; each other is
    rejected as a duplicate. Order in, order out.
    """
    rejected: list[Rejected] = []
    latest: dict[str, Record] = {}
    for record in records:
        if isinstance(record, Rejected):
            rejected.append(record)
            continue
        known = latest.get(record.task_id)
        if known is not None:
            record, older = (record, known) if record.end > known.end else (known, record)
            rejected.append(
                _reject(older, RejectReason.DUPLICATE, "the same task was written again")
            )
        latest[record.task_id] = record
    # Who speaks of whom, so that a run of many tasks is not searched for each of them.
    speakers: dict[tuple[str, str], list[Record]] = defaultdict(list)
    first_ends: dict[str, float] = {}
    for record in latest.values():
        first_ends[record.run] = min(record.end, first_ends.get(record.run, math.inf))
        for function in record.successors:
            speakers[record.run, function].append(record)
    executions: list[Execution] = []
    for record in latest.values():
        outcome = _execution(record, tool_types, speakers, first_ends[record.run])
        if isinstance(outcome, Rejected):
            rejected.append(outcome)
        else:
            executions.append(outcome)
    return executions, rejected


def read_entry(raw: object, tool_types: ToolTypes, place: str = "") -> Execution | Rejected:
    """An execution from one entry of the stream `malearn:executions`. Never raises.

    `raw` is the JSON of `to_entry`; `place` says in a rejection where it stood.
    """
    try:
        entry = _entry(raw)
    except (ValueError, RecursionError) as error:
        return Rejected("", "", RejectReason.INVALID_JSON, f"{place}: {_short(error)}", _kept(raw))
    if entry is None or not (isinstance(entry.task_id, str) and entry.task_id):
        return Rejected("", "", RejectReason.NOT_AN_OBJECT, f"{place}: no task_id", _kept(raw))
    task_id = as_text(entry.task_id)
    function = as_text(entry.function) if isinstance(entry.function, str) else function_of(task_id)
    refused = entry.rejected if isinstance(entry.rejected, dict) else {}
    why, detail = refused.get("reason"), refused.get("detail")
    if isinstance(why, str) and why in _REASONS:  # a scheduler had refused the record already
        detail = as_text(detail[:KEPT]) if isinstance(detail, str) else ""
        return Rejected(task_id, function, _REASONS[why], detail, _kept(raw))
    ran = entry.ran if isinstance(entry.ran, dict) else {}
    serve = entry.serve if isinstance(entry.serve, dict) else {}
    task = {
        "start_time": entry.start,
        "end_time": entry.end,
        "status": entry.status,
        "dag_id": entry.query,
        "curr_task_feat": ran,
    }
    record = read(task_id, task, function)
    if isinstance(record, Rejected):
        return record
    claimed = tool_types.get(entry.tool_type) if isinstance(entry.tool_type, str) else None
    outcome = typed(record, claimed or tool_types.for_function(record.function), serve)
    if isinstance(outcome, Rejected):
        return outcome
    return with_prediction(outcome, entry.predicted, entry.model_version)


def with_prediction(execution: Execution, predicted: object, version: object) -> Execution:
    """`execution` and what was predicted of it, in seconds, by which version; what is no
    such number is left out."""
    return replace(
        execution,
        predicted=_number(predicted),
        model_version=version if type(version) is int and 0 <= version < 2**63 else None,
    )


def to_entry(execution: Execution, tool_type: ToolType) -> bytes:
    """`execution` as compact JSON, what is unknown left out; `read_entry` reads it back."""
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
        }
    )


def serve_view(
    function: str, tool_type: ToolType, predecessors: Iterable[Record]
) -> dict[str, object]:
    """What `predecessors` say of the features and the context of the next task, `function`.

    Each may supply a part; of two that supply the same feature the one that
    ended last wins. A map that names no function speaks to whichever successor
    has such features. Keys outside the declaration are left out: newer logs
    carry some that are known only after the run.
    """
    names = (*tool_type.feature_names, *tool_type.context)
    view: dict[str, object] = {}
    for record in sorted(predecessors, key=lambda record: record.end):
        said = record.successors.get(function)
        if said is None:
            said = record.successors.get("", {})
        view.update((name, said[name]) for name in names if name in said)
    return view


def numbers(
    tool_type: ToolType, features: Mapping[str, object]
) -> tuple[tuple[float, ...], str | None]:
    """One number per feature in declared order, and the first problem met, if any.

    Missing values become the declared default, else NaN; so does what is no
    finite number, which is also named as the problem.
    """
    problem = None
    values = []
    for feature in tool_type.features:
        given = features.get(feature.name)
        if type(given) is float and math.isfinite(given):  # nearly always
            values.append(given)
            continue
        number = feature.missing if given is None else _number(given)
        if number is None:
            problem = problem or f"{feature.name} is {_short(given)}, not a finite number"
            number = feature.missing
        values.append(number)
    return tuple(values), problem


def context_of(tool_type: ToolType, said: Mapping[str, object]) -> tuple[str, ...]:
    """One text per name of the context, "" where `said` tells none; empty where it tells nothing.

    >>> from malearn.kernel.tool_types import declared
    >>> context_of(declared()["llm_process"], {"model": "qwen-7b", "node": 3})
    ('qwen-7b', '', '3')
    """
    words = words_of(tool_type, said)
    return tuple([word or "" for word in words]) if any(words) else ()


def words_of(tool_type: ToolType, said: Mapping[str, object]) -> tuple[str | None, ...]:
    """As `context_of`, but None for what `said` does not name; empty where it names none of it."""
    for name in tool_type.context:
        if name in said:
            break
    else:  # nearly always
        return ()
    return tuple([_word(said[name]) if name in said else None for name in tool_type.context])


def typed(
    record: Record, tool_type: ToolType | None, view: Mapping[str, object]
) -> Execution | Rejected:
    """The execution of `record`, whose predecessors said `view` of it, or why there is none."""
    if tool_type is None:
        reason, detail = unclaimed(record.features)
        return _reject(record, reason, detail, view)
    own, names = record.features, tool_type.feature_names
    if all(own.get(name) is None and view.get(name) is None for name in names):
        return _reject(
            record, RejectReason.NO_FEATURES, "it has none of its tool type's features", view
        )
    serve, serve_problem = _view(tool_type, view)
    ran, ran_problem = _view(tool_type, own)
    if problem := ran_problem or serve_problem:
        return _reject(record, RejectReason.INVALID_FEATURE, problem, view)
    return Execution(
        record.task_id,
        record.function,
        tool_type.name,
        record.start,
        record.end,
        serve,
        ran,
        record.query,
        serve_context=context_of(tool_type, view),
        ran_context=context_of(tool_type, own),
    )


def unclaimed(features: Mapping[str, object] | None) -> tuple[RejectReason, str]:
    """Why a task with `features` does not teach that no tool type claims."""
    if not features:
        return RejectReason.NO_FEATURES, "it says nothing of its features"
    return RejectReason.UNMAPPED_FUNCTION, "no tool type claims the function"


def _bad_status(status: str) -> tuple[RejectReason, str] | None:
    """Why a record of that `status` does not teach; None where it does."""
    return _bad_word(status if len(status) <= _LONGEST_WORD else status.strip()[:_LONGEST_WORD])


@lru_cache(maxsize=1000)  # few are ever said
def _bad_word(status: str) -> tuple[RejectReason, str] | None:
    said = status.strip().casefold()
    if said == "skipped":
        return RejectReason.SKIPPED, "status says skipped"
    if said in {"failed", "failure", "error"}:
        return RejectReason.SOFT_FAILED, f"status says {said}"
    return None


def _execution(
    record: Record,
    tool_types: ToolTypes,
    speakers: Mapping[tuple[str, str], Sequence[Record]],
    first_end: float,
) -> Execution | Rejected:
    tool_type = tool_types.for_function(record.function)
    if tool_type is None:
        return typed(record, None, {})
    named = speakers.get((record.run, record.function), ())
    unnamed = speakers.get((record.run, ""), ()) if record.function else ()
    if not named and not unnamed:
        # A start node: whoever submits it has its inputs at hand.
        return typed(record, tool_type, {} if first_end <= record.start else record.features)
    before = [
        other
        for other in (*named, *(u for u in unnamed if record.function not in u.successors))
        if other.task_id != record.task_id and other.end <= record.end
    ]
    return typed(record, tool_type, serve_view(record.function, tool_type, before))


def _view(
    tool_type: ToolType, features: Mapping[str, object]
) -> tuple[tuple[float, ...], str | None]:
    """As `numbers`, but that where none of the features is so much as named, all are NaN."""
    names = tool_type.feature_names
    if not features or all(name not in features for name in names):
        return (math.nan,) * len(names), None
    return numbers(tool_type, features)


def _entry(raw: object) -> _Entry | None:
    """The named keys; None for what is no object. Raises ValueError for what is no JSON."""
    if not isinstance(raw, bytes | str):
        return None
    if len(raw) > LONG:
        raise ValueError("it is too long to be an entry")
    try:
        return _entry_decoder.decode(raw)
    except msgspec.DecodeError:
        value = json.loads(raw)
    known = _Entry.__struct_fields__
    return _Entry(**{n: value.get(n) for n in known}) if isinstance(value, dict) else None


def _fields(raw: object) -> _Fields | None:
    """The named fields; None for what is no object. Raises ValueError for what is no JSON."""
    if not isinstance(raw, (bytes, str)):
        if not isinstance(raw, Mapping):
            return None
        fields = _Fields(**{name: raw.get(name) for name in _Fields.__struct_fields__})
        if isinstance(fields.curr_task_feat, dict):
            fields.curr_task_feat = dict(fields.curr_task_feat)  # whose it is may change it
        return fields
    try:
        if len(raw) > LONG:
            features = _features_decoder.decode(raw)
            if len(features.curr_task_feat) + len(features.succ_task_feat) > LONG:
                raise ValueError("its features are too long to be any")
        return _decoder.decode(raw)
    except msgspec.DecodeError as error:
        if len(raw) > LONGEST_LENIENT:
            raise ValueError(f"it is long, and {_short(error)}") from error
        # No object, or what Python's own writer emits and strict JSON does not know:
        # NaN, Infinity, numbers beyond 64 bits, half a surrogate pair.
        value = json.loads(raw)
    return _fields(value) if isinstance(value, dict) else None


def _word(value: object) -> str:
    """`value` as a word of context; "" for what is none."""
    if isinstance(value, int | float) and (number := _number(value)) is not None:
        value = f"{number:.15g}"
    return as_text(value.strip()[:_LONGEST_WORD]) if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    """`value` as a finite float, or None."""
    if not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


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


def _reject(
    record: Record, reason: RejectReason, detail: str, view: Mapping[str, object] | None = None
) -> Rejected:
    kept: dict[str, object] = {
        "start_time": record.start,
        "end_time": record.end,
        "dag_id": record.query,
        "curr_task_feat": record.features,
        "succ_task_feat": record.successors,
    }
    if view:
        kept["serve"] = view
    return Rejected(record.task_id, record.function, reason, detail, _json(kept))


def _kept(raw: object) -> str:
    """What is kept of a record: never payload of an object."""
    try:
        fields = _fields(raw)
    except (ValueError, RecursionError):
        fields = None
    if fields is not None:
        return _json({k: v for k, v in msgspec.structs.asdict(fields).items() if v is not None})
    if isinstance(raw, bytes):
        return as_text(raw[: 4 * KEPT].decode("utf-8", "replace")[:KEPT])
    return as_text(raw[:KEPT])[:KEPT] if isinstance(raw, str) else _json(raw)


def _json(value: object) -> str:
    """`value` as JSON, cut short where it is long; never raises."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=_short, skipkeys=True)
    except (ValueError, RecursionError):  # a number of 5,000 digits, a list within a list within…
        text = json.dumps(_short(value))
    return as_text(text[:KEPT])[:KEPT]


def _short(value: object, limit: int = 120) -> str:
    try:
        text = str(value) if isinstance(value, Exception) else repr(value)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} too large to show"
    return as_text(text if len(text) <= limit else f"{text[:limit]}…")


def as_text(value: str) -> str:
    """`value` as text that UTF-8 can carry: JSON may hold half a surrogate pair."""
    if value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
