"""Recipes: the ways to come to a model that a retraining tries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from malearn.kernel.errors import TrainingError
from malearn.learning import regressor
from malearn.learning.families import FAMILIES
from malearn.learning.incumbent import Incumbent
from malearn.learning.matrix import Matrix
from malearn.learning.regressor import Regressor

__all__ = ["Recipe", "full_fit", "warm_start"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to come to a model: a family fitted from scratch, or the incumbent updated.

    `fit` may be called with any rows, as often as wanted; `parameters` are what it fits with.
    """

    name: str
    family: str
    fit: Callable[[Matrix], Regressor]
    parameters: Mapping[str, object]

    @property
    def fewest_rows(self) -> int:
        return FAMILIES[self.family].fewest_rows


def full_fit(family: str, rows: Matrix) -> Recipe:
    """A fit of `family` from scratch."""
    parameters = FAMILIES[family].parameters(regressor.monotone(rows))
    return Recipe(family, family, partial(regressor.fit, family), parameters)


def warm_start(incumbent: Incumbent, rows: Matrix) -> Recipe | None:
    """The incumbent updated with the newest of `rows`; None where it cannot be."""
    known = incumbent.regressor
    if known is None:
        return None
    try:
        regressor.update(known, rows)
    except TrainingError:  # a family that cannot be updated, or a model at its size limit
        return None
    parameters = FAMILIES[known.family].parameters(regressor.monotone(rows))
    return Recipe(
        f"{known.family} updated",
        known.family,
        partial(regressor.update, known),
        {**parameters, "updated_from": incumbent.name},
    )
