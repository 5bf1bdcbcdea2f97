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

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from malearn.kernel.estimation.robust import clip_step

__all__ = ["Level", "Member", "SharedChanges"]

_CHANGES = 6  # remembered
_MEMBERS = 32  # of one change, those that ran first
_MOVED = 0.5  # log-seconds
_FEWEST = 2  # functions of one tool type that tell how far others moved
# What sets a function apart from the others is gone by this share after a change of `_FULL`
# log-seconds, unless it is more than `_APART`: such a function is of another kind.
_NEARER, _FULL, _APART = 0.6, 1.0, 2.5


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
        self.members: dict[int, tuple[Member, float]] = {}  # by number

    def moved(self) -> int:
        """How many are still at another level than before."""
        return sum(
            abs(member.current.value - before) > _MOVED
            for member, before in self.members.values()
            if member.current is not None
        )


@dataclass(frozen=True, slots=True)
class _Shared:
    """How far the functions of a tool type moved, and where they were before, in log-seconds."""

    move: float
    before: float
    count: int


class SharedChanges:
    """The latest changes and what functions did since. Not thread-safe."""

    __slots__ = ("_changes", "_latest", "_shared")

    def __init__(self) -> None:
        self._changes: list[_Change] = []
        self._latest = 0  # the execution that the latest change began with
        # By tool type, over the first change that counts and those after it; until the next
        # execution.
        self._shared: dict[int, dict[str, _Shared]] = {}

    def begin(self, count: int) -> None:
        """A change begins with the execution of that number, counted over all functions."""
        if len(self._changes) >= _CHANGES:
            # An outlier begins a change, too; what moved many is what must not be forgotten.
            self._changes.remove(min(self._changes, key=_Change.moved))
        self._changes.append(_Change(count))
        self._latest = count

    def add(self, member: Member, before: float) -> None:
        """`member` has run; its level was `before`."""
        if not self._changes:
            return
        self._shared.clear()
        members = self._changes[-1].members
        # None makes room for another: it would seem to have stayed when it runs again.
        if member.tool_type and member.number not in members and len(members) < _MEMBERS:
            members[member.number] = member, before

    def shift(self, member: Member) -> float | None:
        """How far `member` is believed to have moved since it ran last, in log-seconds.

        None where nothing has changed since, or too few have run to tell.
        """
        if self._latest <= member.at or not member.tool_type or member.current is None:
            return None
        first = next(i for i, change in enumerate(self._changes) if change.began > member.at)
        shared = self._shared.get(first)
        if shared is None:
            shared = self._shared[first] = _shared(self._changes[first:])
        own = shared.get(member.tool_type)
        if own is None:
            if not shared:
                return None
            # One tool type's change need not be everybody's, hence the stand-in here, too.
            move = _median([*(other.move for other in shared.values()), 0.0])
        else:
            move, apart = own.move, member.current.value - own.before
            if abs(apart) < _APART:
                move -= _NEARER * min(1.0, abs(move) / _FULL) * apart
        return clip_step(move)


def _shared(changes: Sequence[_Change]) -> dict[str, _Shared]:
    """What each tool type did over all of `changes`; without those of which too few ran."""
    # From where each was before the first of them: what came back has not moved.
    start = {
        number: before
        for change in reversed(changes)
        for number, (_, before) in change.members.items()
    }
    found: dict[str, _Shared] = {}
    for change in changes:
        moves: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for number, (member, _) in change.members.items():
            if member.current is not None:
                before = start[number]
                moves[member.tool_type].append((clip_step(member.current.value - before), before))
        for tool_type, rows in moves.items():
            # The stand-in has moved as far as the changes before this one say.
            earlier = found[tool_type].move if tool_type in found else 0.0
            move = _median([*(move for move, _ in rows), earlier])
            before = _median([before for _, before in rows])
            found[tool_type] = _Shared(move, before, len(rows))
    return {tool_type: one for tool_type, one in found.items() if one.count >= _FEWEST}


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2.0
