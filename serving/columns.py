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

_LARGEST = float(np.finfo(np.float32).max)  # models compute in float32


class Columns:
    """The features of one tool type, prepared for the hot path.

    >>> from malearn.tool_types import declared
    >>> columns = Columns(declared()["llm_process"])
    >>> said = columns.believed({"text_length": 12, "token_count": -1, "output_tokens": 9})
    >>> columns.values(said)
    (12.0, nan, 1.0, 0.0)
    """

    __slots__ = ("_bounds", "_context", "_missing", "_nothing", "_width", "names", "tool_type")

    def __init__(self, tool_type: ToolType) -> None:
        self.tool_type = tool_type
        self.names = (*tool_type.feature_names, *tool_type.context)
        self._context, self._width = tool_type.context, len(tool_type.features)
        self._missing = {feature.name: feature.missing for feature in tool_type.features}
        self._nothing = (math.nan,) * len(tool_type.features)
        self._bounds = [
            (f.name, max(f.minimum, -_LARGEST), min(f.maximum, _LARGEST), f.missing)
            for f in tool_type.features
        ]

    def believed(self, said: Mapping[str, object]) -> Believed:
        """The declared ones of `said`; a feature that is not believed is missing."""
        numbers: Believed = {
            name: float(value)
            if isinstance(value := said[name], int | float) and low <= value <= high
            else missing
            for name, low, high, missing in self._bounds
            if name in said
        }
        if len(numbers) < len(said):
            for name in self._context:
                if name in said:
                    words = records.context_of(self.tool_type, said)
                    return numbers | {n: w for n, w in zip(self._context, words, strict=False) if w}
        return numbers

    def context(self, believed: Believed) -> tuple[str, ...]:
        """One text per name of the context, "" where unknown; empty where none is known."""
        for name in self._context:
            if name in believed:
                return tuple([believed.get(name, "") for name in self._context])
        return ()

    def values(self, believed: Believed) -> tuple[float, ...]:
        """One number per feature in declared order; all NaN where nothing was said at all.

        Defaults complete what somebody said; of a task nobody spoke of, not even they
        are known. Training reads its rows the same way.
        """
        if not believed:
            return self._nothing
        values = tuple((self._missing | believed).values())
        if len(values) == self._width:
            return values
        said_of_features = len(believed) > len(values) - self._width
        return values[: self._width] if said_of_features else self._nothing
