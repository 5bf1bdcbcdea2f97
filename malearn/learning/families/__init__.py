"""The model families: what can be fitted, each one a value in a module of its own.

A family is all that malearn needs of a library (how to fit, search, update, explain, convert,
save and load). Shipped ones are rows of the table below; a user's own come from the `families`
of `malearn.toml`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from malearn.kernel import tool_types
from malearn.kernel.errors import DeclarationError, InputError
from malearn.kernel.tool_types import ToolType
from malearn.learning.families import own
from malearn.learning.families.catboost_trees import CATBOOST
from malearn.learning.families.family import SEED, Choice, Family, Parameters, Range
from malearn.learning.families.lightgbm_trees import LIGHTGBM
from malearn.learning.families.pipelines import LINEAR, MLP, TRUSTED_TYPES
from malearn.learning.families.xgboost_trees import XGBOOST

__all__ = [
    "DEFAULT",
    "FAMILIES",
    "SEED",
    "SHIPPED",
    "TRUSTED_TYPES",
    "USUAL",
    "Choice",
    "Family",
    "Parameters",
    "Range",
    "check",
    "get",
    "known",
    "tried",
]

SHIPPED: Mapping[str, Family] = {
    family.name: family for family in (XGBOOST, MLP, LINEAR, LIGHTGBM, CATBOOST)
}
DEFAULT = XGBOOST.name
#: Tried in every training unless a declaration says otherwise.
USUAL = (XGBOOST.name, MLP.name, LINEAR.name)

#: Those of the shipped ones whose libraries are installed.
FAMILIES: Mapping[str, Family] = {
    name: family
    for name, family in SHIPPED.items()
    # Looked for, not imported: a library of boosted trees takes seconds to load.
    if name in USUAL or importlib.util.find_spec(family.package) is not None
}


def known() -> dict[str, Family]:
    """All families that can be fitted here: the shipped ones, and those of `malearn.toml`.

    Raises `DeclarationError` for a family of the declaration that cannot be loaded.
    """
    declared = tool_types.declared()
    found = dict(FAMILIES)
    for reference in declared.families:
        if reference in SHIPPED:
            _installed(reference)
            continue
        family = own.load(reference, declared.file)
        if family.name in SHIPPED:
            raise DeclarationError(
                declared.file, f"family '{reference}' is called {family.name}, as a shipped one is"
            )
        # The same object may be named twice; two families of one name would share their versions.
        if found.setdefault(family.name, family) is not family:
            raise DeclarationError(
                declared.file, f"family '{reference}' is called {family.name}, as another one is"
            )
    return found


def get(name: str) -> Family:
    """The family of that name. Raises `InputError` where there is none, or it is not installed."""
    # Shipped ones first, so that nearly all calls read no declaration.
    family = FAMILIES.get(name)
    if family is None:
        families = known()
        if name in SHIPPED:
            return _installed(name)
        if (family := families.get(name)) is None:
            raise InputError(name, f"not a model family; choose from {', '.join(families)}")
    return family


def tried(tool_type: ToolType) -> tuple[str, ...]:
    """The families that a training of `tool_type` tries, by name.

    What its declaration names; else the usual ones and those that the declaration adds.
    """
    if tool_type.families:
        return tuple(get(name).name for name in tool_type.families)
    declared = tool_types.declared()
    if not declared.families:
        return USUAL
    added = [name for name in known() if name not in FAMILIES or name in declared.families]
    return tuple(dict.fromkeys((*USUAL, *added)))


def check(tool_type: ToolType) -> None:
    """Raise `DeclarationError` or `InputError` for what no family takes of its declaration."""
    tried(tool_type)
    for name, given in tool_type.hyperparameters.items():
        if (problem := get(name).problem(given)) is not None:
            raise DeclarationError(f"[{tool_type.name}.hyperparameters.{name}]", problem)


def _installed(name: str) -> Family:
    if name not in FAMILIES:
        raise InputError(name, f"is not installed; pip install 'malearn[{name}]'")
    return FAMILIES[name]
