"""What finished tasks left for the tasks after them.

The scheduler reports a task just before it asks about its successors, so what was reported is
kept for a while and the question needs no round trip. Kept are numbers and words of context,
never the records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from numbers import Real
from operator import itemgetter
from typing import Any

import msgspec

from malearn.kernel import features
from malearn.kernel.features import FeatureSchema, FeatureVector
from malearn.kernel.reading import record_reader
from malearn.kernel.records import Record
from malearn.kernel.tool_types import ToolTypes
from malearn.serving.generational_cache import GenerationalCache

__all__ = ["EMPTY", "PredecessorCache", "SuccessorFeatures"]

_MAX_SUCCESSORS = 256  # a record naming more functions is no workflow
_MAX_VALUES = 1024  # of a record that is longer than `_SHORT` bytes
_SHORT = 8192
_MAX_UNCLAIMED = 64  # values for a function that nobody claims by its name
_END = 2048  # bytes at either end of a longer one that usually hold all that is needed
_BACKSLASH = ord("\\")
_ORDINARY = 86_400.0  # seconds; `record_reader` decides whether a longer time is plausible
_end = itemgetter(0)


#: When a task ended, in seconds since the epoch; the features it gave, a map per successor and,
#: under the empty name, one for any; and whether that names any context. A map becomes a
#: `FeatureVector` when it is first asked for.
SuccessorFeatures = tuple[float, dict[str, Any], bool]

#: Of a task that gave nothing, or nothing that can be used.
EMPTY: SuccessorFeatures = (0.0, {}, False)


class _PartialRecord(msgspec.Struct, gc=False):
    """As much of a record as a successor needs, where it holds numbers and nothing odd."""

    start_time: float = math.nan
    end_time: float = math.nan
    status: str | None = None
    succ_task_feat: dict[str, dict[str, float | None] | float | None] | None = None


_decode = msgspec.json.Decoder(_PartialRecord).decode


def _decode_ends(raw: bytes) -> _PartialRecord | None:
    """A long record, read from its first and its last members alone; None where that will not do.

    Between them stands a model's text, which nobody needs and whose reading takes long: of a
    record of 100 KB the whole takes 56 µs, its two ends 5 (1 MB: 575 and 5).

    The two ends are read as one object, in which all that is asked for must stand. The first
    opens nothing but the record itself, so that what closes both is no JSON where the second
    was cut out of something nested, or either out of a text.
    """
    head, tail = raw[:_END], raw[-_END:]
    status, start = head.find(b'"status"'), tail.rfind(b'"start_time"')
    successors = tail.rfind(b'"succ_task_feat"', 0, start)
    begin, after_status = successors if successors >= 0 else start, head.find(b",", status)
    if status < 0 or after_status < 0 or head.count(b"{", 0, after_status) != 1:
        return None
    if begin < 1 or tail[begin - 1] == _BACKSLASH:
        return None
    try:
        found = _decode(head[: after_status + 1] + tail[begin:])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if found.status and found.succ_task_feat else None


class PredecessorCache:
    """What the last few thousand tasks left for their successors; shared by threads.

    Agrees with `joining.serve_view` on every set of predecessors.
    """

    def __init__(self, tool_types: ToolTypes, size: int) -> None:
        self._by_task: GenerationalCache[str, SuccessorFeatures] = GenerationalCache(size)
        self.declare(tool_types)

    def __len__(self) -> int:
        return len(self._by_task)

    def declare(self, tool_types: ToolTypes) -> None:
        """Use another declaration from now on; what was kept under the old one is dropped."""
        # Schemas first: a function that is claimed must find one.
        self.schemas = features.schemas(tool_types)
        self.tool_types = tool_types
        types = tool_types.values()
        self._context_names = frozenset(word for t in types for word in t.context)
        self._names = self._context_names.union(*(t.feature_names for t in types))
        self._by_task.clear()

    def clear(self) -> None:
        """Drop everything."""
        self._by_task.clear()

    def add(self, record: Record) -> None:
        """Keep what `record` gives its successors: only what is declared."""
        self._by_task.put(record.task_id, self._declared_features(record))

    def add_empty(self, task_id: str) -> None:
        """Keep that this task gives nothing, so that Redis is not asked for it again."""
        self._by_task.put(task_id, EMPTY)

    def add_raw(self, task_id: str, raw: bytes) -> None:
        """Keep what a raw record gives; as `record_reader.read` and `add`, but quick."""
        partial = None if len(raw) < _SHORT else _decode_ends(raw)
        if partial is None:
            try:
                partial = _decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError):
                self._add_slowly(task_id, raw)
                return
        given: dict[str, Any] = partial.succ_task_feat or {}
        status, end = partial.status, partial.end_time
        if (
            not 0.0 < end - partial.start_time < _ORDINARY
            or not record_reader.is_usable(status)
            # The slow way keeps declared names only, which bounds what a large record leaves here.
            or (len(raw) >= _SHORT and _count_values(given) >= _MAX_VALUES)
        ):
            self._add_slowly(task_id, raw)
            return
        context = False
        for one in given.values():
            if type(one) is not dict:
                given, context = _separated(given), True  # its names are not looked at
                break
            context = context or not self._context_names.isdisjoint(one)
        self._by_task.put(task_id, (end, given, context))

    def get_many(self, task_ids: Sequence[str]) -> list[SuccessorFeatures | None]:
        """What each of `task_ids` left, None where that is not known."""
        return self._by_task.get_all(task_ids)

    def features_for(
        self, function: str, schema: FeatureSchema, found: Sequence[SuccessorFeatures | None]
    ) -> FeatureVector:
        """The features of `function`, in the order of `schema`, by what its predecessors left.

        Of two that give the same feature the one that ended last counts.
        """
        if len(found) == 1:  # as below, with nothing to merge
            one = found[0]
            if one is None:
                return schema.nothing
            known = one[1].get(function)
            if type(known) is FeatureVector and known.schema is schema:
                return known  # nearly always
            if known is None and "" not in one[1]:
                return schema.nothing
            return _vector(one, function, schema)
        latest = _latest(found)
        # Of several that give no context, one that gives all numbers leaves nothing to merge; the
        # others need not be looked into, which is what takes long.
        if latest is not None and (function in latest[1] or "" in latest[1]):
            vector = _vector(latest, function, schema)
            if None not in vector.given:
                return vector  # nearly always
        giving = [one for one in found if one is not None and (function in one[1] or "" in one[1])]
        if not giving:
            return schema.nothing
        if len(giving) == 1:
            return _vector(giving[0], function, schema)
        return schema.merge([_vector(one, function, schema) for one in sorted(giving, key=_end)])

    def _add_slowly(self, task_id: str, raw: bytes) -> None:
        record = record_reader.read(task_id, raw, now=math.inf)  # its features are as good
        if isinstance(record, Record):
            self.add(record)
        else:
            self.add_empty(task_id)

    def _declared_features(self, record: Record) -> SuccessorFeatures:
        # What is kept is bounded by tasks, so each of them must be bounded, too.
        if len(record.successors) > _MAX_SUCCESSORS:
            return EMPTY
        kept: dict[str, Any] = {}
        context = False
        for function, given in record.successors.items():
            context = context or not self._context_names.isdisjoint(given)
            if not function:
                kept[""] = {
                    name: value if isinstance(value := given[name], Real | str) else None
                    for name in self._names
                    if name in given
                }
            elif (tool_type := self.tool_types.for_known(function)) is not None:
                kept[function] = self.schemas[tool_type.name].vectorize(given)
            elif self.tool_types.is_open:
                # Who claims it is known once it is asked for: see `_vector`.
                some = islice(given.items(), _MAX_UNCLAIMED)
                kept[function] = {n: v if isinstance(v, Real | str) else None for n, v in some}
        return (record.end, kept, context)


def _latest(found: Sequence[SuccessorFeatures | None]) -> SuccessorFeatures | None:
    """Of equals the last; None where one gives a context, which counts beside what is later."""
    latest, last = None, -math.inf
    for one in found:
        if one is not None:
            if one[2]:
                return None
            if one[0] >= last:
                latest, last = one, one[0]
    return latest


def _vector(one: SuccessorFeatures, function: str, schema: FeatureSchema) -> FeatureVector:
    """What `one`, which has something for `function` or for any, gives that function."""
    given = one[1]
    vector = given.get(function)
    # Made once and kept in the shared map; two threads may both make it, to the same result.
    if type(vector) is not FeatureVector:
        vector = given[function] = schema.vectorize(given[""] if vector is None else vector)
    # A vector made while another declaration took over is dropped with the old one.
    return vector if vector.schema is schema else schema.nothing


def _separated(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is for one function, and under the empty name what is for any."""
    separated = {name: one for name, one in given.items() if isinstance(one, dict)}
    separated[""] = {name: one for name, one in given.items() if not isinstance(one, dict)}
    return separated


def _count_values(given: Mapping[str, Any]) -> int:
    return sum(len(one) if isinstance(one, dict) else 1 for one in given.values())
