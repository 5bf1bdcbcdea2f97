"""Times that no clock of a task can have shown are told apart from those it can."""

from __future__ import annotations

import math

import pytest

from malearn.kernel.reading import believable
from malearn.kernel.reading.believable import LONGEST, MAX_CLOCK_SKEW
from malearn.kernel.records import RejectReason

NOW = 1_754_000_000.0


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (NOW - 50.0, NOW - 8.0, None),
        (NOW - 50.0, NOW + MAX_CLOCK_SKEW, None),  # clocks of a cluster differ by a little
        (0.0, 5.0, None),  # an old log, or the clock of a test
        (NOW, NOW + 86_400.0, "future_times"),  # the clock of tomorrow
        (1000 * (NOW - 50.0), 1000 * (NOW - 8.0), "future_times"),  # milliseconds
        (NOW - 50.0, math.inf, "future_times"),
        (NOW - LONGEST, NOW, "bad_times"),
        (NOW, NOW - 1.0, "bad_times"),
        (NOW, NOW, "bad_times"),
        (math.nan, NOW, "bad_times"),
        (NOW, math.nan, "bad_times"),
        (-math.inf, NOW, "bad_times"),
    ],
)
def test_times_are_believed_or_the_reason_is_given(
    start: float, end: float, reason: str | None
) -> None:
    found = believable.problem(start, end, NOW)
    assert (found[0] if found else None) == reason
    assert believable.are_believable(start, end, NOW) is (found is None)
    assert reason is None or RejectReason(reason)  # what ingestion would record
