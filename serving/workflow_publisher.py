"""Workflows in Redis: their status for people, and scores for schedulers that start later.

`malearn:workflow:<run id>` holds a `WorkflowStatus`, for an hour after the last change.
`malearn:workflow_scores` is a capped list, newest first, of what finished workflows taught, and
`malearn:workflow_hints` one of what followed the hints of workflows, `malearn:workflow_shapes` one
of what workflows became whose shape was discovered, `malearn:workflow_outcomes` one of how tasks
ended of functions that have failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any, TypeVar

import msgspec

from malearn.kernel import text
from malearn.kernel.names import Names
from malearn.kernel.workflows import unsuccessful_tasks, workflow_hints, workflow_shapes
from malearn.kernel.workflows.workflow_calibration import Outcome, Stage
from malearn.kernel.workflows.workflow_status import WorkflowStatus
from malearn.serving import stream_format
from malearn.serving.connection import DeadlineExceeded, RedisConnection
from malearn.serving.resp import ResponseError, pack
from malearn.serving.shared_history import SharedHistory
from malearn.serving.workflow_tracker import WorkflowTracker

__all__ = ["WorkflowPublisher", "scores"]

_KEEP_STATUS = 3600  # seconds
_MAX_SCORES = 512  # of finished workflows in the shared list: twice what a calibration uses
_MAX_HINTS = 2048  # entries of the other list, one a hint and second
_MAX_SHAPES = 256
_MAX_OUTCOMES = 2048  # of tasks
_PAGE = 128  # statuses that are sent at once
_MAX_STATUSES = 2048  # that wait for Redis to take them
_INTERVAL = 1.0  # seconds between two looks at what has changed

_T = TypeVar("_T")

# The stage was a truth value while two were told apart.
_decode = msgspec.json.Decoder(tuple[bool | int, float]).decode


class WorkflowPublisher:
    """Publishes what `tracker` and `history` know of workflows, in the background thread alone.

    `on_error` is called within an `except` clause with where the error occurred.
    Without `sends` it restores what others learnt, and publishes nothing.
    """

    def __init__(
        self,
        tracker: WorkflowTracker,
        history: SharedHistory,
        names: Names,
        on_error: Callable[[str], None],
        *,
        sends: bool = True,
    ) -> None:
        self._tracker, self._history, self._names, self._sends = tracker, history, names, sends
        self._on_error = on_error
        #: Keys of the shared lists, and how many entries each keeps.
        self._lists = (
            (names.workflow_scores, _MAX_SCORES),
            (names.workflow_hints, _MAX_HINTS),
            (names.workflow_shapes, _MAX_SHAPES),
            (names.workflow_outcomes, _MAX_OUTCOMES),
        )
        #: Packed commands by run id, and entries of each list: what Redis has not taken yet.
        self._statuses: dict[str, bytes] = {}
        self._waiting: tuple[list[bytes], ...] = ([], [], [], [])
        self._dropped = 0
        self._at = 0.0
        self._restored = False

    @property
    def pending(self) -> bool:
        """Whether there is anything to send."""
        waiting = self._statuses or any(self._waiting)
        return self._sends and bool(waiting or self._tracker.unpublished or self._history.unshared)

    @property
    def dropped(self) -> int:
        """How many statuses, scores, hints, shapes and outcomes found no room while Redis took
        none, or were unsent at the end."""
        if not self._sends:
            return 0
        return self._dropped + self._tracker.dropped + self._history.unshared_dropped

    def close(self) -> None:
        """Count everything unsent as dropped."""
        if not self._sends:
            return
        tracker, history = self._tracker, self._history
        # Of a workflow that changed again the earlier status is not wanted any more.
        runs = {*list(self._statuses), *tracker.discard_changed()}
        unsent: tuple[Sequence[object], ...] = (
            *self._waiting,
            tracker.take_unshared(),
            history.take_followed(),
            tracker.take_shapes(ending=True),
            history.take_outcomes(),
        )
        self._dropped += len(runs) + sum(map(len, unsent))

    def abandon(self) -> None:
        """After a fork: what waits is the parent's to send."""
        self._statuses.clear()
        self._waiting = ([], [], [], [])

    def exchange(self, connection: RedisConnection, deadline: float) -> None:
        """Restore what others learnt, once, and send what has changed; at most once a second.

        Raises what `connection.call` raises, and `ResponseError` where Redis refuses; what was not
        sent then is sent the next time, before what came after it.
        """
        if monotonic() < self._at:
            return
        self._exchange(connection, deadline)

    def flush(self, connection: RedisConnection, deadline: float) -> None:
        """The same before a scheduler ends: all that waits, and would have waited, is sent."""
        behind = any(self._waiting)
        self._exchange(connection, deadline, ending=True)
        while self._sends and (behind or self._tracker.changed or self._statuses):
            behind = False
            self._exchange(connection, deadline, ending=True)

    def _exchange(
        self, connection: RedisConnection, deadline: float, *, ending: bool = False
    ) -> None:
        self._at = monotonic() + _INTERVAL
        if not self._restored:
            self._restore(connection, deadline)
        if not self._sends:
            return
        self._take(ending=ending)
        runs = list(self._statuses)[:_PAGE]
        sent = [number for number, entries in enumerate(self._waiting) if entries]
        packed = [self._statuses[run] for run in runs]
        for number in sent:
            key, most = self._lists[number]
            packed.append(pack("LPUSH", key, *self._waiting[number]))
            packed.append(pack("LTRIM", key, "0", str(most - 1)))
            packed.append(pack("EXPIRE", key, str(stream_format.KEEP_SECONDS)))
        if not packed:
            return
        try:
            replies = connection.call(b"".join(packed), len(packed), deadline)
        except DeadlineExceeded as error:
            self._settle(runs, sent, error.replies)
            raise
        self._settle(runs, sent, replies)
        _raise_refused(replies)

    def _settle(self, runs: Sequence[str], sent: Sequence[int], replies: Sequence[object]) -> None:
        """Forget what Redis has taken of the statuses of `runs` and the lists `sent`."""
        for run, reply in zip(runs, replies, strict=False):
            status = self._statuses.pop(run)
            if isinstance(reply, ResponseError):
                self._statuses[run] = status  # behind others, which may be taken
        # The first of three commands on each list; the others only keep it short.
        for number, reply in zip(sent, replies[len(runs) :: 3], strict=False):
            if not isinstance(reply, ResponseError):
                self._waiting[number].clear()

    def _take(self, *, ending: bool) -> None:
        """Take in what has changed. Behind what Redis has not taken nothing is put: what follows
        waits where it arose, and has its bounds there."""
        tracker, history = self._tracker, self._history
        for status in tracker.take_changed(_PAGE):
            for packed in self._encoded(self._set_status, [status]):
                self._statuses.pop(status.run_id, None)
                self._statuses[status.run_id] = packed
        while len(self._statuses) > _MAX_STATUSES:
            del self._statuses[next(iter(self._statuses))]
            self._dropped += 1
        scored, followed, shapes, outcomes = self._waiting
        if not scored:
            scored += self._encoded(msgspec.json.encode, tracker.take_unshared())
        if not followed:
            followed += self._encoded(workflow_hints.encode, history.take_followed())
        if not shapes:
            shapes += self._encoded(workflow_shapes.encode, tracker.take_shapes(ending=ending))
        if not outcomes:
            outcomes += self._encoded(unsuccessful_tasks.encode, history.take_outcomes())

    def _set_status(self, status: WorkflowStatus) -> bytes:
        key = self._names.workflow + text.encodable(status.run_id)
        return pack("SET", key, status.to_json(), "EX", str(_KEEP_STATUS))

    def _encoded(self, encode: Callable[[_T], bytes], found: Iterable[_T]) -> list[bytes]:
        """Each of `found` as bytes; what cannot be encoded must not cost the others."""
        encoded = []
        for one in found:
            try:
                encoded.append(encode(one))
            except Exception:  # noqa: BLE001 - whatever a scheduler named, the others are sent
                self._on_error("publishing a workflow")
        return encoded

    def _restore(self, connection: RedisConnection, deadline: float) -> None:
        found: list[Any] = []
        # One by one: each may be a megabyte, and a slow network brings them in turn.
        for key, most in self._lists:
            found += connection.call(pack("LRANGE", key, "0", str(most - 1)), 1, deadline)
        _raise_refused(found)
        # All have the newest first, and are learnt in order of time.
        scored, followed, shapes, outcomes = (list(reversed(entries or [])) for entries in found)
        self._tracker.restore(scores(scored))
        self._history.restore_hints(filter(None, map(workflow_hints.decode, followed)))
        self._history.restore_outcomes(filter(None, map(unsuccessful_tasks.decode, outcomes)))
        self._tracker.restore_shapes(filter(None, map(workflow_shapes.decode, shapes)))
        # Only now: after a failure the next exchange tries again.
        self._restored = True


def scores(entries: Iterable[object]) -> list[Outcome]:
    """The scores in the list's entries; what is none is passed over."""
    return [score for raw in entries if (score := _score(raw)) is not None]


def _score(raw: object) -> Outcome | None:
    try:
        stage, value = _decode(raw if isinstance(raw, bytes) else b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # Ours lie within ±8: what is beyond, or NaN, somebody else has written.
    return (int(stage), value) if 0 <= stage < len(Stage) and abs(value) < 100.0 else None


def _raise_refused(replies: list[object]) -> None:
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
