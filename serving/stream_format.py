"""What goes through Redis between schedulers and to ingestion, and how it is written.

`malearn:executions`, a stream: one entry a finished task, one field `e`, JSON.
`malearn:history:<function>`, a capped list, newest first: recent observations.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from malearn.kernel import text
from malearn.kernel.estimation.estimator import Basis
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.features import FeatureSchema, within
from malearn.kernel.names import Names
from malearn.kernel.onnx.model_metadata import Carried
from malearn.kernel.reading import believable, stream_entries
from malearn.kernel.records import Record, Rejected
from malearn.kernel.tool_types import ToolType, ToolTypes

__all__ = [
    "HISTORY",
    "KEEP_SECONDS",
    "REMEMBERED",
    "STREAM",
    "CompletedTask",
    "Found",
    "Predicted",
    "history_entry",
    "history_entry_of",
    "observation",
    "recent",
    "stream_entry",
]

STREAM = stream_entries.STREAM
HISTORY = Names().history
REMEMBERED = 64  # observations a function's list keeps
KEEP_SECONDS = 30 * 86_400  # a function unseen for so long is forgotten

#: A task id (empty in a list's entry), and what was observed of it.
Found = tuple[str, Observation]

_LARGEST = sys.float_info.max
_MOST_UNCLAIMED = 32  # features of a function that nobody claims; the rest stays in its record
_LONGEST_TEXT = 64  # what stands where a number should is kept, shortened, for the reject's report
_encode = msgspec.json.Encoder().encode


class Predicted(msgspec.Struct, frozen=True, gc=False):
    """What was answered for a task, from which numbers (declared order) and which context.

    `basis` is what was known of it then; None where that was not kept. `predecessors` are those
    that were named, `resource` what it was to run on.
    """

    values: tuple[float, ...]
    seconds: float
    version: int | None
    basis: Basis | None = None
    context: tuple[str, ...] = ()
    predecessors: tuple[str, ...] = ()
    resource: str = ""


class CompletedTask(msgspec.Struct, frozen=True):
    """A finished task on its way to Redis; `tool_type` is None where nobody claims it.

    `observed` are the numbers a history takes in, in declared order; `context` is what the
    task ran with. What is not `believed` goes to ingestion, not to other schedulers.
    `predecessors` are the ids of all tasks that it waited for, None where that is not known, and
    `resource` what it ran on.
    """

    record: Record | Rejected
    tool_type: ToolType | None = None
    predicted: Predicted | None = None
    observed: tuple[float, ...] = ()
    context: tuple[str, ...] = ()
    believed: bool = True
    predecessors: tuple[str, ...] | None = None
    resource: str = ""


def stream_entry(report: CompletedTask) -> bytes:
    """The stream's JSON for one finished, or rejected, task."""
    record = report.record
    if isinstance(record, Rejected):
        why = {"reason": record.reason.value, "detail": record.detail}
        return _encode({"task_id": record.task_id, "function": record.function, "rejected": why})
    tool_type, predicted = report.tool_type, report.predicted
    names = tool_type.feature_names if tool_type is not None else ()
    words = tool_type.context if tool_type is not None else ()
    features = record.features
    if tool_type is None:  # whoever claims the function later will want to know
        some = list(features.items())[:_MOST_UNCLAIMED]
        features = {text.encodable(str(name)): value for name, value in some}
    before = report.predecessors
    if before is None and predicted is not None and predicted.predecessors:
        before = predicted.predecessors
    edges: dict[str, object] = {} if before is None else {"predecessors": _texts(before)}
    resource = report.resource or (predicted.resource if predicted is not None else "")
    if resource:
        edges["resource"] = resource
    if record.successors:
        # The names alone: their features stand in the successors' own entries.
        edges["successors"] = _texts(record.successors)
    return _encode(
        {
            "task_id": record.task_id,
            "function": record.function,
            "tool_type": tool_type.name if tool_type is not None else None,
            "start": record.start,
            "end": record.end,
            "serve": _named(names, predicted.values, words, predicted.context) if predicted else {},
            "ran": {n: _plain(features[n]) for n in (names + words or features) if n in features},
            "query": record.query,
            "predicted": predicted.seconds if predicted else None,
            "model_version": predicted.version if predicted else None,
            **edges,
        }
    )


