"""What other families and tuning bring on real logs, on tasks that had no part in choosing.

The first 60 % of the tasks, in order of their start, are all that a search sees: it fits on the
train window of them and scores on the validation window, per tool type and family. Then the
whole log is replayed with each family, as declared and as tuned, retrained as tasks finish, and
only the last 40 % count. Measured against `xgboost` as shipped. The logs are `maze/run*.jsonl`
below `$MALEARN_TRACES` (default: `../shared/traces`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figure import Figure, at_most
from malearn.flows.evaluate import evaluate
from malearn.kernel import tool_types
from malearn.kernel.errors import TrainingError
from malearn.kernel.tool_types import ToolTypes
from malearn.learning import evaluation, matrix, tuning
from malearn.learning.evaluation import OURS, Evaluation
from malearn.learning.families import DEFAULT, FAMILIES
from malearn.learning.metrics import pairwise_accuracy, score

__all__ = ["figures"]

_SEEN = 0.6  # of the tasks, in order of their start
_TRIALS = int(os.environ.get("MALEARN_BENCH_TRIALS", "30"))
_CADENCE = 50  # twice the usual: ten replays instead of one

Tuned = dict[str, dict[str, dict[str, Any]]]


def figures() -> Iterator[Figure]:
    """Errors against the shipped default, per tool type; none where there are no logs."""
    folder = Path(os.environ.get("MALEARN_TRACES", "../shared/traces")) / "maze"
    files = sorted(folder.glob("run*.jsonl"))
    if not files:
        return
    done = evaluate(files, cadence=_CADENCE)
    first = round(_SEEN * len(done.executions))
    done = replace(done, score_from=first)
    usual = _errors(done, done.ours.seconds)
    yield from _shown("xgboost", usual, usual)
    found = _searched(done, first)
    for family in FAMILIES:
        declared = tool_types.declared()
        if family != DEFAULT:
            yield from _shown(family, _replayed(done, declared, family), usual)
        yield from _shown(f"{family} tuned", _replayed(done, _with(declared, found), family), usual)


def _searched(done: Evaluation, first: int) -> Tuned:
    """What a search finds, by tool type and family, on the first so many tasks."""
    types, found = tool_types.declared(), Tuned()
    # What ended later was not known yet.
    until = done.executions[first].start
    seen = [e for e in done.executions[:first] if e.end <= until]
    for name, tool_type in types.items():
        rows = matrix.build(tool_type, seen)
        for family in FAMILIES:
            try:
                best = tuning.search(family, rows, trials=_TRIALS)
            except TrainingError:  # too few rows, as of speech
                continue
            print(
                f"{name}, {family}: validation MAE {best.error:.2f} s, as declared "
                f"{best.declared_error:.2f} s on {best.rows} rows: {dict(best.parameters)}",
                flush=True,
            )
            found.setdefault(name, {})[family] = dict(best.parameters)
    return found


def _with(types: ToolTypes, found: Tuned) -> ToolTypes:
    return ToolTypes(replace(t, hyperparameters=found.get(n, {})) for n, t in types.items())


def _replayed(done: Evaluation, types: ToolTypes, family: str) -> Mapping[str, float]:
    again = evaluation.replay(done.executions, types, cadence=_CADENCE, family=family)
    return _errors(done, again.seconds)


def _errors(done: Evaluation, seconds: np.ndarray) -> dict[str, float]:
    """MAE per tool type, in seconds, and the order of pairs."""
    found = {}
    for name in done.tool_types:
        rows = done.rows(name)
        if len(rows) >= 30:
            found[name] = score(done.actual[rows], seconds[rows]).mae
    rows = done.rows()
    groups: Sequence[str] = [done.groups[i] for i in rows]
    found["order"] = pairwise_accuracy(done.actual[rows], seconds[rows], groups)
    return found


def _shown(name: str, errors: Mapping[str, float], usual: Mapping[str, float]) -> Iterator[Figure]:
    for tool_type, error in errors.items():
        if tool_type == "order":
            lost = usual["order"] - error
            figure = f"{name}: pairs in the wrong order, more than with xgboost as shipped"
            yield at_most(figure, lost, "share", 0.0)
        else:
            figure = f"{name}, {tool_type}: MAE against xgboost as shipped ({error:.2f} s)"
            yield at_most(figure, error / usual[tool_type], "ratio", 1.0)


if __name__ == "__main__":
    from benchmarks.figure import table

    print(table(figures()), OURS)
