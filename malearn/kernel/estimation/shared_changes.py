"""Changes that functions share: how far one is believed to have moved that has not run since.

A change begins when a function that seldom moves turns up at another level, unless another did so
a moment ago. From then on each function that runs is compared with its level before: it moved with
the others, or it stayed. One that has not run since is taken to have moved as the median of those
of its tool type did, and some of what set it apart from them is taken to be gone: on another
backend functions are nearer to each other, or in another order. Several functions have to agree,
and a stand-in that has not moved is counted among them, so that an outlier moves nobody.

What matters to a scheduler is that all functions are on one scale, those that ran since the change
and those that did not: else its order is one of how long ago they ran.

Memory is bounded: a few changes, of each the functions that ran last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from malearn.kernel.estimation.robust import clip_step

__all__ = ["Level", "Member", "SharedChanges"]

_CHANGES = 6  # the latest, remembered
_MEMBERS = 32  # of one change
_MOVED = 0.5  # log-seconds
_FEWEST = 2  # functions of a tool type that must have run since, or of another one
_NEARER = (
    0.6  # of what sets a function apart from the others, gone after a change of 1 log-second …
)
_FULL = 1.0
_APART = 2.5  # … unless it is by more than this: such a function is of another kind


class Level(Protocol):
    """A level in log-seconds, which goes on moving a little."""

    value: float


class Member(Protocol):
    """A function: its number, the level it is at, and its last execution, counted over all."""

    number: int
    at: int
    tool_type: str

    @property
    def current(self) -> Level | None: ...


class _Change:
    """One change: the execution that it began with, and who ran since, from which level."""

    __slots__ = ("began", "members")

    def __init__(self, began: int) -> None:
        self.began = began
        self.members: dict[int, tuple[Member, float]] = {}  # by number, the earliest first

    def moved(self) -> int:
        """How many are still at another level than before."""
        return sum(
            abs(member.current.value - before) > _MOVED
            for member, before in self.members.values()
            if member.current is not None
        )


class SharedChanges:
    """The latest changes and what functions did since. Not thread-safe."""

    __slots__ = ("_changes", "_latest", "_shared")

    def __init__(self) -> None:
        self._changes: list[_Change] = []
        self._latest = 0  # the execution that the latest change began with
        # Until the next execution: by the first change that counts, and tool type.
        self._shared: dict[tuple[int, str], tuple[float, float | None]] = {}

    def begin(self, count: int) -> None:
        """A change begins with the execution of that number, counted over all functions."""
        if len(self._changes) >= _CHANGES:
            # An outlier begins a change, too; what moved many is what must not be forgotten.
            self._changes.remove(min(self._changes, key=_Change.moved))
        self._changes.append(_Change(count))
        self._latest = count

    def add(self, member: Member, before: float) -> None:
        """`member` has run; its level was `before`."""
        self._shared.clear()
        if not self._changes or not member.tool_type:
            return
        members = self._changes[-1].members
        if member.number not in members:
            members[member.number] = member, before
            if len(members) > _MEMBERS:
                del members[next(iter(members))]

    def shift(self, member: Member) -> float | None:
        """How far `member` is believed to have moved since it ran last, in log-seconds.

        None where nothing has changed since, or too few have run to tell.
        """
        if self._latest <= member.at or not member.tool_type or member.current is None:
            return None
        since = [change for change in self._changes if change.began > member.at]
        key = since[0].began, member.tool_type
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = _shared(since, member.tool_type)
        move, before = shared
        if before is not None:
            apart = member.current.value - before
            if abs(apart) < _APART:
                move -= _NEARER * min(1.0, abs(move) / _FULL) * apart
        return clip_step(move) or None  # 0 where nothing is known: then the tracker may know more


def _shared(changes: Sequence[_Change], tool_type: str) -> tuple[float, float | None]:
    """How far functions of `tool_type` moved over all of `changes`, and where most were before.

    The latter is None where too few of them have run since; then the others tell how far.
    """
    # From where each was before the first of them: what came back has not moved.
    start = {
        number: before
        for change in reversed(changes)
        for number, (_, before) in change.members.items()
    }
    own = _estimate(changes, start, tool_type)
    if own is not None:
        return own
    names = dict.fromkeys(
        member.tool_type for change in changes for member, _ in change.members.values()
    )
    others = [found for name in names if (found := _estimate(changes, start, name)) is not None]
    # The stand-in again: one tool type's change need not be everybody's.
    return (_median([*(move for move, _ in others), 0.0]), None) if others else (0.0, None)


def _estimate(
    changes: Sequence[_Change], start: dict[int, float], tool_type: str
) -> tuple[float, float] | None:
    """The same for one tool type alone; None where too few have run."""
    move, before, count = 0.0, 0.0, 0
    for change in changes:
        moves = [
            (clip_step(member.current.value - start[member.number]), start[member.number])
            for member, _ in change.members.values()
            if member.tool_type == tool_type and member.current is not None
        ]
        if moves:
            # The stand-in has moved as far as the earlier changes say, not at all before them.
            move = _median([*(found for found, _ in moves), move])
            before, count = _median([found for _, found in moves]), len(moves)
    return (move, before) if count >= _FEWEST else None


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2.0
