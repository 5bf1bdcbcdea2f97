"""A fitted model of one tool type, whatever its family: inputs in, seconds out.

It predicts the log-ratio of a task's time to the recent level of its function,
so that a level that moves (another backend, a busier node) moves the answer at
once, and what is learnt is how tasks differ *around* that level.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from malearn.kernel.errors import TrainingError
from malearn.learning import families
from malearn.learning.families import Family, Parameters
from malearn.learning.matrix import Matrix

__all__ = ["SHRINKAGE", "Regressor", "Steps", "fit", "monotone", "parameters_for", "update"]

#: How far answers go from the level to what the estimator predicts: 0 not at all, 1 all the way.
#: The estimator is fitted to what the level leaves over, most of which is noise, so shrinking
#: towards the level lowers the error.
SHRINKAGE = 0.7
#: What is tried on held-out rows, and as how many of those rows the default counts.
_SHRINKAGES = np.linspace(SHRINKAGE, 1.0, 4)
#: A prior is needed because on a small held-out part the best value is mostly chance.
_FEWEST_TO_TRY, _USUAL_ROWS = 100, 150
#: Answers are held within the range of training, widened by this factor either way.
#: Conditions change by about that factor: the same function on another backend by 3 to 4.
_WIDER = 4.0
#: An update is fitted on so many rows, the newest, and needs as many of them as a first fit.
#: Older rows are in the model that is updated.
_NEWEST = 500


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps to a prediction, in log-seconds, shape (rows,) each.

    `ratio` is the estimator's answer, `held` is that within the range of training, `total` is
    `level` and the shrunk ratio, `log_seconds` is the total within the range of training.
    """

    level: NDArray[np.float32]
    ratio: NDArray[np.float32]
    held: NDArray[np.float32]
    total: NDArray[np.float32]
    log_seconds: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Regressor:
    """One fitted model.

    seconds = exp(clip(level + shrinkage · clip(estimator(inputs)))), where `level` is
    the input column `level_column`, `level_default` where that is missing; the
    clips are to the range of training: `ratio_range` and `log_range`.
    """

    family: str
    columns: tuple[str, ...]
    estimator: Any
    level_column: int
    level_default: float
    ratio_range: tuple[float, float]
    log_range: tuple[float, float]
    shrinkage: float = SHRINKAGE

    def seconds(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Predicted seconds, shape (rows,), for float32 inputs of shape (rows, columns)."""
        return np.asarray(np.exp(self.steps(inputs).log_seconds), dtype=np.float64)

    def steps(self, inputs: NDArray[np.float32]) -> Steps:
        """How it comes to its answers, step by step, for inputs as in `seconds`."""
        # float32 throughout, in the order of the ONNX graph: parity is a matter of rounding.
        ratio = np.asarray(self.estimator.predict(inputs), dtype=np.float32).reshape(-1)
        held = np.clip(ratio, *np.array(self.ratio_range, "f"))
        level = _level(inputs, self.level_column, self.level_default)
        total = level + np.float32(self.shrinkage) * held
        return Steps(level, ratio, held, total, np.clip(total, *self.log_range))

    @property
    def seconds_range(self) -> tuple[float, float]:
        """The bounds of every answer, in seconds."""
        return float(np.exp(self.log_range[0])), float(np.exp(self.log_range[1]))

    @property
    def importance(self) -> dict[str, float]:
        """Weight per column, summing to 1, largest first."""
        weights = families.get(self.family).importance(self.estimator, len(self.columns))
        total = float(weights.sum()) or 1.0
        shares = {c: float(w) / total for c, w in zip(self.columns, weights, strict=True)}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))


def fit(family: str, rows: Matrix, given: Parameters | None = None) -> Regressor:
    """Fit `family` on `rows`, with the hyper-parameters `given`, else those that are declared.

    Raises `TrainingError` when there are too few rows, or the family fails.
    """
    kind, parameters = _kind(family, rows), parameters_for(family, rows, given)
    column = rows.columns.index("level")
    target = rows.log_seconds
    default = float(np.median(target))
    # In log-seconds the difference is a log-ratio: the estimator learns factors around the level.
    relative = target - _level(rows.inputs, column, default)
    wider = float(np.log(_WIDER))
    return Regressor(
        family,
        rows.columns,
        _estimator(kind, rows, relative, parameters),
        column,
        default,
        (float(relative.min()), float(relative.max())),
        (float(target.min()) - wider, float(target.max()) + wider),
        _tune_shrinkage(kind, rows, relative, parameters),
    )


def parameters_for(family: str, rows: Matrix, given: Parameters | None = None) -> Parameters:
    """All hyper-parameters of a fit of `family`: `given`, else what the tool type declares."""
    chosen = rows.tool_type.hyperparameters.get(family, {}) if given is None else given
    parameters: Parameters = families.get(family).parameters(chosen, monotone(rows))
    return parameters


def _estimator(
    kind: Family, rows: Matrix, target: NDArray[np.float64], parameters: Parameters
) -> Any:
    """Fitted, and known to answer. Raises `TrainingError` for whatever its library raises."""
    name = rows.tool_type.name
    try:
        estimator = kind.fit(rows.inputs[: len(target)], target, parameters)
        # Two rows show the shape of an answer, and a model that gives NaN, before it is scored.
        answers = np.asarray(estimator.predict(rows.inputs[:2]), dtype=np.float64)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        problem = f"{kind.name} fails ({type(error).__name__}: {reason})"
        raise TrainingError(name, problem) from error
    if answers.size != len(rows.inputs[:2]) or not np.all(np.isfinite(answers)):
        raise TrainingError(name, f"{kind.name} does not predict one finite number a row")
    return estimator


def update(fitted: Regressor, rows: Matrix) -> Regressor:
    """A model that goes on from `fitted`, which stays as it is, with the newest of `rows`.

    Raises `TrainingError` when its family cannot be updated, when it has grown as large as
    it may, when it reads other columns, or when the rows are too few.
    """
    kind, name = _kind(fitted.family, rows), rows.tool_type.name
    if kind.update is None or fitted.columns != rows.columns:
        raise TrainingError(name, f"this {kind.name} model can only be fitted anew")
    newest = rows.rows(np.arange(max(0, len(rows) - _NEWEST), len(rows)))
    target = newest.log_seconds
    # With the old default: what the model holds so far was fitted against it.
    relative = target - _level(newest.inputs, fitted.level_column, fitted.level_default)
    parameters = parameters_for(kind.name, newest)
    estimator = kind.update(fitted.estimator, newest.inputs, relative, parameters)
    if estimator is None:
        raise TrainingError(name, f"this {kind.name} model is as large as it may become")
    wider = float(np.log(_WIDER))
    held = np.array([target.min() - wider, target.max() + wider])
    return replace(
        fitted,
        estimator=estimator,
        # Ranges only grow: what was believable in the first fit stays so.
        ratio_range=_spanning(fitted.ratio_range, relative),
        log_range=_spanning(fitted.log_range, held),
    )


def monotone(rows: Matrix) -> list[int]:
    """One constraint per column: as declared for features, none for the history."""
    features = rows.tool_type.features
    # No constraint on the history: its effect on the ratio to the level may go either way.
    return [f.monotone for f in features] + [0] * (len(rows.columns) - len(features))


def _kind(family: str, rows: Matrix) -> Family:
    """The family of that name. Raises `TrainingError` when `rows` are too few for it."""
    kind = families.get(family)
    if len(rows) < kind.fewest_rows:
        raise TrainingError(
            rows.tool_type.name, f"{family} needs {kind.fewest_rows} rows, there are {len(rows)}"
        )
    return kind


def _tune_shrinkage(
    kind: Family, rows: Matrix, relative: NDArray[np.float64], parameters: Parameters
) -> float:
    """How much to believe `kind`: what would have been best on the newest quarter, drawn to the
    usual as by `_USUAL_ROWS` more rows.
    """
    # The newest quarter, not a random one: how far to go is asked of what comes next.
    first = len(rows) - len(rows) // 4
    if first < _FEWEST_TO_TRY or first < kind.fewest_rows:
        return SHRINKAGE
    tried = _estimator(kind, rows, relative[:first], parameters)
    found = np.asarray(tried.predict(rows.inputs[first:]), dtype=np.float64).reshape(-1)
    found = np.clip(found, relative[:first].min(), relative[:first].max())
    errors = np.abs(relative[first:] - np.outer(_SHRINKAGES, found)).sum(axis=1)
    best, seen = float(_SHRINKAGES[np.argmin(errors)]), len(found)
    return (seen * best + _USUAL_ROWS * SHRINKAGE) / (seen + _USUAL_ROWS)


def _spanning(known: tuple[float, float], values: NDArray[np.float64]) -> tuple[float, float]:
    return min(known[0], float(values.min())), max(known[1], float(values.max()))


def _level(inputs: NDArray[np.float32], column: int, default: float) -> NDArray[np.float32]:
    level = inputs[:, column]
    return np.where(np.isnan(level), np.float32(default), level)
