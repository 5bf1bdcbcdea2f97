"""Recipes: the ways to come to a model that a retraining tries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from malearn.kernel.errors import TrainingError
from malearn.learning import families, regressor
from malearn.learning.families import Parameters
from malearn.learning.incumbent import Incumbent
from malearn.learning.matrix import Matrix
from malearn.learning.regressor import Regressor

__all__ = ["Recipe", "full_fit", "tuned", "warm_start"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to come to a model: a family fitted from scratch, or the incumbent updated.

    `fit` may be called with any rows, as often as wanted; `parameters` are what it fits with,
    `given` those of them that a search found: None where they are the declared ones.
    """

    name: str
    family: str
    fit: Callable[[Matrix], Regressor]
    parameters: Mapping[str, object]
    given: Parameters | None = None

    @property
    def tuned(self) -> bool:
        """Whether it fits with what a search found."""
        return self.given is not None

    @property
    def fewest_rows(self) -> int:
        return families.get(self.family).fewest_rows


def full_fit(family: str, rows: Matrix) -> Recipe:
    """A fit of `family` from scratch, with the hyper-parameters that are declared."""
    parameters = regressor.parameters_for(family, rows)
    return Recipe(family, family, partial(regressor.fit, family), parameters)


def tuned(family: str, rows: Matrix, given: Parameters) -> Recipe:
    """A fit of `family` from scratch, with the hyper-parameters `given`."""
    parameters = regressor.parameters_for(family, rows, given)
    fit = partial(regressor.fit, family, given=given)
    return Recipe(f"{family} tuned", family, fit, parameters, given)


def warm_start(incumbent: Incumbent, rows: Matrix) -> Recipe | None:
    """The incumbent updated with the newest of `rows`; None where it cannot be."""
    known = incumbent.regressor
    if known is None:
        return None
    try:
        # Tried once here, so that a recipe that cannot work is never a candidate.
        regressor.update(known, rows)
    except TrainingError:  # a family that cannot be updated, or a model at its size limit
        return None
    parameters = regressor.parameters_for(known.family, rows)
    return Recipe(
        f"{known.family} updated",
        known.family,
        partial(regressor.update, known),
        {**parameters, "updated_from": incumbent.name},
    )
