"""One batch of records on its way into the datasets, with a fast path for plain ones.

Nearly all records are plain: times and features are numbers, the status is no failure.
Such a record is decoded straight into a typed struct, and a run of such records is joined
right here, into rows. Whatever is not plain goes the long way through `records`, and its
whole run with it where it teaches, so that both ways lead to the same rows and rejections.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from malearn.data.rows import Builder, Rows
from malearn.kernel import causality, features, text
from malearn.kernel.reading import believable, joining, record_reader, run_ids, stream_entries
from malearn.kernel.records import Execution, Record, Rejected
from malearn.kernel.tool_types import ToolType, ToolTypes

__all__ = ["MOST_BYTES", "Batch", "Outcomes"]

#: A part of what a source holds, as it was read; a run's records stand in one part.
Outcomes = list[Record | Execution | Rejected]

#: Bytes of rejected records that one batch holds, about.
#: Accepted rows are numbers and short ids, which their count bounds; rejected ones carry text.
MOST_BYTES = 64 * 2**20

#: Features and context by name; a missing one may stand there as null.
_Features = dict[str, float | str | None]

_NAN = float("nan")
_end = itemgetter(0)


# Neither struct can be part of a cycle: `gc=False` keeps a million of them from the collector.
class _PlainTask(msgspec.Struct, gc=False, omit_defaults=True):
    """A plain record of a task that some tool type claims."""

    start_time: float
    end_time: float
    status: str | None = None
    dag_id: str | None = None
    curr_task_feat: _Features | None = None
    succ_task_feat: dict[str, _Features | float | str | None] | None = None


class _Unclaimed(msgspec.Struct, gc=False, omit_defaults=True):
    """A plain record of a task that no tool type claims: its own features are kept as they are."""

    start_time: float
    end_time: float
    status: str | None = None
    dag_id: str | None = None
    curr_task_feat: dict[str, Any] | None = None
    succ_task_feat: dict[str, _Features | float | str | None] | None = None


# A value of another type fails the typed decoder at once: that is the whole test for "plain".
_decode_task = msgspec.json.Decoder(_PlainTask).decode
_decode_unclaimed = msgspec.json.Decoder(_Unclaimed).decode
_encode = msgspec.json.Encoder().encode

#: What a decoder raises of a value that is not plain.
_NOT_PLAIN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Columns:
    """What it takes to make rows of one tool type."""

    __slots__ = ("_all", "_missing", "_names", "_none", "builder", "tool_type")

    def __init__(self, tool_type: ToolType) -> None:
        self.builder = Builder(tool_type)
        self.tool_type, self._names = tool_type, tool_type.feature_names
        # A view that names some feature was reported: its gaps get the declared defaults. A view
        # that names none is unknown, and all NaN.
        self._missing = tuple(feature.missing for feature in tool_type.features)
        self._none = (_NAN,) * len(self._names)
        # Of a single name an itemgetter gives no tuple; where there is none, nothing is asked for.
        self._all = itemgetter(*self._names, self._names[0]) if self._names else None

    def view(self, features: Mapping[str, Any]) -> tuple[Sequence[float], bool]:
        """One number for each, as `joining.to_execution` has it, and whether any of them is known.

        Raises `TypeError` where one is no number.
        """
        if not features or self._all is None:
            return self._none, False
        try:
            values = self._all(features)
            sum(values)  # the quickest way to learn that all are numbers
        except (KeyError, TypeError):
            pass
        else:
            return values[:-1], True
        # Null may stand for a missing value, which made the sum fail; anything else is no number.
        get = features.get
        given = [get(name) for name in self._names]
        known = [value for value in given if value is not None]
        if not known:
            named = any(name in features for name in self._names)
            return self._missing if named else self._none, False
        # Raises where a value is text: the caller then takes the long way, which names the feature.
        sum(known)
        return [
            missing if value is None else value
            for value, missing in zip(given, self._missing, strict=True)
        ], True


class Batch:
    """What became of `records` records: rows by tool type, and what was rejected.

    The records of a run are added one after another; `close` ends them.
    `weight` is about how many bytes are kept of what was rejected. What ended far ahead of
    `now`, in seconds since the epoch (by default this machine's clock), is not believed.
    """

    def __init__(self, tool_types: ToolTypes, now: float | None = None) -> None:
        self.records = self.weight = 0
        self._now = time.time() if now is None else now
        self.rejected: list[Rejected] = []
        self._tool_types = tool_types
        self._columns = {name: _Columns(tool_type) for name, tool_type in tool_types.items()}
        #: The run at hand: its tasks; its records, once one of them is not plain.
        self._run: str | None = None
        self._tasks: dict[str, _PlainTask | _Unclaimed] = {}
        self._odd: list[Record] = []

    @classmethod
    def from_outcomes(
        cls, outcomes: Iterable[Record | Execution | Rejected], tool_types: ToolTypes
    ) -> Batch:
        """`outcomes`, which hold whole runs, joined."""
        batch = cls(tool_types)
        unjoined: list[Record | Rejected] = []
        for outcome in outcomes:
            batch.records += 1
            if isinstance(outcome, Execution):
                batch._keep(outcome)
            else:
                unjoined.append(outcome)
        batch._join(unjoined)
        return batch

    @property
    def rows(self) -> dict[str, Rows]:
        """What was read, by the names of the tool types of which there is something."""
        builders = {name: columns.builder for name, columns in self._columns.items()}
        return {name: builder.rows() for name, builder in builders.items() if len(builder)}

    def add(self, task_id: str, raw: bytes) -> None:
        """Take in the value of `result:<task_id>`."""
        self.records += 1
        run = run_ids.run_of(task_id)
        if run != self._run:
            self.close()
            self._run = run
        # The plain decoder builds all features at once; the long way looks at their length first.
        if len(raw) > record_reader.LONG:
            self._add_slowly(task_id, raw)
            return
        types = self._tool_types
        # Whether one claims it by what it reports is known only once that is decoded.
        claimed = types.claiming or types.for_function(run_ids.function_of(task_id)) is not None
        try:
            task = _decode_task(raw) if claimed else _decode_unclaimed(raw)
        except _NOT_PLAIN:
            self._add_slowly(task_id, raw)
            return
        if (
            believable.are_believable(task.start_time, task.end_time, self._now)
            and record_reader.is_usable(task.status)
            # One odd record sends its whole run the long way, since its task may supply others; so
            # does a task that was written twice, of which the later end wins.
            and not self._odd
            and task_id not in self._tasks
        ):
            self._tasks[task_id] = task
        else:
            self._add_slowly(task_id, raw)

    def add_entry(self, raw: bytes, place: str) -> None:
        """Take in one entry of the stream; a rejection names its `place`."""
        self.records += 1
        entry = stream_entries.decode_plain(raw)
        if entry is None or not (entry.task_id and entry.function):
            self._keep(stream_entries.read(raw, self._tool_types, place, self._now))
            return
        # An entry holds both views already, as its scheduler knew them: no run has to be joined.
        columns = self._columns.get(entry.tool_type or "")
        version = entry.model_version
        if (
            columns is not None
            and believable.are_believable(entry.start, entry.end, self._now)
            and record_reader.is_usable(entry.status)
            # The column is a signed 64-bit integer.
            and (version is None or 0 <= version < 2**63)
        ):
            try:
                serve, said = columns.view(entry.serve)
                ran, reported = columns.view(entry.ran)
            except TypeError:
                said = reported = False
            if said or reported:
                columns.builder.put(
                    entry.task_id,
                    entry.function,
                    entry.query or "",
                    entry.start,
                    entry.end,
                    serve,
                    ran,
                    entry.predicted,
                    version,
                    features.context_of(columns.tool_type, entry.serve),
                    features.context_of(columns.tool_type, entry.ran),
                    None if entry.predecessors is None else tuple(entry.predecessors),
                    tuple(filter(None, entry.successors)),
                    entry.resource,
                )
                return
        self._keep(stream_entries.read(raw, self._tool_types, place, self._now))

    def close(self) -> None:
        """Join the run at hand."""
        tasks, odd = self._tasks, self._odd
        self._tasks, self._odd = {}, []
        if odd:
            self._join(odd)
        elif tasks:
            self._join_plain(tasks)

    def _add_slowly(self, task_id: str, raw: bytes) -> None:
        outcome = record_reader.read(task_id, raw, now=self._now)
        if isinstance(outcome, Rejected):
            self._keep(outcome)
            return
        if not self._odd:
            # The plain ones so far are made records, so that the run is joined as one.
            self._odd = [_record(other, task) for other, task in self._tasks.items()]
        self._odd.append(outcome)

    def _keep(self, outcome: Execution | Rejected) -> None:
        if isinstance(outcome, Execution):
            self._columns[outcome.tool_type].builder.add(outcome)
        else:
            self.rejected.append(outcome)
            self.weight += len(outcome.record) + len(outcome.task_id)

    def _join(self, outcomes: Iterable[Record | Rejected]) -> None:
        executions, rejected = joining.join(outcomes, self._tool_types)
        for execution in executions:
            self._keep(execution)
        for one in rejected:
            self._keep(one)

    def _join_plain(self, tasks: Mapping[str, _PlainTask | _Unclaimed]) -> None:
        """As `joining.join`."""
        # By function, the predecessors that report its features: end, id, features.
        suppliers: dict[str, list[tuple[float, str, _Features]]] = {}
        for task_id, task in tasks.items():
            if task.succ_task_feat:
                for function, given in _successors(task.succ_task_feat).items():
                    suppliers.setdefault(function, []).append((task.end_time, task_id, given))
        # What starts before anything of the run has ended is a start node: its inputs were at hand.
        first_end = min(task.end_time for task in tasks.values())
        for task_id, task in tasks.items():
            function = run_ids.function_of(task_id)
            tool_type = self._tool_types.for_record(function, task.curr_task_feat)
            if tool_type is None:
                self._reject_unclaimed(task_id, function, task)
                continue
            own: _Features = task.curr_task_feat or {}
            if function in suppliers or (function and "" in suppliers):
                said = _serve_view(task_id, function, task.start_time, suppliers)
            else:  # a start node, or no predecessor mentions it
                # Of a later task that none mentions, nothing was known when it was predicted.
                said = {} if causality.was_known(first_end, task.start_time) else own
            columns = self._columns[tool_type.name]
            try:
                serve, is_said = columns.view(said)
                ran, is_reported = columns.view(own)
            except TypeError:
                is_said = is_reported = False
            if is_said or is_reported:
                columns.builder.put(
                    task_id,
                    function,
                    task.dag_id or "",
                    task.start_time,
                    task.end_time,
                    serve,
                    ran,
                    serve_context=features.context_of(tool_type, said),
                    ran_context=features.context_of(tool_type, own),
                    successors=_named(task),
                )
            else:
                self._keep(joining.to_execution(_record(task_id, task), tool_type, said))

    def _reject_unclaimed(self, task_id: str, function: str, task: _PlainTask | _Unclaimed) -> None:
        reason, detail = joining.unclaimed(task.curr_task_feat)
        kept = _encode(task).decode()[: text.MOST_KEPT]
        self._keep(Rejected(task_id, function, reason, detail, kept, task.end_time))


def _serve_view(
    task_id: str,
    function: str,
    start: float,
    suppliers: Mapping[str, Sequence[tuple[float, str, _Features]]],
) -> _Features:
    """What was known of the task before it started, as `joining.serve_view` puts it together."""
    named, flat = suppliers.get(function, ()), suppliers.get("", ())
    said = [one for one in named if causality.was_known(one[0], start) and one[1] != task_id]
    if flat:
        # Of a predecessor that names the function, its unnamed values are for others.
        by_name = {one[1] for one in named}
        said += [
            one
            for one in flat
            if causality.was_known(one[0], start) and one[1] != task_id and one[1] not in by_name
        ]
    if len(said) == 1:
        return said[0][2]
    view: _Features = {}
    # The last to end wins, as it does when a scheduler asks.
    for _, _, given in sorted(said, key=_end):
        view |= given
    return view


def _successors(said: Mapping[str, _Features | float | str | None]) -> dict[str, _Features]:
    """By function; under the empty name, values that stand there without one."""
    spoken = {name: value for name, value in said.items() if isinstance(value, dict)}
    if len(spoken) < len(said):
        spoken[""] = {n: value for n, value in said.items() if not isinstance(value, dict)}
    return spoken


def _named(task: _PlainTask | _Unclaimed) -> tuple[str, ...]:
    """The functions that a task names, as `joining.successors_of`."""
    said = task.succ_task_feat
    if not said:
        return ()
    return tuple(name for name, value in said.items() if name and isinstance(value, dict))


def _record(task_id: str, task: _PlainTask | _Unclaimed) -> Record:
    return Record(
        task_id,
        run_ids.function_of(task_id),
        task.start_time,
        task.end_time,
        task.curr_task_feat or {},
        _successors(task.succ_task_feat or {}),
        task.dag_id or "",
    )
