"""Workflows in Redis: their status for people, and scores for schedulers that start later.

`malearn:workflow:<run id>` holds a `WorkflowStatus`, for an hour after the last change.
`malearn:workflow_scores` is a capped list, newest first, of what finished workflows taught, and
`malearn:workflow_hints` one of what followed the hints of workflows, `malearn:workflow_shapes` one
of what workflows became whose shape was discovered, `malearn:workflow_outcomes` one of how tasks
ended of functions that have failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, TypeVar

import msgspec

from malearn.kernel import text
from malearn.kernel.names import Names
from malearn.kernel.workflows import unsuccessful_tasks, workflow_hints, workflow_shapes
from malearn.kernel.workflows.workflow_calibration import Outcome, Stage
from malearn.kernel.workflows.workflow_status import WorkflowStatus
from malearn.serving import stream_format
from malearn.serving.connection import RedisConnection
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
        self._at = 0.0
        self._restored = False

    @property
    def pending(self) -> bool:
        """Whether there is anything to send."""
        return self._sends and (self._tracker.unpublished or self._history.unshared)

    def exchange(self, connection: RedisConnection, deadline: float) -> None:
        """Restore what others learnt, once, and send what has changed; at most once a second.

        Raises what `connection.call` raises; unsent statuses are sent when they change again.
        """
        if monotonic() < self._at:
            return
        self._exchange(connection, deadline)

    def flush(self, connection: RedisConnection, deadline: float) -> None:
        """The same before a scheduler ends: what would have waited is sent, too."""
        self._exchange(connection, deadline, ending=True)

    def _exchange(
        self, connection: RedisConnection, deadline: float, *, ending: bool = False
    ) -> None:
        self._at = monotonic() + _INTERVAL
        if not self._restored:
            self._restore(connection, deadline)
        if not self._sends:
            return
        packed, replies = [], 0
        statuses = self._encoded(self._set_status, self._tracker.take_changed(_PAGE))
        packed += statuses
        replies += len(statuses)
        scored = self._encoded(msgspec.json.encode, self._tracker.take_unshared())
        followed = self._encoded(workflow_hints.encode, self._history.take_followed())
        shapes = self._encoded(workflow_shapes.encode, self._tracker.take_shapes(ending=ending))
        outcomes = self._encoded(unsuccessful_tasks.encode, self._history.take_outcomes())
        sent = scored, followed, shapes, outcomes
        for (key, most), entries in zip(self._lists, sent, strict=True):
            if entries:
                packed.append(pack("LPUSH", key, *entries))
                packed.append(pack("LTRIM", key, "0", str(most - 1)))
                packed.append(pack("EXPIRE", key, str(stream_format.KEEP_SECONDS)))
                replies += 3
        if replies:
            _raise_refused(connection.call(b"".join(packed), replies, deadline))

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
