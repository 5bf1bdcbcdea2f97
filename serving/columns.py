"""From what somebody said of a task to the numbers a model wants.

The fast twin of `records.numbers`: what is no finite number within the
declared bounds is not believed and counts as missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from malearn.tool_types import ToolType

__all__ = ["Columns"]

_LARGEST = float(np.finfo(np.float32).max)  # models compute in float32


class Columns:
    """The features of one tool type, prepared for the hot path.

    >>> from malearn.tool_types import declared
    >>> columns = Columns(declared()["llm_process"])
    >>> said = columns.believed({"text_length": 12, "token_count": -1, "output_tokens": 9})
    >>> columns.values(said)
    (12.0, nan, 1.0, 0.0)
    """

    __slots__ = ("_bounds", "_missing", "_nothing", "names", "tool_type")

    def __init__(self, tool_type: ToolType) -> None:
        self.tool_type = tool_type
        self.names = tool_type.feature_names
        self._missing = {feature.name: feature.missing for feature in tool_type.features}
        self._nothing = (math.nan,) * len(tool_type.features)
        self._bounds = [
            (f.name, max(f.minimum, -_LARGEST), min(f.maximum, _LARGEST), f.missing)
            for f in tool_type.features
        ]

    def believed(self, said: Mapping[str, object]) -> dict[str, float]:
        """The declared ones of `said`, each a number; what is not believed is missing."""
        return {
            name: float(value)
            if isinstance(value := said[name], int | float) and low <= value <= high
            else missing
            for name, low, high, missing in self._bounds
            if name in said
        }

    def values(self, believed: dict[str, float]) -> tuple[float, ...]:
        """One number per feature in declared order; all NaN where nothing was said at all.

        Defaults complete what somebody said; of a task nobody spoke of, not even they
        are known. Training reads its rows the same way.
        """
        return tuple((self._missing | believed).values()) if believed else self._nothing
