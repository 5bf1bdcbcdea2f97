"""What waits for what, inferred from logs: kinds of workflows without definitions.

Runs with the same functions are of one kind. One function waits for another where a graph says so;
where none does, where a successor map names it, or where in every run of the kind it started only
after the other had ended; of those relations the ones that follow from others are left out. With
few runs chance adds some that are none, never too few: the more runs, the nearer to the truth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from malearn.kernel import causality
from malearn.kernel.tool_types import ToolTypes

__all__ = ["REPEATED", "UNCLAIMED", "Definition", "Seen", "by_function", "infer"]

#: What a function runs on that belongs to no tool type.
UNCLAIMED = "cpu"

#: Why a run is left out of which functions alone do not tell what waits for what.
REPEATED = "it ran a function more than once, and no graph tells in which order"


class _OfFunction(Protocol):
    @property
    def function(self) -> str: ...


T = TypeVar("T", bound=_OfFunction)


@dataclass(frozen=True, slots=True)
class Definition:
    """One kind of workflow: the resource of each function, and the functions it waits for."""

    name: str
    resources: Mapping[str, str]
    predecessors: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Seen:
    """One task of a run: when it ran, in seconds since the epoch, and the functions it named.

    `before` are the functions that it waited for, None where no graph tells.
    """

    start: float
    end: float
    named: tuple[str, ...] = ()
    before: tuple[str, ...] | None = None


def by_function(tasks: Iterable[T]) -> dict[str, T] | None:
    """The tasks of one run by their functions; None where one of these ran more than once."""
    listed = list(tasks)
    found = {task.function: task for task in listed}
    return found if len(found) == len(listed) else None


def infer(runs: Sequence[Mapping[str, Seen]], tool_types: ToolTypes) -> list[Definition]:
    """The kinds of workflows of `runs`, each of which maps functions to their tasks."""
    kinds: dict[frozenset[str], list[Mapping[str, Seen]]] = defaultdict(list)
    for run in runs:
        # A logged run carries no name of its workflow: the set of its functions stands for it.
        kinds[frozenset(run)].append(run)
    return [
        _definition(f"kind {number}", sorted(functions), alike, tool_types)
        for number, (functions, alike) in enumerate(kinds.items(), 1)
    ]


def _definition(
    name: str, functions: Sequence[str], runs: Sequence[Mapping[str, Seen]], tool_types: ToolTypes
) -> Definition:
    before = {
        after: {one for one in functions if one != after and _always(runs, one, after)}
        for after in functions
    }
    named = {
        after: {one for one in before[after] if any(after in run[one].named for run in runs)}
        for after in functions
    }
    predecessors = {
        after: tuple(
            one
            for one in functions
            if one in named[after]
            # Transitive reduction: a relation that follows from two others is no edge. One that a
            # successor map names is, whatever follows.
            or (one in found and not any(one in before[other] for other in found))
        )
        for after, found in before.items()
    }
    # What a graph told is known, whatever the times of the runs look like.
    told = {after: _told(runs, after) for after in functions}
    predecessors |= {after: given for after, given in told.items() if given is not None}
    return Definition(name, {f: _resource(f, tool_types) for f in functions}, predecessors)


def _always(runs: Sequence[Mapping[str, Seen]], before: str, after: str) -> bool:
    return all(causality.was_known(run[before].end, run[after].start) for run in runs)


def _told(runs: Sequence[Mapping[str, Seen]], after: str) -> tuple[str, ...] | None:
    """What a graph said `after` waits for, in the last run in which one did."""
    told = (run[after].before for run in reversed(runs) if run[after].before is not None)
    return next(told, None)


def _resource(function: str, tool_types: ToolTypes) -> str:
    tool_type = tool_types.for_function(function)
    return UNCLAIMED if tool_type is None else str(tool_type.resource)
