"""What each input adds to a model's answer: by the family's own method, else by Shapley values.

A family whose library computes it exactly has `contributions`; for any other, `shap` estimates
Shapley values over permutations of the inputs, against a background of real rows. Either way a
row sums to what the estimator predicts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from malearn.learning import families
from malearn.learning.regressor import Regressor

__all__ = ["Contributions", "of_regressor"]

#: Rows of a background, and passes over the inputs of a row in either direction.
_BACKGROUND, _PASSES = 40, 2
_SEED = 7
_SHAP = "Shapley values (shap, permutation explainer)"


@dataclass(frozen=True, slots=True)
class Contributions:
    """What inputs add, in log-seconds: `values` of shape (rows, columns), `rest` of shape (rows,).

    `rest` is what the model answers whatever the inputs; `method` names how they were found.
    """

    values: NDArray[np.float64]
    rest: NDArray[np.float64]
    method: str


def of_regressor(
    fitted: Regressor,
    inputs: NDArray[np.float32],
    background: Callable[[], NDArray[np.float32]],
) -> Contributions:
    """What each of `inputs`, shape (rows, columns), adds to what `fitted` predicts.

    `background` gives real inputs; it is called for families without a method of their own.
    """
    family = families.get(fitted.family)
    if family.contributions is None:
        return _shapley_values(fitted, inputs, background())
    found = np.asarray(family.contributions(fitted.estimator, inputs), dtype=np.float64)
    # The last column is what is left for no input: see `Family.contributions`.
    return Contributions(found[:, :-1], found[:, -1], family.contributions_by)


def _shapley_values(
    fitted: Regressor, inputs: NDArray[np.float32], background: NDArray[np.float32]
) -> Contributions:
    shap = _shap()
    known = background if len(background) else inputs
    # Evenly from the whole background, which is in order of time: old conditions count as well.
    chosen = known[np.linspace(0, len(known) - 1, min(_BACKGROUND, len(known))).astype(int)]

    def predict(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        answers = fitted.estimator.predict(np.asarray(rows, dtype=np.float32))
        return np.asarray(answers, dtype=np.float64).reshape(-1)

    masker = shap.maskers.Independent(chosen, max_samples=_BACKGROUND)
    explainer = shap.PermutationExplainer(predict, masker, seed=_SEED)
    # shap takes 2 · inputs + 1 evaluations for each pass there and back.
    evaluations = 2 * _PASSES * inputs.shape[1] + 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy's, about its own use by shap
        found = explainer(inputs, max_evals=evaluations, silent=True)
    rest = np.broadcast_to(np.asarray(found.base_values, dtype=np.float64), (len(inputs),))
    return Contributions(np.asarray(found.values, dtype=np.float64), rest, _SHAP)


def _shap() -> Any:
    """The library, without its compiler, which takes longer than what it compiles saves."""
    import numba

    config: Any = numba.config
    compiles = config.DISABLE_JIT
    config.DISABLE_JIT = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports what its dependencies deprecate
            import shap
    finally:
        config.DISABLE_JIT = compiles
    return shap
