"""The runs in other orders: backends that come and go, where they went once in the order of time.

`shuffle_runs.py` writes the orders, seeds 1 to 5. The constants of malearn were chosen on seeds 11
to 15 and in the order of time.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.figure import Figure, at_least, at_most
from malearn.flows.evaluate import evaluate
from malearn.learning.evaluation import CADENCE, OURS, Evaluation

__all__ = [
    "SEEDS",
    "ReplayedTask",
    "after_changes",
    "mean_errors",
    "orders",
    "over_orders",
    "ratio",
    "tasks",
]

SEEDS = (1, 2, 3, 4, 5)
BASELINES = ("function_median", "function_ema")

_TARGETS = {"vlm_process": 0.48, "llm_process": 0.64, "llm_fuse2In1": 0.84}
_FIRST_OF_THE_OTHER = 16  # the run from which on another backend answered
_STEADY = 15  # executions of a function since a change
_COLD = 100  # tasks of a log that count as its start

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReplayedTask:
    """One scored task: relative errors, its state, and which side of its interval it missed.

    `since` counts the executions of its function that had ended since the backend changed last;
    -1 before the first change.
    """

    tool_type: str
    state: str
    since: int
    first: bool
    error: float
    average: float
    below: bool
    above: bool


def orders(
    files: Sequence[Path], seeds: Sequence[int] = SEEDS, cadence: int | None = CADENCE
) -> Iterator[Evaluation]:
    """The replay of `files` in each order, models refitted at that cadence."""
    script = Path(__file__).with_name("shuffle_runs.py")
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(script), str(seed), folder, *map(str, sorted(files))]
            subprocess.run(command, check=True)
            yield evaluate(sorted(Path(folder).glob("*.jsonl")), cadence=cadence)


def over_orders(files: Sequence[Path]) -> Iterator[Figure]:
    """The figures over all orders of `files`, which `benchmarks.accuracy` prints."""
    replays = list(orders(files))
    for tool_type, target in _TARGETS.items():
        ratios = [ratio(done, tool_type) for done in replays]
        name = f"shuffled, {tool_type}: MAE against the better of function_median and function_ema"
        yield at_most(f"{name}, mean", float(np.mean(ratios)), "ratio", target)
        yield at_most(f"{name}, worst order", max(ratios), "ratio", 1.0)
    ordered = float(np.mean([done.order()[OURS] for done in replays]))
    yield at_least("shuffled: pairs of a run in the right order, mean", ordered, "share", 0.835)
    seen = [task for done in replays for task in tasks(done)]
    yield from _intervals(seen)
    yield from after_changes(seen)


def _intervals(seen: Sequence[ReplayedTask]) -> Iterator[Figure]:
    for state in ("in_doubt", "steady"):
        some = [task for task in seen if task.state == state]
        below = float(np.mean([task.below for task in some]))
        above = float(np.mean([task.above for task in some]))
        name = f"shuffled, {state}: coverage of the 80 % interval, distance from 80 %"
        yield at_most(name, abs(0.2 - below - above), "share", 0.04)
        name = f"shuffled, {state}: outcomes below or above the interval, distance from 10 %"
        yield at_most(name, max(abs(below - 0.1), abs(above - 0.1)), "share", 0.03)
    first = [not (task.below or task.above) for task in seen if task.first]
    yield at_least("shuffled: coverage of the first 100 tasks", float(np.mean(first)), "share", 0.7)


def after_changes(seen: Sequence[ReplayedTask]) -> Iterator[Figure]:
    """How soon after a change of backend errors are what they were, by tool type."""
    for tool_type in _TARGETS:
        some = [task for task in seen if task.tool_type == tool_type]
        steady = _error([task for task in some if task.since >= _STEADY])
        third = _error([task for task in some if 2 <= task.since < _STEADY])
        name = f"shuffled, {tool_type}: error from a function's third execution after a change on"
        yield at_most(f"{name}, against steady", third / steady, "ratio", 1.5)
        fifth = [task for task in some if 4 <= task.since < _STEADY]
        average = float(np.mean([task.average for task in fifth]))
        name = f"shuffled, {tool_type}: error from a function's fifth execution after a change on"
        yield at_most(f"{name}, against its EMA(.6)", _error(fifth) / average, "ratio", 1.0)


def tasks(done: Evaluation) -> Iterator[ReplayedTask]:
    """Every scored task of a replay of run logs."""
    other = [_on_the_other(group) for group in done.groups]
    changes = [
        done.executions[i].start
        for i in range(1, len(other))
        if other[i] != other[i - 1] and done.groups[i] != done.groups[i - 1]
    ]
    actual, ours, average = done.actual, done.predicted[OURS], done.predicted["function_ema_6"]
    ends: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for execution in done.executions:
        ends[execution.function].append((execution.start, execution.end))
    for i in done.rows():
        task = done.executions[i]
        changed = max([moment for moment in changes if moment <= task.start], default=None)
        since = -1
        if changed is not None:
            since = sum(
                start >= changed and end <= task.start for start, end in ends[task.function]
            )
        yield ReplayedTask(
            task.tool_type,
            done.ours.states[i],
            since,
            bool(i < _COLD),
            abs(ours[i] - actual[i]) / actual[i],
            abs(average[i] - actual[i]) / actual[i],
            bool(actual[i] < done.ours.low[i]),
            bool(actual[i] > done.ours.high[i]),
        )


def _on_the_other(group: str) -> bool:
    """Whether the run of that file ran on the backend that came later."""
    number = group.partition("run")[2][:2]
    return number.isdecimal() and int(number) >= _FIRST_OF_THE_OTHER


def _error(some: Sequence[ReplayedTask]) -> float:
    return float(np.mean([task.error for task in some]))


def ratio(done: Evaluation, tool_type: str) -> float:
    """Our error against the better of `BASELINES`."""
    scores = done.scores(tool_type)
    return scores[OURS].mae / min(scores[name].mae for name in BASELINES)


def mean_errors(replays: Sequence[Evaluation]) -> dict[str, dict[str, float]]:
    """Per tool type, everyone's mean error over the orders, in seconds."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for done in replays:
        for tool_type in done.tool_types:
            for name, scores in done.scores(tool_type).items():
                found[tool_type][name] += scores.mae / len(replays)
    return {tool_type: dict(errors) for tool_type, errors in found.items()}


if __name__ == "__main__":
    from benchmarks.accuracy import logs

    replayed = list(orders(logs()))
    for number, evaluation in zip(SEEDS, replayed, strict=True):
        cells = "  ".join(f"{name} {ratio(evaluation, name):.3f}" for name in evaluation.tool_types)
        print(f"seed {number}: {cells}  order {evaluation.order()[OURS]:.3f}")
    for name, errors in mean_errors(replayed).items():
        ranked = sorted(errors.items(), key=lambda error: error[1])
        cells = "  ".join(f"{who} {error:.2f}" for who, error in ranked)
        print(f"{name}: {cells}")
