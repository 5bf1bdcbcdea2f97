"""Ingestion: batches of records become rows in the datasets, and every record is counted.

A batch is joined, deduplicated, validated, checked for outliers and stored. Validator and
outlier fence are handed in, because dependencies point one way: the flows know Great
Expectations, this does not. Accepted rows are committed first, table by table, rejected
ones last; a process that is killed in between and starts again finds the rows there and
continues after the last commit.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from malearn.data import gc_pause, locks, stream_gap
from malearn.data.batch import Batch
from malearn.data.dataset import AppendResult, Dataset
from malearn.data.delta.table import Position
from malearn.data.ingest_report import IngestReport, ToolTypeReport
from malearn.data.rejected_row import RejectedRow
from malearn.data.rejections import Rejections
from malearn.data.rows import Rows
from malearn.data.stream import Stream
from malearn.data.stream_gap import StreamGap
from malearn.kernel.errors import BatchRefused, DatasetDamaged
from malearn.kernel.home import Home
from malearn.kernel.reading import believable, run_ids, stream_entries
from malearn.kernel.reading.believable import Clock
from malearn.kernel.records import Execution, Record, Rejected, RejectReason
from malearn.kernel.tool_types import ToolType, ToolTypes

__all__ = [
    "Durations",
    "Fence",
    "Ingest",
    "Validate",
    "Validated",
]

#: Tables that are read or written at the same time.
_TABLES_AT_ONCE = 8
_T = TypeVar("_T")
_R = TypeVar("_R")


class Validated(Protocol):
    """How a validator splits executions; each quarantined one names what it broke."""

    @property
    def accepted(self) -> Sequence[Execution]: ...

    @property
    def quarantined(self) -> list[Rejected]: ...


#: Splits the executions of one tool type; raises `BatchRefused` where too many are bad.
Validate = Callable[[ToolType, Sequence[Execution]], Validated]

#: The recent log-seconds of each function, oldest first.
Durations = Mapping[str, Sequence[float]]

#: Splits executions by what the dataset has of their functions, and what was fenced off, lately.
Fence = Callable[
    [Sequence[Execution], Durations, Durations], tuple[Sequence[Execution], list[Rejected]]
]


class Ingest:
    """The way into the datasets below `home`.

    Processes may ingest at the same time: they take turns, batch by batch.

    Example::

        ingest = Ingest(home, tool_types, expectations.validate, outliers.fence)
        batches = redis_scan.scan(url, tool_types, ends=ingest.ends)
        report = sum((ingest.take(batch, "redis") for batch in batches), IngestReport())
    """

    def __init__(
        self,
        home: Home,
        tool_types: ToolTypes,
        validate: Validate | None = None,
        fence: Fence | None = None,
        clock: Clock = time.time,
    ) -> None:
        self.home, self.tool_types = home, tool_types
        self.datasets = {name: Dataset.open(home, t) for name, t in tool_types.items()}
        self.rejections = Rejections.open(home)
        self._validate, self._fence, self._clock = validate, fence, clock

    def take(
        self,
        batch: Batch | Iterable[Record | Execution | Rejected],
        source: str,
        transaction: Position | None = None,
    ) -> IngestReport:
        """Ingest one batch, which holds whole runs, and report what became of it.

        A task that is in its dataset, or was kept out of it by validation, with
        the same end or a later one counts as a duplicate. `transaction`, an
        application id and a position, is committed with every table that is
        written to. Raises `DatasetError`; then some tables may hold the
        batch's rows, and taking it again adds the rest.
        """
        with locks.dataset_lock(self.home), gc_pause.gc_paused():
            if not isinstance(batch, Batch):
                batch = Batch.from_outcomes(batch, self.tool_types)
            return self._take(batch, source, transaction)

    def drain(self, stream: Stream, size: int = 100_000) -> Iterator[IngestReport]:
        """Ingest what `stream` holds now, each entry exactly once, a report a batch.

        What is added meanwhile waits for the next call, so that a steady load does not keep this
        one for ever. The position is committed with the rows, and the stream trimmed once all
        are. Killed at any moment, the next call goes on from there. Entries that left the stream
        unread are reported too. Raises `Unreachable`, `InputError` and `DatasetError`.
        """
        # Each batch finds the same gap again; it is reported once a call.
        said: set[StreamGap] = set()
        # Read once, before the first batch: this is where the call ends.
        newest = stream.state().last
        while True:
            # Locked batch by batch: another ingestion, or maintenance, gets its turn in between.
            with locks.dataset_lock(self.home), gc_pause.gc_paused():
                after, read, gaps = self._resume(stream)
                gaps = [gap for gap in gaps if gap not in said]
                said |= {stream_gap.NOT_COUNTED} & {*gaps}  # of every batch, but once is enough
                position, batch = stream.read(after, size)
                lost = sum(gap.lost or 0 for gap in gaps)
                marks = [
                    (f"{stream.key}:created", stream.created),
                    # Lost entries count as read, so that they are reported once.
                    (f"{stream.name}:read", read + lost + batch.records),
                ]
                if batch.records:
                    report = self._take(batch, stream.key, (stream.name, position), marks)
                    # Once the commit is on the disk: until then the stream is the only copy.
                    stream.trim(position)
                elif gaps:
                    if gaps != [stream_gap.NOT_COUNTED]:  # which changes nothing
                        # Nothing to store, but uncommitted, the gap would be reported each time.
                        self.rejections.append((), marks=marks)
                    report = IngestReport()
                else:
                    return
            sentences = tuple(gap.why for gap in gaps)
            yield report + IngestReport(lost=lost, gaps=sentences)
            if not batch.records or position >= newest:
                return

    def _resume(self, stream: Stream) -> tuple[int, int, list[StreamGap]]:
        """The position to read `stream` from, how many entries were read so far, and its gaps."""
        after = self.rejections.position(stream.name) or 0
        read = self.rejections.position(f"{stream.name}:read")
        before = self.rejections.position(f"{stream.key}:created") or 0
        state, others = stream.state(), stream.other_readers(self.home)
        # Positions and counts of one stream only grow: a smaller one is of a stream created since.
        if after > state.last or (state.added is not None and (read or 0) > state.added):
            stream.restart()
            # What left the new stream before now is unknown, and counted as read.
            return 0, (state.added or 0) - state.length, [stream_gap.RESET]
        if after:  # a process killed before it trimmed leaves what is committed
            stream.trim(after)
            state = stream.state()
        # No count yet: this home has never read the stream, or did so before it counted.
        first = read is None
        if first and not before and self.rejections.rows and stream.key == stream_entries.STREAM:
            # Version 0.1.0 read this stream and did not count.
            read = (state.added or 0) - state.length
        gaps = (
            stream_gap.unknown_before(stream.created, before),
            stream_gap.find(state, read or 0, after, others, first=first),
        )
        return after, read or 0, [gap for gap in gaps if gap is not None]

    def ends(self, task_ids: Sequence[str]) -> npt.NDArray[np.float64]:
        """When each of `task_ids` ended that is in its dataset or was rejected.

        In seconds since the epoch, shape (len(task_ids),): the latest of each, 0 where only
        that it was rejected is known, -inf for one that is new.
        """
        # A task may have been rejected and accepted, in two records: the later end decides.
        latest = self.rejections.ends(task_ids)
        places: dict[str, list[int]] = defaultdict(list)
        for place, task_id in enumerate(task_ids):
            tool_type = self.tool_types.for_function(run_ids.function_of(task_id))
            # Of what its name does not tell, one of these may have claimed the task.
            for one in self.tool_types.claiming if tool_type is None else [tool_type]:
                places[one.name].append(place)
        for name, at in places.items():
            try:
                ends = self.datasets[name].ends([task_ids[place] for place in at])
            except DatasetDamaged:  # nothing of it is known; `take` reports it
                continue
            latest[at] = np.maximum(latest[at], ends)
        return latest

    def _take(
        self,
        batch: Batch,
        source: str,
        transaction: Position | None,
        marks: Sequence[Position] = (),
    ) -> IngestReport:
        found = batch.rows
        with ExitStack() as held:
            # The lock of all writers is held; in object storage each look is a request.
            held.enter_context(self.rejections.held())
            for name in found:
                held.enter_context(self.datasets[name].held())
            return self._take_held(batch, found, source, transaction, marks)

    def _take_held(
        self,
        batch: Batch,
        found: Mapping[str, Rows],
        source: str,
        transaction: Position | None,
        marks: Sequence[Position],
    ) -> IngestReport:
        # Before anything is written, so that a damaged table stops no other.
        damaged = self._find_damaged(found)
        sound = {name: rows for name, rows in found.items() if name not in damaged}
        by_tool_type, duplicates, expired = self._new(sound)
        # Early ones failed as records and count under `rejected`; late ones failed validation or
        # the fence and count under their tool type. Each record is counted once.
        early = [RejectedRow(r, source, self._tool_type_of(r), r.end) for r in batch.rejected]
        late: list[RejectedRow] = []
        reports = {}
        for name, why in damaged.items():
            # They wait in quarantine: the other tool types go on, and the stream is trimmed.
            rows, tool_type = found[name], self.tool_types[name]
            for execution in rows:
                waiting = Rejected(
                    execution.task_id, execution.function, RejectReason.DATASET_DAMAGED, why
                )
                kept = _refusal(waiting, execution, tool_type)
                late.append(replace(kept, source=source))
            reports[name] = ToolTypeReport(quarantined=len(rows), refused=(why,))
        checked = [self._check(self.tool_types[n], rows) for n, rows in by_tool_type.items()]
        for name, (report, rejected_rows) in zip(
            by_tool_type, self._store(checked, transaction), strict=True
        ):
            reports[name] = report
            late.extend(replace(row, source=source) for row in rejected_rows)
        # By identity: equal rows may stand twice in a batch, of which only one is stored.
        news = {
            id(refusal) for refusal in self.rejections.append([*early, *late], transaction, marks)
        }
        # What was rejected for the same reason before is known, not news.
        rejected = Counter(
            r.rejected.reason if id(r) in news else RejectReason.DUPLICATE for r in early
        )
        rejected[RejectReason.DUPLICATE] += duplicates
        rejected[RejectReason.PAST_RETENTION] += expired
        counts = {reason.value: n for reason, n in sorted(rejected.items()) if n}
        functions: dict[str, Counter[str]] = defaultdict(Counter)
        for row in (*(row for row in early if id(row) in news), *late):
            functions[row.rejected.reason.value][row.rejected.function] += 1
        return IngestReport(
            batch.records, counts, reports, sources={source: batch.records}, functions=functions
        )

    def _find_damaged(self, names: Iterable[str]) -> dict[str, str]:
        """Which of the datasets `names` cannot be read, and why; the others are ready to append."""
        limit = self._clock() + believable.MAX_CLOCK_SKEW

        def read(name: str) -> list[Execution] | str:
            try:
                return self.datasets[name].ended_after(limit)
            except DatasetDamaged as error:
                return str(error)

        named = list(names)
        found = dict(zip(named, _at_once(read, named), strict=True))
        for name, future in found.items():
            if future and not isinstance(future, str):
                self._quarantine_future(self.datasets[name], future, limit)
        return {name: why for name, why in found.items() if isinstance(why, str)}

    def _quarantine_future(
        self, dataset: Dataset, found: Sequence[Execution], limit: float
    ) -> None:
        """Move the rows `found`, which end after `limit`, in the future, out of `dataset`.

        Version 0.1.0 accepted them. They are quarantined first, so that a process that is killed in
        between finds them twice, and never not at all.
        """
        rows = []
        for execution in found:
            problem = believable.problem(execution.start, execution.end, self._clock())
            detail = problem[1] if problem else ""
            rejected = Rejected(
                execution.task_id, execution.function, RejectReason.FUTURE_TIMES, detail
            )
            row = _refusal(rejected, execution, dataset.tool_type)
            # Without its end, which would keep out every true record of the same task.
            rows.append(replace(row, source="dataset", end=None))
        self.rejections.append(rows)
        dataset.delete_after(limit)

    def _new(self, found: Mapping[str, Rows]) -> tuple[dict[str, Rows], int, int]:
        """The rows that are new, by tool type, only the last of each task.

        And how many others there are: known ones, and those that ended before the retention
        limit of their dataset.
        """
        new, known, expired = {}, 0, 0
        for name, rows in found.items():
            dataset = self.datasets[name]
            ends = np.maximum(
                dataset.ends(rows.task_ids), self.rejections.rejected_ends(rows.task_ids)
            )
            unknown = rows.latest() & (rows.end > ends)
            lately = unknown & (rows.end >= dataset.deleted_before)
            known += len(rows) - int(unknown.sum())
            expired += int(unknown.sum() - lately.sum())
            if lately.any():
                new[name] = rows.take(lately)
        return new, known, expired

    def validate_and_store(
        self,
        tool_type: ToolType,
        executions: Sequence[Execution],
        transaction: Position | None = None,
    ) -> tuple[ToolTypeReport, list[RejectedRow]]:
        """Validate, fence and store the new `executions` of one tool type.

        Rejected rows are returned, not stored; the caller holds `locks.dataset_lock`.
        """
        [stored] = self._store([self._check(tool_type, executions)], transaction)
        return stored

    def _check(self, tool_type: ToolType, executions: Sequence[Execution]) -> _CheckedBatch:
        """Validate and fence `executions`; nothing is written."""
        dataset = self.datasets[tool_type.name]
        accepted, quarantined, outliers = executions, list[Rejected](), list[Rejected]()
        refused: tuple[str, ...] = ()
        try:
            if self._validate is not None:
                validated = self._validate(tool_type, executions)
                accepted, quarantined = validated.accepted, validated.quarantined
        except BatchRefused as error:
            refused = (str(error),)
            accepted, quarantined = (
                [],
                [
                    Rejected(e.task_id, e.function, RejectReason.BATCH_REFUSED, str(error))
                    for e in executions
                ],
            )
        # After validation, which guarantees finite times, and before the append, so that `recent`
        # holds earlier batches only.
        if self._fence is not None and accepted:
            functions = set(Rows.from_executions(tool_type, accepted).functions)
            recent = dataset.recent_log_seconds(functions)
            batch = {e.task_id for e in accepted}  # none of them counts as its own neighbour
            recent_outliers = self.rejections.recent_outliers(functions, but=batch)
            accepted, outliers = self._fence(accepted, recent, recent_outliers)
        return _CheckedBatch(tool_type, executions, accepted, quarantined, outliers, refused)

    def _store(
        self, checked: Sequence[_CheckedBatch], transaction: Position | None
    ) -> Iterator[tuple[ToolTypeReport, list[RejectedRow]]]:
        """Append what was accepted; of each batch what became of it, and its rejected rows."""

        def append(batch: _CheckedBatch) -> AppendResult:
            return self.datasets[batch.tool_type.name].append(batch.accepted, transaction)

        for batch, appended in zip(checked, _at_once(append, checked), strict=True):
            yield batch.report(appended), batch.rejected_rows()

    def _tool_type_of(self, rejected: Rejected) -> str | None:
        tool_type = self.tool_types.for_function(rejected.function)
        return None if tool_type is None else tool_type.name


@dataclass(frozen=True, slots=True)
class _CheckedBatch:
    """The new executions of one tool type, split by validation and fence."""

    tool_type: ToolType
    executions: Sequence[Execution]
    accepted: Sequence[Execution]
    quarantined: list[Rejected]
    outliers: list[Rejected]
    refused: tuple[str, ...]

    def report(self, appended: AppendResult) -> ToolTypeReport:
        """The same in numbers, once the accepted ones were `appended`."""
        return ToolTypeReport(
            len(self.accepted),
            len(self.quarantined),
            len(self.outliers),
            len(appended.replaced),
            appended.version,
            self.refused,
        )

    def rejected_rows(self) -> list[RejectedRow]:
        """Those that were kept out, as they are stored."""
        kept_out = {rejected.task_id for rejected in (*self.quarantined, *self.outliers)}
        if not kept_out:
            return []
        # `Rows` build an `Execution` at each access: only those that were kept out are built.
        by_task = {
            task_id: self.executions[at]
            for at, task_id in enumerate(
                Rows.from_executions(self.tool_type, self.executions).task_ids
            )
            if task_id in kept_out
        }
        return [
            _refusal(rejected, by_task[rejected.task_id], self.tool_type)
            for rejected in (*self.quarantined, *self.outliers)
        ]


def _at_once(action: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """What `action` gives for each of `items`, which are tables of their own, several at once."""
    if len(items) < 2:
        return [action(item) for item in items]
    # Disks and object stores are waited for, and delta-rs works without the interpreter's lock.
    with ThreadPoolExecutor(min(len(items), _TABLES_AT_ONCE)) as threads:
        return list(threads.map(action, items))


def _refusal(rejected: Rejected, execution: Execution, tool_type: ToolType) -> RejectedRow:
    record = stream_entries.encode(execution, tool_type).decode()
    return RejectedRow(
        replace(rejected, record=record), "", tool_type.name, execution.end, execution.seconds
    )
