"""Explanations of predictions: what the model adds, input by input, to what it starts from.

The terms of an explanation are in log-seconds and sum to the prediction, whatever the family:
the level and the effect of similar inputs (`kernel.estimation.answer_explanation`), what each input
adds, the clips to the range of training, and the shrinkage towards the level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from malearn.kernel.estimation import answer_explanation
from malearn.kernel.estimation.answer_explanation import AnswerExplanation
from malearn.kernel.estimation.explanation import Term
from malearn.kernel.records import Execution
from malearn.learning import contributions
from malearn.learning.contributions import Contributions
from malearn.learning.matrix import Matrix
from malearn.learning.regressor import Regressor, Steps

__all__ = [
    "Explanation",
    "RowExplanation",
    "explain",
    "explain_rows",
    "typical_and_worst",
]

_MOST_SIMILAR = 10
#: So many typical tasks, and so many of the worst, of a test window are explained.
_EACH = 3
#: A term below this is nothing.
_NOTHING = 1e-12

Inputs = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One prediction explained: `answer`, and `terms` with one per input of the model.

    `method` names how the model's were found, empty where no model answered. `actual` is what the
    task took and `recorded` what a scheduler was given, in seconds, of a past task.
    """

    answer: AnswerExplanation
    terms: tuple[Term, ...]
    method: str = ""
    task_id: str | None = None
    actual: float | None = None
    recorded: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The form that `malearn explain --json` prints."""
        answer = self.answer
        return {
            "function": answer.function,
            "tool_type": answer.tool_type or None,
            "task_id": self.task_id,
            "prediction": msgspec.structs.asdict(answer.prediction),
            "actual": self.actual,
            "recorded": self.recorded,
            "terms": [{**msgspec.structs.asdict(t), "factor": t.factor} for t in self.terms],
            "method": self.method or None,
            "similar": [msgspec.structs.asdict(one) for one in answer.similar[:_MOST_SIMILAR]],
            "chain": [msgspec.structs.asdict(step) for step in answer.chain],
            "interval": answer.interval,
        }


@dataclass(frozen=True, slots=True)
class RowExplanation:
    """One task of a test window: `terms` sum to the logarithm of `predicted`, in seconds."""

    name: str
    execution: Execution
    predicted: float
    terms: tuple[Term, ...]


def explain(
    answer: AnswerExplanation,
    fitted: Regressor | None,
    background: Callable[[], Inputs],
    **task: Any,
) -> Explanation:
    """`answer` with what the model adds, input by input.

    `fitted` is the trainer's model of the version that answered, None where it is not to be had:
    then what the model adds stays one term. `background` gives real inputs, for families that
    need them. `task`: the other fields of `Explanation`.
    """
    if answer.prediction.source != "model" or fitted is None:
        return Explanation(answer, answer.terms, **task)
    model = answer.model
    given = dict(zip(model.columns, model.row, strict=True))
    row = [[given.get(column, math.nan) for column in fitted.columns]]
    inputs = np.array(row, dtype=np.float32)
    found = contributions.of_regressor(fitted, inputs, background)
    base = answer.base
    # The model then starts from its own median of training, whatever level the history has.
    if math.isnan(inputs[0, fitted.level_column]):
        base = _no_level(fitted)
    added = _model_terms(fitted, inputs[0], fitted.steps(inputs), found, 0)
    mixed = answer_explanation.mixing(model, answer.prediction)
    return Explanation(answer, (*base, *added, *mixed), found.method, **task)


def explain_rows(
    fitted: Regressor, rows: Matrix, chosen: Mapping[str, int], background: Callable[[], Inputs]
) -> list[RowExplanation]:
    """The predictions of `fitted` for the `chosen` of `rows`, by name, explained."""
    inputs = rows.rows(np.array(list(chosen.values()), dtype=np.intp)).inputs_for(fitted.columns)
    found = contributions.of_regressor(fitted, inputs, background)
    steps, seconds = fitted.steps(inputs), fitted.seconds(inputs)
    return [
        RowExplanation(
            name,
            rows.executions[row],
            float(seconds[at]),
            (
                *_level_terms(fitted, inputs[at]),
                *_model_terms(fitted, inputs[at], steps, found, at),
            ),
        )
        for at, (name, row) in enumerate(chosen.items())
    ]


def typical_and_worst(
    actual: NDArray[np.float64], predicted: NDArray[np.float64]
) -> dict[str, int]:
    """A few rows whose error, as a factor, is nearest to the median, and those with the largest."""
    # As a factor: twice too long is as far off as half.
    errors = np.abs(np.log(predicted / actual))
    worst = np.argsort(-errors, kind="stable")[:_EACH]
    near = np.argsort(np.abs(errors - np.median(errors)), kind="stable")
    typical = [int(row) for row in near if row not in worst][:_EACH]
    return {
        **{f"typical {number}": row for number, row in enumerate(typical, 1)},
        **{f"worst {number}": int(row) for number, row in enumerate(worst, 1)},
    }


def _no_level(fitted: Regressor) -> tuple[Term, ...]:
    return (Term("level", "median of training, for want of a level", fitted.level_default),)


def _level_terms(fitted: Regressor, inputs: Inputs) -> tuple[Term, ...]:
    """What the model starts from, by a row of its inputs."""
    level = float(inputs[fitted.level_column])
    if math.isnan(level):
        return _no_level(fitted)
    # The column `level` contains the effect of similar inputs, which is shown as a term of its own.
    effect = float(np.nan_to_num(inputs[fitted.columns.index("effect")]))
    return (
        Term("level", "level of the function", level - effect),
        Term("inputs", "similar inputs", effect),
    )


def _model_terms(
    fitted: Regressor, inputs: Inputs, steps: Steps, found: Contributions, at: int
) -> tuple[Term, ...]:
    """What the model adds to the level of row `at`: inputs, the largest first, clips, shrinkage.

    Terms that come to nothing are left out.
    """
    terms = [
        Term("model", column, float(found.values[at, i]), float(inputs[i]))
        for i, column in enumerate(fitted.columns)
    ]
    terms.sort(key=lambda term: -abs(term.log_seconds))
    # Clips and shrinkage are differences of successive steps, so that all terms sum to the answer.
    ratio, held = float(steps.ratio[at]), float(steps.held[at])
    total, log_seconds = float(steps.total[at]), float(steps.log_seconds[at])
    terms += [
        Term("model", "whatever the inputs", float(found.rest[at])),
        Term("clip", "correction held to the range of training", held - ratio),
        Term("mixing", "shrinkage towards the level", (fitted.shrinkage - 1.0) * held),
        Term("clip", "answer held to the range of training", log_seconds - total),
    ]
    return tuple(term for term in terms if abs(term.log_seconds) > _NOTHING)
