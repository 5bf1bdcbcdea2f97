"""What Redis refuses to do: counted, and each reason logged once until it is gone.

A refusal is no outage: the server answers. So nothing else would tell an operator that a
read-only replica, a missing permission or a full memory keeps every finished task waiting.
"""

from __future__ import annotations

import logging
from typing import Literal

from malearn.kernel.redis_address import unsuitable
from malearn.serving.resp import ResponseError

__all__ = ["RESOLVE_AGAIN", "Refusals"]

_log = logging.getLogger("malearn.serving")

#: Errors after which the address is resolved and connected to anew: the server there is no
#: longer the one it was (a failover), or no longer knows who we are.
RESOLVE_AGAIN = frozenset({"READONLY", "NOAUTH", "MASTERDOWN"})

#: What to do about an error, by its code.
_ADVICE = {
    "READONLY": "it is a replica; the address is resolved again before the next attempt",
    "NOAUTH": "put the credentials into the address, as in redis://user:password@host",
    "WRONGPASS": "check user and password in the address",
    "NOPERM": "docs/serving.md lists the commands and keys that its user needs",
    "WRONGTYPE": "another program uses this key: delete or rename it",
    "OOM": "its memory is full: raise maxmemory, or free some",
    "MISCONF": "it cannot save to its disk: see its log",
    "LOADING": "it is starting, and is asked again",
    "CLUSTERDOWN": "some slots have no node: see CLUSTER INFO, and the log of the nodes",
    "TRYAGAIN": "slots are being moved, and it is asked again",
    "UNREACHABLE": "its keys wait until it, or the replica that takes over, answers",
}

#: What was refused: to serve a new connection at all, to read a key, or to write one.
Action = Literal["connect", "read", "write"]


class Refusals:
    """Counts refused commands; `reason` is the latest refusal, None once all is accepted again.

    `server` is the address as it may be logged, without a password.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self.reads = self.writes = 0
        #: What was logged and is still so, by action and code.
        self._current: dict[tuple[Action, str], str] = {}

    @property
    def reason(self) -> str | None:
        return next(reversed(self._current.values()), None)

    def refused(self, action: Action, key: str, error: ResponseError, count: int = 1) -> None:
        """`count` commands that `action` on `key` were refused with `error`."""
        if action == "write":
            # Without a lock: a race may lose a count, which only people read.
            self.writes += count
        else:
            self.reads += count
        if (action, error.code) in self._current:
            return
        what = "to serve us" if action == "connect" else f"to {action} {key}"
        sentence = f"Redis at {self.server} refuses {what} ({error}): {_advice(error)}"
        # Replaced, not changed: `reason` may be read meanwhile.
        self._current = {**self._current, (action, error.code): sentence}
        _log.warning("%s", sentence)

    def accepted(self, action: Action) -> None:
        """Commands that `action` went through: the next refusal is news again."""
        if self._current:  # nearly never
            self._current = {k: s for k, s in self._current.items() if k[0] != action}


def _advice(error: ResponseError) -> str:
    if problem := unsuitable(str(error)):
        return f"it {problem}"
    return _ADVICE.get(error.code, "see its log")
