"""Which times of an execution are plausible: one rule for whoever learns from them.

Ingestion and the predictor ask here before anything is learnt, so that a scheduler never
goes by a time that the datasets refuse. `now` is always given by the caller, in seconds since
the epoch: whoever reads a log hands in the clock of this machine (`time.time`, the default of
the constructors that take a `clock`), and a replay or a test hands in its own.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = [
    "BAD_TIMES",
    "FUTURE_TIMES",
    "LONGEST",
    "MAX_CLOCK_SKEW",
    "SHORTEST",
    "Clock",
    "are_believable",
    "problem",
]

#: Gives the time in seconds since the epoch.
Clock = Callable[[], float]

#: What a task may take, in seconds: a tick of the clock at least, less than thirty days.
SHORTEST, LONGEST = 1e-6, 30 * 86_400.0

#: How far ahead of ours, in seconds, another machine's clock may run. Clocks that NTP keeps
#: differ by milliseconds; minutes mean a wrong time zone, date or unit (milliseconds).
MAX_CLOCK_SKEW = 300.0

#: Why times are not plausible; `records.RejectReason` has the same values.
BAD_TIMES, FUTURE_TIMES = "bad_times", "future_times"


def are_believable(start: float, end: float, now: float, shortest: float = SHORTEST) -> bool:
    """Whether a task may have run from `start` to `end`, as seen at `now`; NaN never is.

    `shortest` is what it took at least: what was skipped may have taken no time at all.
    """
    return shortest <= end - start < LONGEST and end <= now + MAX_CLOCK_SKEW


def problem(
    start: float, end: float, now: float, shortest: float = SHORTEST
) -> tuple[str, str] | None:
    """Why `start` and `end` are not plausible, as a reason code and a phrase; None if they are.

    >>> problem(1_754_000_000.0, 1_754_000_042.0, now=1_754_000_050.0)
    >>> problem(1_754_000_000_000.0, 1_754_000_042_000.0, now=1_754_000_050.0)
    ('future_times', 'its end lies 1.75225e+12 s ahead of this clock: are its times milliseconds?')
    >>> problem(1_754_000_042.0, 1_754_000_000.0, now=1_754_000_050.0)
    ('bad_times', 'it would have taken -42 s')
    """
    if are_believable(start, end, now, shortest):
        return None
    ahead = end - now
    if ahead > MAX_CLOCK_SKEW:
        # A thousandfold epoch is the commonest mistake, and its cure is not to set a clock.
        hint = ": are its times milliseconds?" if end > 100.0 * now > 0.0 else ""
        return FUTURE_TIMES, f"its end lies {ahead:g} s ahead of this clock{hint}"
    return BAD_TIMES, f"it would have taken {end - start:g} s"
