"""Quarantined records: listed by reason, and revalidated once their cause is fixed.

`overview` counts them by reason and expectation. `retry` revalidates those that the
declaration, the contract or the outlier fence kept out; malformed records stay as they
are. Accepted rows are committed first, then deleted from quarantine; a process that is
killed in between finds them in their dataset the next time, and deletes them.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from malearn.data import locks
from malearn.data.ingest import Ingest
from malearn.data.rejected_row import RejectedRow
from malearn.data.rejections import Rejections
from malearn.kernel.reading import joining, record_reader, run_ids, stream_entries
from malearn.kernel.records import Execution, Record, Rejected, RejectReason
from malearn.kernel.tool_types import ToolTypes

__all__ = ["RETRYABLE", "Group", "Overview", "QuarantineFilter", "RetryReport", "overview", "retry"]

#: Reasons that may not hold any more once a declaration, a contract or the fence has changed.
RETRYABLE = frozenset(
    {
        RejectReason.NO_FEATURES,
        RejectReason.UNMAPPED_FUNCTION,
        RejectReason.INVALID_FEATURE,
        RejectReason.OUTLIER,
        RejectReason.BATCH_REFUSED,
        # These rows were never validated: they only waited for the dataset to be repaired.
        RejectReason.DATASET_DAMAGED,
    }
)

#: Quarantined records that are revalidated at a time, about.
_SIZE = 50_000


@dataclass(frozen=True, slots=True)
class QuarantineFilter:
    """Which of the quarantine: of a tool type (or that a declaration now gives to it), and
    for a reason; without either, all of it.
    """

    tool_types: ToolTypes
    tool_type: str | None = None
    reason: RejectReason | None = None

    def holds(self, refusal: RejectedRow) -> bool:
        if self.reason not in (None, refusal.rejected.reason):
            return False
        if self.tool_type in (None, refusal.tool_type):
            return True
        claimed = self.tool_types.for_function(refusal.rejected.function)
        return claimed is not None and claimed.name == self.tool_type


@dataclass(frozen=True, slots=True)
class Group:
    """How many were kept out for a reason; by expectation, or by function where there is none."""

    reason: RejectReason
    count: int
    by: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Overview:
    """The quarantine at a glance, most frequent first, and its newest records."""

    count: int
    groups: tuple[Group, ...]
    newest: tuple[RejectedRow, ...]


@dataclass(frozen=True, slots=True)
class RetryReport:
    """What came of a retry: the counts add up to `retried`.

    `accepted` by tool type went into their dataset. `known` were in it already, as are
    those of a retry that was stopped in the middle. `past_retention` ended before the
    limits of retention. `still` by reason stay in quarantine; `unreadable` too, as not
    enough was kept of them. `not_retryable`, beyond `retried`, are malformed.
    """

    retried: int = 0
    accepted: Mapping[str, int] = field(default_factory=dict)
    known: int = 0
    past_retention: int = 0
    still: Mapping[str, int] = field(default_factory=dict)
    unreadable: int = 0
    not_retryable: int = 0

    def __add__(self, later: RetryReport) -> RetryReport:
        return RetryReport(
            self.retried + later.retried,
            dict(Counter(self.accepted) + Counter(later.accepted)),
            self.known + later.known,
            self.past_retention + later.past_retention,
            dict(Counter(self.still) + Counter(later.still)),
            self.unreadable + later.unreadable,
            self.not_retryable + later.not_retryable,
        )


def overview(rejections: Rejections, which: QuarantineFilter, limit: int = 10) -> Overview:
    """Counts of what was kept out, and the newest `limit` records."""
    reasons: Counter[RejectReason] = Counter()
    causes: dict[RejectReason, Counter[str]] = defaultdict(Counter)
    newest: list[tuple[float, int, RejectedRow]] = []
    for number, refusal in enumerate(filter(which.holds, rejections.each())):
        rejected = refusal.rejected
        reasons[rejected.reason] += 1
        causes[rejected.reason].update(_causes(rejected))
        entry = (refusal.time or 0.0, number, refusal)
        # A heap of `limit`: the quarantine may hold millions, and is read once.
        if len(newest) < limit:
            heapq.heappush(newest, entry)
        elif limit:
            heapq.heappushpop(newest, entry)
    return Overview(
        reasons.total(),
        tuple(Group(r, n, dict(causes[r].most_common())) for r, n in reasons.most_common()),
        tuple(refusal for _, _, refusal in sorted(newest, reverse=True)),
    )


def retry(ingest: Ingest, which: QuarantineFilter, size: int = _SIZE) -> Iterator[RetryReport]:
    """Revalidate the records that `which` selects, about `size` at a time; one report for each.

    Where `ingest` validates records one by one, a share of bad ones rejects no batch. Features
    that predecessors reported count as far as those are in quarantine too.
    Raises `DatasetError`; what was reported by then is done.
    """
    # Ids first, rows later: each batch changes the table, and all rows may not fit in memory.
    settled, tasks = _candidates(ingest.rejections, which)
    if settled:
        yield RetryReport(not_retryable=settled)
    for runs in _whole_runs(sorted(tasks, key=_by_run), size):
        # Read again under the lock: since the ids were listed, ingestion may have changed the rows.
        with locks.dataset_lock(ingest.home):
            yield _retry(ingest, which, runs)


def _candidates(rejections: Rejections, which: QuarantineFilter) -> tuple[int, set[str]]:
    """How many will not be revalidated, and the ids of the tasks that will."""
    settled, tasks = 0, set[str]()
    for refusal in filter(which.holds, rejections.each()):
        if _may_change(refusal):
            tasks.add(refusal.rejected.task_id)
        else:
            settled += 1
    return settled, tasks


def _whole_runs(tasks: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Sorted `tasks`, about `size` at a time, each run in one piece."""
    at = 0
    while at < len(tasks):
        end = min(at + size, len(tasks))
        while end < len(tasks) and run_ids.run_of(tasks[end]) == run_ids.run_of(tasks[end - 1]):
            end += 1
        yield tasks[at:end]
        at = end


