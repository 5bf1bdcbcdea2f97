"""`stack`: a strong cheap learner to compare with: XGBoost on the features and all averages.

It predicts the log-ratio to `function_ema_6`, which answers until there are enough rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from malearn.kernel import causality
from malearn.kernel.estimation.replay import timeline
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolTypes, default_seconds
from malearn.learning import families
from malearn.learning.cadence import is_due

__all__ = ["NAME", "contract_only", "of_newest", "replayed"]

NAME = "stack"

_AVERAGES = ("function_ema_6", "function_ema", "function_median", "same_inputs")
_KIND = families.get("xgboost")

Vector = NDArray[np.float64]
Rows = Sequence[tuple[float, ...]]


def replayed(
    executions: Sequence[Execution], predicted: Mapping[str, Vector], cadence: int | None
) -> Vector:
    """What it predicts of each task, in seconds, refitted at that cadence as tasks finish.

    `predicted` are the baselines' predictions of the same tasks, by name.
    """
    rows, base = _inputs(executions, predicted)
    return _refitted(executions, rows, base, predicted[_AVERAGES[0]], cadence)


def of_newest(
    executions: Sequence[Execution], predicted: Mapping[str, Vector], newest: int
) -> Vector | None:
    """What it predicts of the `newest` of one tool type's executions, fitted to those before.

    `executions` are in order of their start, and only what had ended before the newest began
    teaches. `predicted` is as in `replayed`. None where too few rows are known, or no features.
    """
    first = len(executions) - newest
    known = [
        i for i in range(first) if causality.was_known(executions[i].end, executions[first].start)
    ]
    if len(known) < _KIND.fewest_rows or not executions[0].serve:
        return None
    rows, base = _inputs(executions, predicted)
    inputs = np.array(rows[first:], dtype=np.float32)
    ratios = _fit(executions, rows, base, known).predict(inputs)
    return np.asarray(np.exp(np.asarray(ratios, dtype=np.float64) + base[first:]))


def contract_only(
    executions: Sequence[Execution], tool_types: ToolTypes, cadence: int | None
) -> Vector:
    """The original's recipe: XGBoost on the contract's features alone, refitted as often."""
    rows = [e.serve for e in executions]
    default = np.array([default_seconds(None, tool_types[e.tool_type]) for e in executions])
    return _refitted(executions, rows, np.zeros(len(executions)), default, cadence)


def _inputs(
    executions: Sequence[Execution], predicted: Mapping[str, Vector]
) -> tuple[Rows, Vector]:
    """One row a task, and the log-seconds that its prediction starts from."""
    # The others as differences to the first: a tree splits on a ratio, not on seconds.
    averages = [np.log(predicted[name]) for name in _AVERAGES]
    base = averages[0]
    above = np.column_stack([base, *(average - base for average in averages[1:])])
    return [(*e.serve, *row) for e, row in zip(executions, above.tolist(), strict=True)], base


def _fit(executions: Sequence[Execution], rows: Rows, base: Vector, known: Sequence[int]) -> Any:
    x = np.array([rows[i] for i in known], dtype=np.float32)
    y = np.log([executions[j].seconds for j in known]) - base[list(known)]
    return _KIND.fit(x, y, _KIND.parameters())


def _refitted(
    executions: Sequence[Execution],
    rows: Rows,
    base: Vector,
    otherwise: Vector,
    cadence: int | None,
) -> Vector:
    """XGBoost's answers in seconds, a model a tool type, fitted to log-seconds less `base`.

    `otherwise` answers, in seconds, while there are too few rows.
    """
    predicted = otherwise.copy()
    models: dict[str, Any] = {}
    ended: dict[str, list[int]] = defaultdict(list)
    asked: dict[str, list[int]] = defaultdict(list)  # of the model that is there, all at once
    fitted, finished = 0, 0

    def predict(tool: str) -> None:
        chosen = asked.pop(tool, [])
        if chosen and tool in models:
            inputs = np.array([rows[i] for i in chosen], dtype=np.float32)
            ratios = np.asarray(models[tool].predict(inputs), dtype=np.float64)
            predicted[chosen] = np.exp(ratios + base[chosen])

    for i, just_ended in timeline(executions):
        for j in just_ended:
            ended[executions[j].tool_type].append(j)
            finished += 1
        if is_due(finished, fitted, cadence):
            fitted = finished
            for tool, known in ended.items():
                predict(tool)
                if len(known) >= _KIND.fewest_rows and rows[known[0]]:  # or it has no features
                    models[tool] = _fit(executions, rows, base, known)
        asked[executions[i].tool_type].append(i)
    for tool in list(asked):
        predict(tool)
    return predicted
