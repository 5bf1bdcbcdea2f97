"""The window of a dataset that is read: its newest executions, after a checkpoint of the older.

What trains, watches or publishes costs what the window does, not what was ever logged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from malearn.data.dataset import Dataset
from malearn.kernel.reading import believable
from malearn.kernel.records import Execution

__all__ = ["OF_EACH_FUNCTION", "TAIL", "ExecutionWindow", "of_functions", "read"]

#: Executions that monitoring, status and the live view read of a tool type.
TAIL = 10_000
#: Of each function so many of the executions before a window are its checkpoint; it is what a
#: scheduler starts from, too.
OF_EACH_FUNCTION = 64
#: They are looked for among so many times the rows of the window, and are at most this share of it.
_LOOK_BACK, _SHARE = 10, 0.2


@dataclass(frozen=True, slots=True)
class ExecutionWindow:
    """The newest `executions` of `total`, and the newest of each function among those `before`.

    Both are in order of (start, task_id). The latter are no rows: a history takes them in, so
    that it knows at the beginning of the window what a replay from the first execution would.
    """

    executions: Sequence[Execution]
    before: Sequence[Execution] = ()
    total: int = 0


def read(
    dataset: Dataset, rows: int, version: int | None = None, before: float = math.inf
) -> ExecutionWindow:
    """The newest `rows` executions of `version` of `dataset`, or of the newest version.

    Of those that started before `before`, seconds since the epoch. The same version always gives
    the same window. Raises `DatasetError`.
    """
    newest = dataset.newest(rows, version, before)
    # The window holds all there is: nothing came before it.
    if len(newest) < rows:
        return ExecutionWindow(_believed(newest), (), dataset.rows)
    first = newest[0].start
    earlier = dataset.newest_of_functions(OF_EACH_FUNCTION, _LOOK_BACK * rows, version, first)
    # With many functions the checkpoint could be ten times the window.
    most = max(OF_EACH_FUNCTION, round(_SHARE * rows))
    return ExecutionWindow(_believed(newest), _believed(_evenly(earlier, most)), dataset.rows)


def of_functions(dataset: Dataset) -> Sequence[Execution]:
    """The newest executions of every function that ran lately, for schedulers that start."""
    among = _LOOK_BACK * dataset.tool_type.train_rows
    return _believed(dataset.newest_of_functions(OF_EACH_FUNCTION, among))


def _evenly(executions: Sequence[Execution], most: int) -> Sequence[Execution]:
    """At most about `most` of them: of each function as many, the newest."""
    if len(executions) <= most:
        return executions
    functions = {e.function for e in executions}
    left = dict.fromkeys(functions, max(1, most // len(functions)))
    kept = []
    for execution in reversed(executions):
        if left[execution.function]:
            left[execution.function] -= 1
            kept.append(execution)
    # One a function can still be too many: then only the functions that ran last are kept.
    return kept[most - 1 :: -1] if len(kept) > most else kept[::-1]


def _believed(executions: Sequence[Execution]) -> Sequence[Execution]:
    """Without those of which a writer's clock is wrong: 0.1.0 accepted them."""
    now = time.time()
    return [e for e in executions if believable.are_believable(e.start, e.end, now)]
