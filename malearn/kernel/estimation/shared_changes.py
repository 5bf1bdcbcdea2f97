"""Changes that functions share: where one is believed to be that has not run since others moved.

On another backend all functions move, but each is seen to do so only once it has run. A function
that has not run since is taken to have moved as those that ran lately did: by the median of how far
each of them has moved since it ran last (a difference in differences, so that what it has moved
with them already is not added once more). Those of another tool type count less, what ran longer
ago counts less, and one that has not moved is counted among them, so that an outlier moves nobody.
One that has gone to a level at which it was before while this function stayed where it is takes it
nowhere.
Some of what set it apart from the others is taken to be gone after a large move: on another backend
functions are nearer to each other, or in another order.

What matters to a scheduler is that all functions are on one scale, those that ran since a change
and those that did not: else its order is one of how long ago they ran.

Memory is bounded: of each function its latest moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from malearn.kernel.estimation.robust import clip_step, weighted_median

__all__ = ["Level", "Member", "Moves", "believed"]

_REMEMBERED = 8  # moves of one function
# So many of those that ran lately are compared, each counting less than the later one.
_COMPARED, _FADES = 8, 0.7
_OTHER_TYPE, _STAYED = 0.3, 0.5  # weights: of a function of another tool type; of a stand-in
_FEWEST, _MOVED = 2, 0.4  # so many have to move by so much, in log-seconds, to take others along
_ALREADY = 0.5  # log-seconds by which one has moved with the others
# What sets a function apart from the others is gone by this share after a move of `_FULL`
# log-seconds, unless it is more than `_APART`: such a function is of another kind.
_NEARER, _FULL, _APART = 0.6, 1.0, 2.5


class Level(Protocol):
    """A level in log-seconds, which goes on moving a little."""

    value: float


class _Move(NamedTuple):
    """A move away from the level `before`, at the execution `at`, counted over all functions;
    the function's own execution before that was `ran`."""

    at: int
    before: Level
    ran: int


class Moves:
    """The latest moves of one function, oldest first."""

    __slots__ = ("_moves",)

    def __init__(self) -> None:
        self._moves: list[_Move] = []

    def add(self, at: int, before: Level, after: Level, ran: int, *, brief: bool) -> None:
        """A move from `before` to `after`; `brief` says that it stayed for one execution only."""
        if brief and self._moves and self._moves[-1].before is after:
            # It is back: an outlier leaves no trace, or ten of them would be all that is known.
            self._moves.pop()
            return
        self._moves.append(_Move(at, before, ran))
        del self._moves[:-_REMEMBERED]

    def first_after(self, count: int) -> _Move | None:
        """The first move after the execution `count`; None where there is none."""
        return next((move for move in self._moves if move.at > count), None)


class Member(Protocol):
    """A function: its number and tool type, its first and its latest execution, counted over all,
    how old all that is known was then, and the level that it was at, with its number."""

    number: int
    tool_type: str
    began: int
    at: int
    aged: int
    level: int
    moves: Moves

    @property
    def current(self) -> Level | None: ...

    def has_met(self, number: int, level: int) -> bool:
        """Whether the function of that number was at that level of its own while this one ran."""
        ...


class _Row(NamedTuple):
    """How far another function has moved, from where, and how much it counts; `new` says that it
    is at a level at which this one has not met it."""

    move: float
    before: float
    weight: float
    same_type: bool
    has_moved: bool
    new: bool


def believed(
    member: Member,
    lately: Iterable[Member],
    weight_of_age: Callable[[int], float],
    *,
    single: bool,
) -> float | None:
    """Log-seconds at which `member` is believed to be, by what those that ran `lately` did since.

    `lately` come latest first. `single` says that it has known one level only; one that returns
    to levels of its own follows only where most of the others are at levels at which it has not
    met them. None where they tell nothing.
    """
    level = member.current
    if level is None:
        return None
    rows = _rows(member, level, lately, weight_of_age)
    total = sum(row.weight for row in rows) + _STAYED
    # What went with levels that were met before is told by their regimes.
    if not single and sum(row.weight for row in rows if row.new) <= total / 2.0:
        return None
    if single and sum(row.has_moved for row in rows) < _FEWEST:
        return None
    move = weighted_median([(row.move, row.weight) for row in rows] + [(0.0, _STAYED)])
    if sum(row.move * move > 0.0 and abs(row.move) > _MOVED for row in rows) < _FEWEST:
        return level.value
    own_type = [(row.before, row.weight) for row in rows if row.same_type]
    if own_type:
        apart = level.value - weighted_median(own_type)
        if abs(apart) < _APART:
            move -= _NEARER * min(1.0, abs(move) / _FULL) * apart
    return level.value + clip_step(move)


def _rows(
    member: Member,
    level: Level,
    lately: Iterable[Member],
    weight_of_age: Callable[[int], float],
) -> list[_Row]:
    """What others did since `member` ran, latest first."""
    rows: list[_Row] = []
    weight, latest = 1.0, None
    for other in lately:
        if other.at <= member.at or len(rows) >= _COMPARED:
            break
        # One that began since has no level to have moved from.
        if other is member or other.current is None or other.began > member.at:
            continue
        latest = other.aged if latest is None else latest
        same_type = other.tool_type == member.tool_type
        counts = weight * weight_of_age(latest - other.aged) * (1.0 if same_type else _OTHER_TYPE)
        weight *= _FADES
        first = other.moves.first_after(member.at)
        if first is None:
            rows.append(_Row(0.0, other.current.value, counts, same_type, False, False))
            continue
        new = not member.has_met(other.number, other.level)
        move = _moved(member, level, other.current, first) if new else 0.0
        rows.append(_Row(move, first.before.value, counts, same_type, True, new))
    return rows


def _moved(member: Member, level: Level, current: Level, first: _Move) -> float:
    """How far another function has moved since `member` ran, less what that had moved by then."""
    move = clip_step(current.value - first.before.value)
    # From where both were when the other one ran last before it moved.
    mine = member.moves.first_after(first.ran)
    if member.began > first.ran or mine is None:
        return move
    own = clip_step(level.value - mine.before.value)
    # It has moved with them already, by a distance of its own.
    return 0.0 if own * move > 0.0 and abs(own) > _ALREADY else move - own