def _by_run(task_id: str) -> tuple[str, str]:
    return run_ids.run_of(task_id), task_id


def _may_change(refusal: RejectedRow) -> bool:
    return refusal.rejected.reason in RETRYABLE and bool(refusal.rejected.task_id)


def _retry(ingest: Ingest, which: QuarantineFilter, tasks: Sequence[str]) -> RetryReport:
    kept = _kept(ingest.rejections, tasks)
    wanted = set(tasks)
    chosen = _newest(
        r for r in kept if r.rejected.task_id in wanted and _may_change(r) and which.holds(r)
    )
    outcomes = _read_again(ingest.tool_types, kept, chosen)
    latest = _latest(chosen, outcomes)
    gone: list[RejectedRow] = []
    still: list[tuple[RejectedRow, RejectedRow]] = []
    executions: dict[str, dict[str, tuple[RejectedRow, Execution]]] = defaultdict(dict)
    unreadable = 0
    for refusal, outcome in zip(chosen, outcomes, strict=True):
        if outcome is None:
            unreadable += 1
        elif isinstance(outcome, Rejected):
            still.append((refusal, _refused(refusal, outcome.reason, outcome.detail)))
        elif latest[outcome.task_id] is not refusal:
            again = _refused(refusal, RejectReason.DUPLICATE, "the same task was written again")
            still.append((refusal, again))
        else:
            executions[outcome.tool_type][outcome.task_id] = refusal, outcome
    accepted: dict[str, int] = {}
    known = expired = 0
    for name, group in executions.items():
        dataset = ingest.datasets[name]
        ends, until = dataset.ends(list(group)), dataset.deleted_before
        new = []
        for (refusal, execution), end in zip(group.values(), ends, strict=True):
            # Already there: a retry was killed, or an ingestion brought the record again.
            if execution.end <= end:
                known += 1
            elif execution.end < until:
                expired += 1
            else:
                new.append(execution)
                continue
            gone.append(refusal)
        verdicts = ingest.validate_and_store(ingest.tool_types[name], new)[1] if new else []
        refused = {verdict.rejected.task_id: verdict for verdict in verdicts}
        for execution in new:
            refusal, verdict = group[execution.task_id][0], refused.get(execution.task_id)
            if verdict is None:
                gone.append(refusal)
            else:
                why = verdict.rejected
                again = _refused(refusal, why.reason, why.detail)
                again = replace(again, tool_type=name, end=verdict.end, seconds=verdict.seconds)
                still.append((refusal, again))
        if len(new) > len(refused):
            accepted[name] = len(new) - len(refused)
    # Last: until here a killed process leaves a row in both tables, and never in neither.
    _keep(ingest.rejections, kept, gone, still)
    reasons = Counter(again.rejected.reason.value for _, again in still)
    return RetryReport(len(chosen), accepted, known, expired, reasons, unreadable)


def _kept(rejections: Rejections, tasks: Sequence[str]) -> list[RejectedRow]:
    """All that is kept of the runs of the sorted `tasks`: predecessors' records count too."""
    last = run_ids.run_of(tasks[-1])
    span = run_ids.run_of(tasks[0]), f"{last}\U0010ffff"  # beyond every id of that run
    return [refusal for refusal in rejections.each(span) if refusal.rejected.task_id]


