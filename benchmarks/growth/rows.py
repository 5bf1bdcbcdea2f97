"""Rows of a table: what training, monitoring and the status cost, and what a window leaves out."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.figure import Figure, at_most
from benchmarks.growth import curves
from benchmarks.growth.made_up import TOOL, TYPES, fill
from benchmarks.growth.process import answer, ask, peak, say
from malearn.data import execution_window, run_logs
from malearn.data.dataset import Dataset
from malearn.kernel import tool_types
from malearn.kernel.reading import joining
from malearn.kernel.records import Execution
from malearn.learning import evaluation, matrix, regressor
from malearn.lifecycle import live

__all__ = ["rows", "ten_million", "window"]

_ROOT = Path(__file__).parents[2]
_WINDOW = 1_000
_REFIT = 60  # rows predicted between two fits


def rows() -> Iterator[Figure]:
    """Train, monitor and status at 1,000,000 rows (`$MALEARN_BENCH_ROWS`) and at a tenth."""
    large = int(os.environ.get("MALEARN_BENCH_ROWS") or 1_000_000)
    sizes = [large // 10, large]
    seconds: dict[str, dict[int, float]] = defaultdict(dict)
    memory: dict[str, dict[int, float]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(Path(folder) / TOOL.name, TOOL)
        for size in sizes:
            say(f"a table of {size:,} rows")
            fill(dataset, size)
            for what in ("train", "monitor", "status"):
                say(what)
                seconds[what][size], memory[what][size] = ask("rows", what, dataset.path)
    for what in seconds:
        of = f"{what} at {large:,} rows, against {large // 10:,}"
        small, big = (seconds[what][size] for size in sizes)
        yield at_most(f"growth: {of}: CPU seconds", big / small, "ratio", 1.3)
        small, big = (memory[what][size] for size in sizes)
        yield at_most(f"growth: {of}: memory", big / small, "ratio", 1.3)
    curves.draw("rows", "rows in the table", {"CPU seconds": seconds, "memory, MiB": memory})


def ten_million() -> Iterator[Figure]:
    """The memory of training from a table of 10,000,000 rows, with the window as it is shipped."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(Path(folder) / TOOL.name, TOOL)
        for size in range(1_000_000, 10_000_001, 1_000_000):
            say(f"a table of {size:,} rows")
            fill(dataset, size)
        say("train")
        used, most = ask("rows", "train", dataset.path, 100_000)
    name = "growth: train from 10,000,000 rows"
    yield at_most(f"{name}: memory", most, "MiB", 2_048.0)
    yield at_most(f"{name}: CPU", used, "s", 120.0)


def _measure(what: str, path: Path, window: int = TOOL.train_rows) -> None:
    """CPU seconds and the most MiB of reading, and computing on, what `what` needs."""
    began = time.process_time()
    dataset = Dataset(path, TOOL)
    if what == "train":
        found = execution_window.read(dataset, window)
        regressor.fit("xgboost", matrix.build(TOOL, found.executions, found.before))
    elif what == "monitor":
        found = execution_window.read(dataset, execution_window.TAIL)
        built = matrix.build(TOOL, found.executions, found.before)
        evaluation.replay(built.executions, TYPES, family="")
    else:
        live.score_live(dataset.newest(execution_window.TAIL), TYPES)
        dataset.rows_added_since(0)
    answer([time.process_time() - began, peak()])


def window() -> Iterator[Figure]:
    """Real logs: models that are fitted on the newest 1,000 rows, against all of the same rows.

    Only tool types with more rows say anything; each is predicted beyond its first 1,000 rows, and
    refitted every 60.
    """
    place = Path(os.environ.get("MALEARN_TRACES") or _ROOT.parent / "shared" / "traces") / "maze"
    if not place.is_dir():
        say(f"no real logs at {place}: point MALEARN_TRACES at them")
        return
    types = tool_types.declared()
    log = _read(place, types)
    for tool_type in types.values():
        own = [e for e in log if e.tool_type == tool_type.name]
        if len(own) <= _WINDOW + _REFIT:
            continue
        say(f"{tool_type.name}: {len(own):,} executions")
        windows = [250, 500, _WINDOW, len(own)]
        errors = {size: _error(tool_type, log, own, size) for size in windows}
        curves.draw(
            "window", "rows fitted on", {"mean absolute error, s": {tool_type.name: errors}}
        )
        ratio = errors[_WINDOW] / errors[len(own)]
        of = f"{tool_type.name}, {len(own):,} rows of real logs"
        yield at_most(
            f"growth: {of}: error with a window of 1,000 against all", ratio, "ratio", 1.03
        )


def _read(place: Path, types: tool_types.ToolTypes) -> list[Execution]:
    found: list[Execution] = []
    for batch in run_logs.read(sorted(place.glob("*.jsonl"))):
        records = (one for one in batch if not isinstance(one, Execution))
        found += joining.join(records, types)[0]
    return sorted(found, key=lambda e: (e.start, e.task_id))


def _error(
    tool_type: tool_types.ToolType,
    log: Sequence[Execution],
    own: Sequence[Execution],
    size: int,
) -> float:
    """Mean absolute error, in seconds, of models fitted on the newest `size` rows each time.

    The history starts anew with each window, from the newest executions of each function before
    it, as in training.
    """
    missed: list[float] = []
    for first in range(_WINDOW, len(own), _REFIT):
        asked = own[first : first + _REFIT]
        since = own[max(0, first - size)].start
        last = asked[-1].start
        inside = [e for e in log if since <= e.start <= last]
        built = matrix.build(tool_type, inside, _checkpoint([e for e in log if e.start < since]))
        known = np.array([e.end < asked[0].start for e in built.executions])
        open_ = np.isin([e.task_id for e in built.executions], [e.task_id for e in asked])
        fitted = regressor.fit("xgboost", built.rows(np.flatnonzero(known & ~open_)))
        tested = built.rows(np.flatnonzero(open_))
        missed += np.abs(fitted.seconds(tested.inputs) - tested.seconds).tolist()
    return float(np.mean(missed))


def _checkpoint(earlier: Sequence[Execution]) -> list[Execution]:
    left: dict[str, int] = defaultdict(lambda: execution_window.OF_EACH_FUNCTION)
    kept = []
    for execution in reversed(earlier):
        if left[execution.function]:
            left[execution.function] -= 1
            kept.append(execution)
    return kept[::-1]


if __name__ == "__main__":
    _measure(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
