"""Joining the records of a run: each typed task gets both of its feature views.

What is known of a task *before* it runs stands in the records of its predecessors, so only
records that hold whole runs can be joined.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from malearn.kernel import causality, features, text
from malearn.kernel.records import Execution, Record, Rejected, RejectReason
from malearn.kernel.tool_types import ToolType, ToolTypes

__all__ = ["join", "serve_view", "successors_of", "to_execution", "unclaimed"]


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
            # A retry under the same id ends last, whichever of the two was read first.
            record, older = (record, known) if record.end > known.end else (known, record)
            rejected.append(
                _reject(older, RejectReason.DUPLICATE, "the same task was written again")
            )
        latest[record.task_id] = record
    # Who supplies what to whom, so that a run of many tasks is not searched for each of them.
    suppliers: dict[tuple[str, str], list[Record]] = defaultdict(list)
    first_ends: dict[str, float] = {}
    for record in latest.values():
        first_ends[record.run] = min(record.end, first_ends.get(record.run, math.inf))
        for function in record.successors:
            suppliers[record.run, function].append(record)
    executions: list[Execution] = []
    for record in latest.values():
        outcome = _execution(record, tool_types, suppliers, first_ends[record.run])
        if isinstance(outcome, Rejected):
            rejected.append(outcome)
        else:
            executions.append(outcome)
    return executions, rejected


def serve_view(
    function: str, tool_type: ToolType, predecessors: Iterable[Record]
) -> dict[str, object]:
    """Features and context of the next task, `function`, as `predecessors` supply them.

    Each may supply a part; of two that supply the same feature the one that
    ended last wins. A map that names no function counts for whichever successor
    has such features. Keys outside the declaration are left out: newer logs
    carry some that are known only after the run.
    """
    names = (*tool_type.feature_names, *tool_type.context)
    view: dict[str, object] = {}
    for record in sorted(predecessors, key=lambda record: record.end):
        given = record.successors.get(function)
        if given is None:
            given = record.successors.get("", {})
        view.update((name, given[name]) for name in names if name in given)
    return view


def to_execution(
    record: Record,
    tool_type: ToolType | None,
    view: Mapping[str, object],
    predecessors: Sequence[str] | None = None,
    resource: str = "",
) -> Execution | Rejected:
    """The execution of `record`, or why it is rejected; `view` is what predecessors supplied.

    `predecessors` are the ids of all tasks that it waited for, None where no graph tells;
    `resource` is what it ran on, "" where only its tool type tells.
    """

    def reject(reason: RejectReason, detail: str) -> Rejected:
        return _reject(record, reason, detail, view, predecessors, resource)

    if tool_type is None:
        return reject(*unclaimed(record.features))
    own, names = record.features, tool_type.feature_names
    if tool_type.generic:
        # Nobody declared them: only what was announced to this very task is known in time.
        own = {name: value for name, value in own.items() if name in view}
    elif all(own.get(name) is None and view.get(name) is None for name in names):
        return reject(RejectReason.NO_FEATURES, "it has none of its tool type's features")
    serve, serve_problem = _view(tool_type, view)
    ran, ran_problem = _view(tool_type, own)
    if problem := ran_problem or serve_problem:
        return reject(RejectReason.INVALID_FEATURE, problem)
    return Execution(
        record.task_id,
        record.function,
        tool_type.name,
        record.start,
        record.end,
        serve,
        ran,
        record.query,
        serve_context=features.context_of(tool_type, view),
        ran_context=features.context_of(tool_type, own),
        predecessors=None if predecessors is None else tuple(predecessors),
        successors=successors_of(record.successors),
        resource=resource,
    )


def successors_of(named: Mapping[str, object]) -> tuple[str, ...]:
    """The functions that a report names; what stands there without a name is of none."""
    return tuple(name for name in named if name)


def unclaimed(own: Mapping[str, object] | None) -> tuple[RejectReason, str]:
    """Why a task with `own` features is rejected that no tool type claims."""
    if not own:
        return RejectReason.NO_FEATURES, "it says nothing of its features"
    return RejectReason.UNMAPPED_FUNCTION, "no tool type claims the function"


def _execution(
    record: Record,
    tool_types: ToolTypes,
    suppliers: Mapping[tuple[str, str], Sequence[Record]],
    first_end: float,
) -> Execution | Rejected:
    tool_type = tool_types.for_record(record.function, record.features)
    if tool_type is None:
        return to_execution(record, None, {})
    named = suppliers.get((record.run, record.function), ())
    unnamed = suppliers.get((record.run, ""), ()) if record.function else ()
    if not named and not unnamed:
        # A start node: whoever submits it has its inputs at hand.
        return to_execution(
            record,
            tool_type,
            # Something of its run had ended before it started, so it was no start node: what it
            # reports of itself may not have been known then.
            {} if causality.was_known(first_end, record.start) else record.features,
        )
    before = [
        other
        for other in (*named, *(u for u in unnamed if record.function not in u.successors))
        # A record may name its own function among its successors, as a loop does.
        if other.task_id != record.task_id and causality.was_known(other.end, record.start)
    ]
    return to_execution(record, tool_type, serve_view(record.function, tool_type, before))


def _view(tool_type: ToolType, named: Mapping[str, object]) -> tuple[tuple[float, ...], str | None]:
    """As `features.numbers`, except that all are NaN where none of them is even named."""
    names = tool_type.feature_names
    if not named or all(name not in named for name in names):
        return (math.nan,) * len(names), None
    return features.numbers(tool_type, named)


def _reject(
    record: Record,
    reason: RejectReason,
    detail: str,
    view: Mapping[str, object] | None = None,
    predecessors: Sequence[str] | None = None,
    resource: str = "",
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
    if predecessors is not None:
        kept["predecessors"] = list(predecessors)
    if resource:
        kept["resource"] = resource
    return Rejected(record.task_id, record.function, reason, detail, text.as_json(kept), record.end)
