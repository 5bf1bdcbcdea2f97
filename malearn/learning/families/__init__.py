"""The model families: what can be fitted, each one a value in a module of its own.

A family is all that malearn needs of a library (how to fit, update, explain, convert, save and
load), so that another one is one module and one row of the table below.
"""

from __future__ import annotations

from collections.abc import Mapping

from malearn.learning.families.family import Family
from malearn.learning.families.pipelines import LINEAR, MLP, TRUSTED_TYPES
from malearn.learning.families.xgboost_trees import XGBOOST

__all__ = ["DEFAULT", "FAMILIES", "TRUSTED_TYPES", "Family"]

FAMILIES: Mapping[str, Family] = {family.name: family for family in (XGBOOST, MLP, LINEAR)}

DEFAULT = XGBOOST.name
