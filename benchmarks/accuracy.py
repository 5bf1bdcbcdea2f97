"""Accuracy on real logs, replayed in time: malearn beside what needs no training.

Each task is predicted from what had finished before it started; models are
retrained every 25 finished tasks. The logs are `maze/run*.jsonl` below
`$MALEARN_TRACES` (default: `../shared/traces`). `python -m benchmarks.accuracy`
prints instead how far anyone could go; what each part brings: `benchmarks.ablation`.
"""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold
from xgboost import XGBRegressor

from benchmarks import shuffled
from benchmarks.figure import Figure, at_least, at_most
from malearn.flows.evaluate import evaluate
from malearn.learning import evaluation
from malearn.learning.evaluation import OURS, Evaluation

__all__ = ["figures", "logs"]

Vector = NDArray[np.float64]

_TARGETS = {"vlm_process": 0.65, "llm_process": 0.72, "llm_fuse2In1": 0.80, "speech_process": 1.0}
_BASELINES = ("function_median", "function_ema")
_MOST_SECONDS = 60.0
_SWAP = "run16.jsonl"  # the first on another backend
_PHASES = ((5, 10), (15, 10_000))  # tasks of the function ended since


def figures() -> list[Figure]:
    """The figures on the logs; none where there are no logs."""
    files = logs()
    if not files:
        return []
    began = time.perf_counter()
    done = evaluate(files)
    took = time.perf_counter() - began
    found: list[Figure] = []
    for tool_type, target in _TARGETS.items():
        if tool_type in done.tool_types:
            name = f"{tool_type}: MAE against the better of function_median and function_ema"
            found.append(at_most(name, _ratio(done, tool_type), "ratio", target))
    found.append(at_least("pairs of a run in the right order", done.order()[OURS], "share", 0.86))
    for tool_type in done.tool_types:
        if len(done.rows(tool_type)) >= 200:
            off = abs(done.coverage(tool_type) - 0.8)
            name = f"{tool_type}: coverage of the 80 % interval, distance from 80 %"
            found.append(at_most(name, off, "share", 0.03))
            name = f"{tool_type}: width of the interval against one around function_ema"
            found.append(at_most(name, _width(done, tool_type), "ratio", 1.0))
    for tool_type, error in _recovery(done).items():
        name = f"{tool_type}: error from the 6th task after the change of regime, against steady"
        found.append(at_most(name, error, "ratio", 1.5))
    found.append(at_most("replay of all runs", took, "s", _MOST_SECONDS))
    found += shuffled.over_orders(files)
    return found


def floors(done: Evaluation) -> dict[str, float]:
    """The lowest error possible with the future known, as a share of the better baseline's.

    Ten random folds: a task is predicted from what its function took before and after, on that
    backend and on the same inputs, and from malearn's own prediction. The rest is noise.
    """
    return {name: _floor(done, name) for name in done.tool_types if len(done.rows(name)) >= 100}


def _floor(done: Evaluation, tool_type: str) -> float:
    tasks = [done.executions[i] for i in done.rows(tool_type)]
    change = _change(done)
    log_seconds = np.log([task.seconds for task in tasks])
    functions = sorted({task.function for task in tasks})
    given = np.array([(*t.serve, functions.index(t.function)) for t in tasks])
    ours = np.log(done.predicted[OURS][done.rows(tool_type)])
    when = np.array([t.start for t in tasks]) - change
    kinds = [(t.function, t.start >= change) for t in tasks]
    inputs = [(*kind, str(t.serve)) for kind, t in zip(kinds, tasks, strict=True)]
    predicted = np.zeros(len(tasks))
    repeats = 2
    for seed in range(repeats):
        for train, test in KFold(10, shuffle=True, random_state=seed).split(tasks):
            level = _medians(kinds, log_seconds, train, float(np.median(log_seconds[train])))
            same = _medians(inputs, log_seconds - level, train, math.nan)
            rows = np.column_stack([given, when, level, same, ours - level])
            model = XGBRegressor(
                n_estimators=200,
                max_depth=5,
                learning_rate=0.05,
                objective="reg:absoluteerror",
                subsample=0.8,
                colsample_bytree=0.5,
                min_child_weight=5,
                n_jobs=1,
            ).fit(rows[train], (log_seconds - level)[train])
            predicted[test] += (level[test] + model.predict(rows[test])) / repeats
    error = np.abs(np.exp(predicted) - np.exp(log_seconds)).mean()
    return float(error / _better_rival(done, tool_type))


def _medians(
    keys: Sequence[Hashable], values: Vector, train: NDArray[np.intp], otherwise: float
) -> Vector:
    """For each row the median of the training rows of its key, itself left out."""
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i in train:
        members[keys[i]].append(int(i))
    found = np.full(len(keys), otherwise)
    for i, key in enumerate(keys):
        others = [j for j in members[key] if j != i]
        if others:
            found[i] = np.median(values[others])
    return found


def _width(done: Evaluation, tool_type: str) -> float:
    """Mean width of our intervals over that of the same method's around `function_ema`."""
    rows = done.rows(tool_type)
    theirs = evaluation.intervals_around(done.executions, done.predicted["function_ema"])
    return float(
        (done.ours.high - done.ours.low)[rows].mean() / (theirs[1] - theirs[0])[rows].mean()
    )


def _recovery(done: Evaluation) -> dict[str, float]:
    """Mean relative error once 5 to 9 tasks of a function have ended under the new backend,
    over that from the 15th on."""
    change = _change(done)
    error = np.abs(done.predicted[OURS] - done.actual) / done.actual
    since = np.array([_ended_since(done, i, change) for i in range(len(done.executions))])
    found = {}
    for tool_type in done.tool_types:
        rows = done.rows(tool_type)
        early, steady = (error[rows[(since[rows] >= a) & (since[rows] < b)]] for a, b in _PHASES)
        if len(early) >= 10 and len(steady) >= 10:
            found[tool_type] = float(early.mean() / steady.mean())
    return found


def _change(done: Evaluation) -> float:
    """When the backend changed, in seconds since the epoch."""
    return min(e.start for e, run in zip(done.executions, done.groups, strict=True) if run == _SWAP)


def _ended_since(done: Evaluation, row: int, change: float) -> int:
    """How many tasks of its function had ended, of those begun since `change`, when it started."""
    task = done.executions[row]
    if task.start < change:
        return -1
    return sum(
        e.function == task.function and change <= e.start and e.end <= task.start
        for e in done.executions
    )


def _ratio(done: Evaluation, tool_type: str) -> float:
    return done.scores(tool_type)[OURS].mae / _better_rival(done, tool_type)


def _better_rival(done: Evaluation, tool_type: str) -> float:
    scores = done.scores(tool_type)
    return min(scores[name].mae for name in _BASELINES)


def logs() -> list[Path]:
    """The logs, in order of their names; none where there are none."""
    folder = Path(os.environ.get("MALEARN_TRACES", "../shared/traces")) / "maze"
    return sorted(folder.glob("run*.jsonl"))


if __name__ == "__main__":
    for name, floor in floors(evaluate(logs())).items():
        print(f"{name}: an oracle that sees the future errs {floor:.3f} as much")
