"""Models that are trained during a replay, with what has ended so far.

`AsInProduction`: rows that the outlier fence keeps out teach no model; families are compared on a
validation window; the gate decides on the newest rows, against baselines and incumbent, whether a
candidate serves. Unlike in production nothing is exported or recorded, and families are compared
again only once the rows have grown by half, the one chosen last being refitted in between.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from malearn.data import outliers
from malearn.kernel.errors import TrainingError
from malearn.kernel.tool_types import ToolTypes
from malearn.learning import families, gate, regressor, selection
from malearn.learning.incumbent import Incumbent
from malearn.learning.matrix import Matrix
from malearn.learning.regressor import Regressor
from malearn.learning.selection import Selection

__all__ = ["AlwaysRefitted", "AsInProduction", "Training"]

_GROWN = 1.5
_LATELY = 5_000  # rows that train at most, the newest


class Training(Protocol):
    """Trains models on what has ended."""

    serving: dict[str, Regressor]  # by tool type

    def retrain(self, tool: str, rows: Matrix) -> None:
        """Train on `rows` of `tool`, in order of their start."""


class AlwaysRefitted:
    """Models of one family, each of which serves as soon as it is fitted."""

    def __init__(self, family: str) -> None:
        self.serving: dict[str, Regressor] = {}
        self._family = family

    def retrain(self, tool: str, rows: Matrix) -> None:
        """Fit a model to `rows` of `tool`, if there are enough."""
        if len(rows) >= families.get(self._family).fewest_rows:
            self.serving[tool] = regressor.fit(self._family, rows)


class AsInProduction:
    """The models that serve, by tool type, as of the last `retrain`.

    `promoted` and `refused` count candidates by tool type.
    """

    def __init__(self, tool_types: ToolTypes) -> None:
        self.serving: dict[str, Regressor] = {}
        self.promoted: dict[str, int] = dict.fromkeys(tool_types, 0)
        self.refused: dict[str, int] = dict.fromkeys(tool_types, 0)
        self._tool_types = tool_types
        self._chosen: dict[str, tuple[tuple[str, ...], int]] = {}  # families, rows they had
        self._until: dict[str, float] = {}
        self._tried: dict[str, int] = {}

    def retrain(self, tool: str, rows: Matrix) -> None:
        """Train on `rows` of `tool`, in order of their start, and promote what the gate lets."""
        # With fewer new rows there is nothing new to test on: the gate would say the same.
        if len(rows) - self._tried.get(tool, 0) < gate.FEWEST_ROWS:
            return
        self._tried[tool] = len(rows)
        # Fenced for training only: outliers still count where predictions are scored.
        kept, _ = outliers.fence(rows.executions, {})
        believed = {e.task_id for e in kept}
        places = [i for i, e in enumerate(rows.executions) if e.task_id in believed]
        try:
            found = selection.select(
                rows.rows(np.array(places[-_LATELY:], dtype=np.intp)),
                self._tool_types,
                families=self._families_for(tool, len(rows)),
                incumbent=self._incumbent(tool),
                learning_curve=False,
                # Nothing is exported in a replay, and conversion would be most of its time.
                prove=lambda fitted, rows: None,
            )
        except TrainingError:  # no family can be fitted to these rows
            return
        if not isinstance(found, Selection):
            return
        if len(found.candidates) > 1 or tool not in self._chosen:
            self._chosen[tool] = (found.chosen.recipe.family,), len(rows)
        if not found.decision.promote:
            self.refused[tool] += 1
            return
        self.promoted[tool] += 1
        self.serving[tool] = found.fitted
        self._until[tool] = max(e.end for e in found.rows.executions)

    def _families_for(self, tool: str, rows: int) -> tuple[str, ...]:
        chosen, had = self._chosen.get(tool, ((), 0))
        return chosen if rows < _GROWN * had else families.tried(self._tool_types[tool])

    def _incumbent(self, tool: str) -> Incumbent | None:
        model = self.serving.get(tool)
        if model is None:
            return None
        return Incumbent(self.promoted[tool], None, self._until[tool], model)
