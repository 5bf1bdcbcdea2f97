"""What finished tasks said of the tasks after them.

The scheduler reports a task just before it asks about its successors, so what
was reported is kept for a while and the question needs no round trip. Kept are
numbers and words of context, never the records.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from operator import itemgetter
from typing import Any

import msgspec

from malearn.kernel import features, record_reader
from malearn.kernel.features import FeatureSchema, FeatureVector
from malearn.kernel.records import Record
from malearn.kernel.tool_types import ToolTypes
from malearn.serving.generational_cache import GenerationalCache

__all__ = ["EMPTY", "PredecessorCache", "SuccessorFeatures"]

_MOST_SUCCESSORS = 256  # a record naming more functions is no workflow
_MOST_WORDS = 1024  # of a record that is longer than `_SHORT` bytes
_SHORT = 8192
_END = 2048  # bytes at either end of a longer one that usually tell all
_BACKSLASH = ord("\\")
_ORDINARY = 86_400.0  # seconds; whether a longer task is believed is for `records` to say
_end, _speaks_of_context = itemgetter(0), itemgetter(2)


#: When a task ended, in seconds since the epoch; what it said: a map per successor and, under the
#: empty name, what it said to anyone; and whether that names any context. A map becomes a
#: `FeatureVector` when it is first asked for.
SuccessorFeatures = tuple[float, dict[str, Any], bool]

#: Of a task that said nothing, or nothing that can be used.
EMPTY: SuccessorFeatures = (0.0, {}, False)


class _PartialRecord(msgspec.Struct, gc=False):
    """As much of a record as a successor needs, where it holds numbers and nothing odd."""

    start_time: float = math.nan
    end_time: float = math.nan
    status: str | None = None
    succ_task_feat: dict[str, dict[str, float | None] | float | None] | None = None


_decode = msgspec.json.Decoder(_PartialRecord).decode


def _ends(raw: bytes) -> _PartialRecord | None:
    """A long record, read from its first and its last members alone; None where that will not do.

    Between them stands text that nobody needs, and reading on through it is what takes
    long. The two ends are read as one object, in which all that is asked for must stand.
    The first opens nothing but the record itself, so that what closes both is no JSON
    where the second was cut out of something nested, or either out of a text.
    """
    head, tail = raw[:_END], raw[-_END:]
    status, start = head.find(b'"status"'), tail.rfind(b'"start_time"')
    words = tail.rfind(b'"succ_task_feat"', 0, start)
    begin, after_status = words if words >= 0 else start, head.find(b",", status)
    if status < 0 or after_status < 0 or head.count(b"{", 0, after_status) != 1:
        return None
    if begin < 1 or tail[begin - 1] == _BACKSLASH:
        return None
    try:
        heard = _decode(head[: after_status + 1] + tail[begin:])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return heard if heard.status and heard.succ_task_feat else None


class PredecessorCache:
    """The last few thousand tasks' words on their successors; shared by threads.

    Agrees with `joining.serve_view` on every set of predecessors.
    """

    def __init__(self, tool_types: ToolTypes, size: int) -> None:
        self._said: GenerationalCache[str, SuccessorFeatures] = GenerationalCache(size)
        self.declare(tool_types)

    def __len__(self) -> int:
        return len(self._said)

    def declare(self, tool_types: ToolTypes) -> None:
        """Take in another declaration; what was said under the old one is forgotten."""
        # Schemas first: none of what is claimed may be without them.
        self.schemas = features.schemas(tool_types)
        self.tool_types = tool_types
        types = tool_types.values()
        self._words = frozenset(word for t in types for word in t.context)
        self._names = self._words.union(*(t.feature_names for t in types))
        self._said.clear()

    def clear(self) -> None:
        """Forget what was said."""
        self._said.clear()

    def add(self, record: Record) -> None:
        """Keep what `record` says of its successors: only what is declared."""
        self._said.put(record.task_id, self._believed(record))

    def add_empty(self, task_id: str) -> None:
        """Keep that this task says nothing, so that nobody asks Redis again."""
        self._said.put(task_id, EMPTY)

    def add_raw(self, task_id: str, raw: bytes) -> None:
        """Keep what a raw record says; the same as `record_reader.read` and `add`, but quick."""
        heard = None if len(raw) < _SHORT else _ends(raw)
        if heard is None:
            try:
                heard = _decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self._add_slowly(task_id, raw)
                return
        words: dict[str, Any] = heard.succ_task_feat or {}
        status, end = heard.status, heard.end_time
        if (
            not 0.0 < end - heard.start_time < _ORDINARY
            or not record_reader.is_usable(status)
            or (len(raw) >= _SHORT and _size(words) >= _MOST_WORDS)
        ):
            self._add_slowly(task_id, raw)
            return
        context = False
        for one in words.values():
            if type(one) is not dict:
                words, context = _apart(words), True  # or so it may be
                break
            context = context or not self._words.isdisjoint(one)
        self._said.put(task_id, (end, words, context))

    def get_many(self, task_ids: Sequence[str]) -> list[SuccessorFeatures | None]:
        """What each of `task_ids` said, None where that is not known."""
        return self._said.get_all(task_ids)

    def features_for(
        self, function: str, schema: FeatureSchema, heard: Iterable[SuccessorFeatures | None]
    ) -> FeatureVector:
        """What tasks that said `heard` tell of `function`, whose features are `schema`.

        Of two that speak of the same thing the one that ended last counts.
        """
        spoken = [
            said for said in heard if said is not None and (function in said[1] or "" in said[1])
        ]
        if not spoken:
            return schema.nothing
        if len(spoken) == 1:
            return _vector(spoken[0], function, schema)
        told = _vector(max(reversed(spoken), key=_end), function, schema)  # of equals the last
        if None not in told.given and not any(map(_speaks_of_context, spoken)):
            return told  # nearly always
        return schema.merge([_vector(said, function, schema) for said in sorted(spoken, key=_end)])

    def _add_slowly(self, task_id: str, raw: bytes) -> None:
        record = record_reader.read(task_id, raw)
        if isinstance(record, Record):
            self.add(record)
        else:
            self.add_empty(task_id)

    def _believed(self, record: Record) -> SuccessorFeatures:
        if len(record.successors) > _MOST_SUCCESSORS:
            return EMPTY
        words: dict[str, Any] = {}
        context = False
        for function, spoken in record.successors.items():
            context = context or not self._words.isdisjoint(spoken)
            if not function:
                words[""] = {
                    n: value if isinstance(value := spoken[n], Real | str) else None
                    for n in self._names
                    if n in spoken
                }
            elif (tool_type := self.tool_types.for_function(function)) is not None:
                words[function] = self.schemas[tool_type.name].vectorize(spoken)
        return (record.end, words, context)


def _vector(said: SuccessorFeatures, function: str, schema: FeatureSchema) -> FeatureVector:
    """What is told of `function`, of which `said` speaks, or to anyone."""
    words = said[1]
    told = words.get(function)
    if type(told) is not FeatureVector:
        told = words[function] = schema.vectorize(words[""] if told is None else told)
    # One that was told while another declaration took over is forgotten with the old one.
    return told if told.schema is schema else schema.nothing


def _apart(words: Mapping[str, Any]) -> dict[str, Any]:
    """What is said to one function, and under the empty name what is said to anyone."""
    apart = {name: word for name, word in words.items() if isinstance(word, dict)}
    apart[""] = {name: word for name, word in words.items() if not isinstance(word, dict)}
    return apart


def _size(words: Mapping[str, Any]) -> int:
    """How many numbers there are."""
    return sum(len(word) if isinstance(word, dict) else 1 for word in words.values())
