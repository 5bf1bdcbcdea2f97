"""Entries that a stream lost before they were read: how many, and why that is thought.

Redis counts every entry that was ever added. A home counts those it has read; what is neither
read nor in the stream any more was trimmed or deleted by somebody else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from malearn.data.stream import UNCOUNTED, StreamState
from malearn.kernel.reading import stream_entries

__all__ = ["NOT_COUNTED", "RESET", "StreamGap", "find", "unknown_before"]


@dataclass(frozen=True, slots=True)
class StreamGap:
    """`lost` entries, or None where nobody can know how many, and a sentence with the cause."""

    lost: int | None
    why: str


#: Of a stream that was deleted and created again under the same name.
RESET = StreamGap(
    None,
    "The stream holds less than was read from it before: it was deleted, or Redis was restored "
    "from an older state. How many entries are lost cannot be known",
)
#: Of a stream on a Redis before version 7.
NOT_COUNTED = StreamGap(None, UNCOUNTED)


def find(
    state: StreamState, read: int, after: int, others: Sequence[str], *, first: bool = False
) -> StreamGap | None:
    """What is missing from a stream of which `read` entries were read, up to position `after`.

    `others` are other homes that read it. `first` means that this home never read it before.
    None where nothing is missing, `NOT_COUNTED` where Redis does not count.
    """
    if state.added is None:
        return NOT_COUNTED
    lost = state.added - read - state.length
    if lost <= 0:
        return None
    if state.length >= 0.9 * state.limit:
        cause = (
            f"it is full, and keeps about {state.limit:,}: ingest more often, or set "
            f"{stream_entries.LENGTH_SETTING} higher for schedulers"
        )
    elif others:
        cause = f"another home reads the same stream ({', '.join(others)}): give each its own Redis"
    # XDEL of entries that were read already loses nothing.
    elif state.deleted > after:
        cause = "somebody deleted them (XDEL)"
    elif first:
        cause = "this home reads the stream for the first time; they were removed before"
    else:
        cause = f"somebody trimmed it (XTRIM, or a MAXLEN below {state.limit:,})"
    entries, they = ("1 entry", "it was") if lost == 1 else (f"{lost:,} entries", "they were")
    return StreamGap(lost, f"{entries} left the stream before {they} read; {cause}")


def unknown_before(created: int, before: int) -> StreamGap | None:
    """The gap between the stream read last, made at `before`, and the one made at `created`.

    Both in milliseconds since the epoch; None where they are the same, or there was none.
    """
    if not 0 < before < created:
        return None
    when = datetime.fromtimestamp(math.floor(created / 1000.0), UTC)
    return StreamGap(
        None,
        "The stream is another than the one read last: Redis was flushed, or its data deleted, "
        f"before {when:%Y-%m-%d %H:%M:%S} UTC. How many entries it held cannot be known",
    )
