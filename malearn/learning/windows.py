"""The three windows of a temporal hold-out: train, validate, test, in order of time.

Candidates are fitted on the train window and one is chosen on the validation window; then each,
fitted on both, is tested on the newest rows. No row that had a part in fitting or choosing a
candidate tests it, and nothing in a window was unknown when the next one began.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from malearn.learning.matrix import Matrix

__all__ = ["TEST", "VALIDATION", "Windows", "cut", "unseen"]

#: Share of the rows, newest first, that test; and of the rest, that validate.
TEST, VALIDATION = 0.2, 0.2


@dataclass(frozen=True, slots=True)
class Windows:
    """One tool type's rows, cut by time. `before_test` is `train` and `validation`, together with
    what ended in between.
    """

    train: Matrix
    validation: Matrix
    before_test: Matrix
    test: Matrix


def cut(rows: Matrix, seen_until: float = -math.inf, *, warm_start: bool = False) -> Windows:
    """Cut `rows` into windows; without any row they are all empty.

    `seen_until` is when the last execution ended that the incumbent was fitted on, in seconds
    since the epoch: on rows that it knows it would look better than it is, so none of them is in
    the test window. Where its `warm_start` is a candidate they are not in the validation window
    either, and of the rows that are new to it at most half test, half of the others validate,
    and the rest are left to update it.
    """
    if not len(rows):
        return Windows(rows, rows, rows, rows)
    test_share, validation_share = TEST, VALIDATION
    if warm_start:
        test_share = min(test_share, unseen(rows, seen_until) / 2 / len(rows))
    before_test, test = rows.split(test_share, seen_until)
    # All rows overlap in time: nothing had ended when the test window began.
    if not len(before_test):
        return Windows(before_test, before_test, before_test, test)
    if warm_start:
        new = max(unseen(before_test, seen_until), 1)
        validation_share = min(validation_share, new / 2 / len(before_test))
    train, validation = before_test.split(validation_share, seen_until if warm_start else -math.inf)
    return Windows(train, validation, before_test, test)


def unseen(rows: Matrix, since: float) -> int:
    """How many of `rows` started at or after `since`, in seconds since the epoch."""
    # By start, to be on the safe side: what was running at that moment counts as seen.
    return sum(e.start >= since for e in rows.executions)