def history_entry(report: CompletedTask) -> bytes | None:
    """The history list's JSON for one finished task; None for one that teaches nothing."""
    record, tool_type = report.record, report.tool_type
    if isinstance(record, Rejected) or not report.believed:
        return None
    return _history_entry(record.start, record.end, tool_type, report.observed, report.context)


def history_entry_of(observation: Observation, tool_type: ToolType) -> bytes:
    """The same for an observation from elsewhere."""
    seen = observation
    return _history_entry(seen.start, seen.end, tool_type, seen.features, seen.context)


def observation(
    raw: bytes,
    tool_types: ToolTypes,
    schemas: Mapping[str, FeatureSchema],
    now: float,
    function: str = "",
) -> Found | str:
    """The observation in an entry of the stream or of a list, else why it is rejected, as a code.

    `schemas` are those of `tool_types`, `function` is that of the list, and `now` is in seconds
    since the epoch.
    """
    found = stream_entries.decode_plain(raw)
    if found is None:
        return "invalid_json"
    function = function or found.function
    if not function:
        return "invalid_json"
    if (problem := believable.problem(found.start, found.end, now)) is not None:
        return problem[0]
    tool_type = tool_types.get(found.tool_type or "") or tool_types.for_known(function)
    if tool_type is None:
        # Of a function that nobody claims the durations alone are learnt.
        return found.task_id, Observation(function, "", found.start, found.end)
    schema = schemas[tool_type.name]
    if any(schema.problem(view) is not None for view in (found.serve, found.ran)):
        return "invalid_feature"
    serve, ran = schema.vectorize(found.serve), schema.vectorize(found.ran)
    # As in training: what it reported of itself stands in where nothing was known before.
    values = serve.values if found.serve else ran.values if found.ran else ()
    context = ran.context or serve.context
    seen = Observation(function, tool_type.name, found.start, found.end, values, context)
    return found.task_id, seen


def recent(
    rows: Iterable[Carried],
    features: tuple[str, ...],
    tool_type: ToolType,
) -> list[Observation]:
    """Observations from metadata's `recent`, whose numbers stand in the order of `features`."""
    observations = []
    for function, start, end, numbers, context in rows:
        # Metadata is checked for its form alone; NaN fails here, too.
        if not 0.0 < end - start < math.inf:
            continue
        given: Mapping[str, Any] = dict(zip(features, numbers, strict=False))
        values = tuple(_or_nan(given.get(name)) for name in tool_type.feature_names)
        observations.append(Observation(function, tool_type.name, start, end, values, context))
    return observations


def _history_entry(
    start: float,
    end: float,
    tool_type: ToolType | None,
    values: Iterable[float],
    context: Iterable[str],
) -> bytes:
    names = tool_type.feature_names if tool_type is not None else ()
    words = tool_type.context if tool_type is not None else ()
    return _encode({"start": start, "end": end, "serve": _named(names, values, words, context)})


def _named(
    names: Iterable[str], values: Iterable[float], words: Iterable[str], context: Iterable[str]
) -> dict[str, Any]:
    """What is known of them, by name."""
    named: dict[str, Any] = {n: v for n, v in zip(names, values, strict=False) if math.isfinite(v)}
    return named | {n: w for n, w in zip(words, context, strict=False) if w} if context else named


def _texts(names: Iterable[object]) -> list[str]:
    return [text.encodable(name) for name in names if isinstance(name, str) and name]


def _plain(value: object) -> object:
    """`value` as JSON that ingestion validates as it would have validated the record's own."""
    if value is None or isinstance(value, bool):
        return value
    # JSON can carry neither NaN nor infinity: those go as text, and are rejected by name.
    number = within(value, -_LARGEST, _LARGEST)
    return text.encodable(str(value)[:_LONGEST_TEXT]) if number is None else number


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
