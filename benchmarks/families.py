"""What other families and tuning bring on real logs, on tasks that had no part in choosing.

The first 60 % of the tasks of a tool type, in order of their start, are all that a search sees:
it fits on the train window of them and scores on the validation window. The last 40 % are then
predicted in four parts, each with a model fitted on all that had ended when it began, once with
each family as declared and once as tuned. Measured against `xgboost` as shipped, on the same
tasks. The logs are `maze/run*.jsonl` below `$MALEARN_TRACES` (default: `../shared/traces`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.figure import Figure, at_most
from malearn.data import run_logs
from malearn.kernel import tool_types
from malearn.kernel.errors import TrainingError
from malearn.kernel.reading import joining
from malearn.kernel.records import Execution
from malearn.learning import matrix, regressor, tuning
from malearn.learning.families import DEFAULT, FAMILIES, Parameters
from malearn.learning.matrix import Matrix
from malearn.learning.metrics import pairwise_accuracy, score

__all__ = ["figures"]

_SEEN, _PARTS = 0.6, 4
_FEWEST = 100  # tasks of a tool type
_TRIALS = int(os.environ.get("MALEARN_BENCH_TRIALS", "30"))

Vector = NDArray[np.float64]
#: What was predicted of the last tasks, in seconds, by variant and tool type.
Predicted = dict[str, dict[str, Vector]]


def figures() -> Iterator[Figure]:
    """Errors against the shipped default, per tool type, and the order of pairs in a run."""
    folder = Path(os.environ.get("MALEARN_TRACES", "../shared/traces")) / "maze"
    files = sorted(folder.glob("run*.jsonl"))
    if not files:
        return
    executions, groups = _read(files)
    types = tool_types.declared()
    everything = {name: matrix.build(types[name], executions) for name in types}
    known = {name: rows for name, rows in everything.items() if len(rows) >= _FEWEST}
    predicted: Predicted = {}
    for name, rows in known.items():
        for family in FAMILIES:
            predicted.setdefault(family, {})[name] = _predicted(family, rows, None)
            found = _searched(family, rows)
            tuned = predicted[family][name] if found is None else _predicted(family, rows, found)
            predicted.setdefault(f"{family} tuned", {})[name] = tuned
    for variant, by_type in predicted.items():
        for name, rows in known.items():
            actual = rows.seconds[_first(rows) :]
            error = score(actual, by_type[name]).mae
            usual = score(actual, predicted[DEFAULT][name]).mae
            figure = f"{variant}, {name}: MAE ({error:.2f} s) against xgboost as shipped"
            yield at_most(figure, error / usual, "ratio", 1.0)
        lost = _order(known, predicted[DEFAULT], groups) - _order(known, by_type, groups)
        yield at_most(f"{variant}: pairs of a run put in order, fewer by", lost, "share", 0.0)


def _read(files: Sequence[Path]) -> tuple[list[Execution], dict[str, str]]:
    """All executions, and the run of each task."""
    latest: dict[str, Execution] = {}
    groups: dict[str, str] = {}
    types = tool_types.declared()
    for file in files:
        for batch in run_logs.read([file]):
            records = (record for record in batch if not isinstance(record, Execution))
            for execution in joining.join(records, types)[0]:
                latest[execution.task_id] = execution
                groups[execution.task_id] = file.name
    return list(latest.values()), groups


def _first(rows: Matrix) -> int:
    return round(_SEEN * len(rows))


def _before(rows: Matrix, moment: float) -> Matrix:
    """The rows that had ended by then."""
    return rows.rows(np.flatnonzero([e.end <= moment for e in rows.executions]))


def _searched(family: str, rows: Matrix) -> Parameters | None:
    """What a search finds on the first tasks; None where that is nothing better."""
    seen = _before(rows, rows.executions[_first(rows)].start)
    try:
        best = tuning.search(family, seen, trials=_TRIALS)
    except TrainingError:  # too few rows
        return None
    print(
        f"{best.tool_type}, {family}: validation MAE {best.error:.2f} s, as declared "
        f"{best.declared_error:.2f} s, on {best.rows} tasks: {dict(best.parameters)}",
        flush=True,
    )
    return best.parameters if best.better else None


def _predicted(family: str, rows: Matrix, given: Parameters | None) -> Vector:
    parts = []
    for part in np.array_split(np.arange(_first(rows), len(rows)), _PARTS):
        fitted = regressor.fit(family, _before(rows, rows.executions[part[0]].start), given)
        parts.append(fitted.seconds(rows.inputs[part]))
    return np.concatenate(parts)


def _order(
    known: Mapping[str, Matrix], predicted: Mapping[str, Vector], groups: Mapping[str, str]
) -> float:
    tasks = [e for rows in known.values() for e in rows.executions[_first(rows) :]]
    seconds = np.concatenate([predicted[name] for name in known])
    runs = [groups[task.task_id] for task in tasks]
    return pairwise_accuracy(np.array([task.seconds for task in tasks]), seconds, runs)


if __name__ == "__main__":
    from benchmarks.figure import table

    print(table(figures()))
