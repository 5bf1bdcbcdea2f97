"""Why an answer is what it is: its terms, similar executions, its source and its interval.

The answer is given once more by `estimator.answer`, on the same basis, so the explanation is of
the code that predicts. What a model adds is one term here, which `learning.explanation` replaces
by one a feature: a scheduler's process has no library for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from malearn.kernel.estimation import estimator, explanation
from malearn.kernel.estimation.estimator import Basis, Estimator
from malearn.kernel.estimation.explanation import ChainStep, SimilarInputs, Term
from malearn.kernel.estimation.history import FEATURES
from malearn.kernel.estimation.intervals import Factors
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.prediction import Prediction, Source

__all__ = ["AnswerExplanation", "ModelAnswer", "explain", "mixing"]

_LEVEL = FEATURES.index("level")
_STATES = {
    "cold": "the function was hardly known",
    "in_doubt": "it was in doubt which level holds",
    "steady": "its level was steady",
}


class ModelAnswer(msgspec.Struct, frozen=True, gc=False):
    """What a model answered, or `why_not` where none was asked.

    `row` is its input, the task's features and the history's, `columns` are their names. The
    others are as for `estimator.answer`.
    """

    seconds: float | None = None
    columns: tuple[str, ...] = ()
    row: tuple[float, ...] = ()
    version: int | None = None
    calibration: Factors | None = None
    seconds_range: tuple[float, float] | None = None
    why_not: str = "no model is in Production"


class AnswerExplanation(msgspec.Struct, frozen=True, gc=False):
    """One answer and what it is made of: `terms` sum to the logarithm of `prediction.seconds`.

    `base` are those of them that the answer starts from, before the model. `chain` are the
    sources from the first to the one that answered, `interval` is a sentence.
    """

    function: str
    tool_type: str
    prediction: Prediction
    base: tuple[Term, ...]
    terms: tuple[Term, ...]
    similar: tuple[SimilarInputs, ...]
    chain: tuple[ChainStep, ...]
    interval: str
    model: ModelAnswer


def explain(
    known: Estimator,
    basis: Basis,
    features: Sequence[float],
    context: tuple[str, ...],
    default: float,
    model: ModelAnswer,
    observations: Iterable[Observation] = (),
) -> AnswerExplanation:
    """The answer on `basis`, looked up in `known` with `features` and `context`, explained.

    `observations` are what similar inputs are looked for in.
    """
    prediction = estimator.answer(
        basis, default, model.seconds, model.version, model.calibration, model.seconds_range
    )
    level = known.explain(basis, features, context)
    base = (*level.level, *level.inputs)
    similar = level.similar
    if prediction.source == "model":
        after = mixing(model, prediction)
        # By difference: a graph has no terms of its own, and so the sum of all is the answer.
        added = math.log(prediction.seconds) - _total((*base, *after))
        terms = (*base, Term("model", "what the model adds", added), *after)
    else:
        base = terms = _without_model(known, basis, prediction, base)
        # A median or a tool type answered: what similar inputs took had no part in it.
        if not any(term.group == "inputs" for term in terms):
            similar = ()
    return AnswerExplanation(
        basis.function,
        basis.tool_type,
        prediction,
        base,
        terms,
        explanation.matched(similar, basis.function, observations),
        _chain(basis, prediction, model),
        _interval(basis, prediction, model),
        model,
    )


def mixing(model: ModelAnswer, prediction: Prediction) -> tuple[Term, ...]:
    """How far what the function took lately pulls a model's answer; none where it does not."""
    if model.seconds is None or model.seconds == prediction.seconds:
        return ()
    pulled = math.log(prediction.seconds / model.seconds)
    return (Term("mixing", "the level, by how far the model was off lately", pulled),)


def _without_model(
    known: Estimator, basis: Basis, prediction: Prediction, level: tuple[Term, ...]
) -> tuple[Term, ...]:
    """The terms of what answers where no model does."""
    log_seconds = math.log(prediction.seconds)
    if prediction.source == "heuristic":
        return (Term("level", "default of the resource", log_seconds),)
    if prediction.source == "tool_history":
        return known.explain_tool(basis.tool_type)
    # The seconds are exp of the level; the way back may differ in the last bits.
    if log_seconds == basis.snapshot[_LEVEL] or math.isclose(
        log_seconds, basis.snapshot[_LEVEL], abs_tol=1e-9
    ):
        return level
    # `History.level_seconds` answers by the median while a function is hardly known.
    return (Term("level", "median of its first executions", log_seconds),)


def _chain(basis: Basis, prediction: Prediction, model: ModelAnswer) -> tuple[ChainStep, ...]:
    """The sources in order, down to the one that answered, with the reason of each."""
    if prediction.source == "model":
        version = "" if model.version is None else f" version {model.version}"
        return (ChainStep("model", True, f"the model{version} answered"),)
    if model.seconds is None:
        why = model.why_not
    elif estimator.at_bound(basis, model.seconds, model.seconds_range):
        why = f"its answer, {model.seconds:.3g} s, is at the end of the range it was trained on"
    else:
        why = "its answer is not a positive, finite number of seconds"
    steps = [ChainStep("model", False, why)]
    for source, yes, no in _SOURCES:
        answered = source == prediction.source
        steps.append(ChainStep(source, answered, yes if answered else no))
        if answered:
            break
    return tuple(steps)


_SOURCES: tuple[tuple[Source, str, str], ...] = (
    ("function_history", "the function ran before", "the function has not been seen"),
    ("tool_history", "functions of its tool type ran", "its tool type has not been seen"),
    ("heuristic", "the default of its resource is all that is left", ""),
)


def _interval(basis: Basis, prediction: Prediction, model: ModelAnswer) -> str:
    low, high = prediction.low / prediction.seconds, prediction.high / prediction.seconds
    ends = f"×{low:.2f} to ×{high:.2f}"
    width = basis.width
    # The same condition as in `estimator.answer`, which chose the interval described here.
    if width.calibrated and prediction.source != "heuristic":
        whose = "the function, and of these inputs" if width.of_inputs else "the function"
        return (
            f"{ends} encloses 80 % of this tool type's latest outcomes when {_STATES[width.state]};"
            f" it is scaled to the usual error of {whose}, {math.expm1(width.scale):.0%}"
        )
    if prediction.source == "model" and model.calibration is not None:
        return f"{ends} encloses 80 % of the outcomes in the model's test window"
    return f"{ends} is assumed for this source until enough outcomes have been compared"


def _total(terms: Iterable[Term]) -> float:
    return math.fsum(term.log_seconds for term in terms)