def _newest(refusals: Iterable[RejectedRow]) -> list[RejectedRow]:
    """Of those with one key, task and reason, the one that ended last stands for all."""
    newest: dict[tuple[str, ...], RejectedRow] = {}
    for refusal in refusals:
        known = newest.get(refusal.key)
        if known is None or (refusal.end or 0.0) > (known.end or 0.0):
            newest[refusal.key] = refusal
    return list(newest.values())


def _refused(refusal: RejectedRow, reason: RejectReason, detail: str) -> RejectedRow:
    """`refusal` with the reason that holds now."""
    return replace(refusal, rejected=replace(refusal.rejected, reason=reason, detail=detail))


def _keep(
    rejections: Rejections,
    kept: Sequence[RejectedRow],
    gone: Sequence[RejectedRow],
    still: Sequence[tuple[RejectedRow, RejectedRow]],
) -> None:
    """Remove what is `gone`; store what is `still` rejected, but for another reason."""
    moved = [(before, after) for before, after in still if before != after]
    old = [*gone, *(before for before, _ in moved)]
    leaving = {refusal.key for refusal in old}
    # A key, task and reason, stands once in the table: a second row of it is dropped.
    there = {refusal.key for refusal in kept} - leaving
    new = {after.key: after for _, after in moved if after.key not in there}
    rejections.replace(old, list(new.values()))


def _read_again(
    tool_types: ToolTypes, kept: Sequence[RejectedRow], chosen: Sequence[RejectedRow]
) -> list[Execution | Rejected | None]:
    """What each of `chosen` is by now; None where too little of it was kept.

    All that is `kept` of their runs is joined: it may hold features of theirs.
    """
    values = {id(refusal): _value(refusal.rejected.record) for refusal in kept}
    spoken: list[Record] = []
    for refusal in kept:
        value = values[id(refusal)]
        if value is not None and not _is_entry(value):
            record = record_reader.read(refusal.rejected.task_id, value, refusal.rejected.function)
            if isinstance(record, Record):
                spoken.append(record)
    joined, refused = joining.join(spoken, tool_types)
    by_task: dict[str, Execution | Rejected] = {
        one.task_id: one for one in refused if one.reason is not RejectReason.DUPLICATE
    }
    by_task |= {execution.task_id: execution for execution in joined}
    return [_again(tool_types, r, values[id(r)], by_task) for r in chosen]


def _again(
    tool_types: ToolTypes,
    refusal: RejectedRow,
    value: dict[str, Any] | None,
    joined: Mapping[str, Execution | Rejected],
) -> Execution | Rejected | None:
    rejected = refusal.rejected
    if value is None:
        return None
    if _is_entry(value):
        return stream_entries.read(rejected.record, tool_types)
    # What predecessors had reported was kept with the record: theirs may be gone by now.
    view = value.get("serve")
    record = record_reader.read(rejected.task_id, value, rejected.function)
    if isinstance(record, Record) and isinstance(view, dict):
        named = tool_types.get(refusal.tool_type) if refusal.tool_type else None
        return joining.to_execution(
            record, named or tool_types.for_record(record.function, record.features), view
        )
    # No view was kept where no tool type claimed the function: its run is joined instead.
    return joined.get(rejected.task_id, record if isinstance(record, Rejected) else None)


def _value(kept: str) -> dict[str, Any] | None:
    """A kept record as an object; None where it was cut short."""
    try:
        value = json.loads(kept)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_entry(value: Mapping[str, Any]) -> bool:
    """Whether it was kept in the stream's form, which stands for itself."""
    return "start" in value


def _latest(
    chosen: Sequence[RejectedRow], outcomes: Sequence[Execution | Rejected | None]
) -> dict[str, RejectedRow]:
    """Of each task the rejection whose execution ended last."""
    latest: dict[str, tuple[float, RejectedRow]] = {}
    for refusal, outcome in zip(chosen, outcomes, strict=True):
        if isinstance(outcome, Execution):
            before = latest.get(outcome.task_id)
            if before is None or outcome.end > before[0]:
                latest[outcome.task_id] = outcome.end, refusal
    return {task_id: refusal for task_id, (_, refusal) in latest.items()}


def _causes(rejected: Rejected) -> list[str]:
    """The expectations that its detail names, as "text_length is not 0 to 100", else its function.

    The detail of a row that breaks its contract reads "text_length is 140, not 0 to 100; …".
    """
    if rejected.reason is not RejectReason.INVALID_FEATURE:
        return [rejected.function or "no function"]
    said = (part.rpartition(", not ") for part in rejected.detail.split("; "))
    found = [f"{what.partition(' is ')[0]} is not {phrase}" for what, cut, phrase in said if cut]
    return found or [rejected.detail]
