"""From what somebody said of a task to the numbers a model wants.

The fast twin of `records.numbers`: what is no finite number within the
declared bounds is not believed and counts as missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from malearn import records
from malearn.tool_types import ToolType

__all__ = ["Believed", "Columns"]

#: By name: features as numbers and, beside them, words of context.
Believed = dict[str, Any]

_NUMBERS = (int, float)
_LARGEST = float(np.finfo(np.float32).max)  # models compute in float32


class Columns:
    """The features of one tool type, prepared for the hot path.

    >>> from malearn.tool_types import declared
    >>> columns = Columns(declared()["llm_process"])
    >>> columns.values({"text_length": 12, "token_count": -1, "output_tokens": 9})
    (12.0, nan, 1.0, 0.0)

    `nothing` are the values of a task of which nobody said anything.
    """

    __slots__ = ("_bounds", "_features", "names", "nothing", "tool_type")

    def __init__(self, tool_type: ToolType) -> None:
        self.tool_type = tool_type
        self.names = (*tool_type.feature_names, *tool_type.context)
        self._features = frozenset(tool_type.feature_names)
        self.nothing = (math.nan,) * len(tool_type.features)
        self._bounds = [
            (f.name, max(f.minimum, -_LARGEST), min(f.maximum, _LARGEST), f.missing)
            for f in tool_type.features
        ]

    def believed(self, said: Mapping[str, object]) -> Believed:
        """The declared ones of `said`; a feature that is not believed is missing."""
        numbers: Believed = {
            name: float(value)
            if isinstance(value := said[name], _NUMBERS) and low <= value <= high
            else missing
            for name, low, high, missing in self._bounds
            if name in said
        }
        if len(numbers) < len(said) and (words := self.context(said)):
            numbers |= {n: w for n, w in zip(self.tool_type.context, words, strict=True) if w}
        return numbers

    def context(self, said: Mapping[str, object]) -> tuple[str, ...]:
        """One text per name of the context, "" where unknown; empty where none is known."""
        return records.context_of(self.tool_type, said)

    def values(self, said: Mapping[str, object]) -> tuple[float, ...]:
        """One number per feature in declared order; `nothing` where none is so much as named.

        Defaults complete what somebody said; of a task nobody spoke of, not even they
        are known. Training reads its rows the same way.
        """
        if not said or said.keys().isdisjoint(self._features):
            return self.nothing
        get = said.get
        return tuple(
            [
                float(value)
                if isinstance(value := get(name), _NUMBERS) and low <= value <= high
                else missing
                for name, low, high, missing in self._bounds
            ]
        )
