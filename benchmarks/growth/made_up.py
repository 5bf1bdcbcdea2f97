"""The tool type, the declarations and the executions that growth is measured with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import numpy as np

from malearn.data.dataset import Dataset
from malearn.data.rows import Rows
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import Feature, ToolType, ToolTypes

__all__ = ["FUNCTIONS", "TOOL", "TYPES", "declaration", "executions", "fill", "many_types"]

#: Its window is a fifth of the default, so that both tables are longer than it.
TOOL = ToolType(
    "growing", ("growing",), "cpu", (Feature("words"), Feature("pages")), train_rows=20_000
)
TYPES = ToolTypes([TOOL])
FUNCTIONS = 200
_BATCH = 50_000


def many_types(count: int) -> ToolTypes:
    """So many tool types of one feature each."""
    one = (Feature("size"),)
    return ToolTypes(ToolType(f"t{n}", (f"tool{n}_step",), "cpu", one) for n in range(count))


def declaration(file: Path, count: int) -> Path:
    """The same as a file."""
    parts = (
        f'[t{n}]\nfunctions = ["tool{n}_step"]\nresource = "cpu"\n[t{n}.features]\nsize = {{}}\n'
        for n in range(count)
    )
    file.write_text("".join(parts), encoding="utf-8")
    return file


def executions(count: int, types: int, first: int = 0) -> Sequence[Execution]:
    """`count` executions, in turn of the first `types` of `many_types`."""
    draw = np.random.default_rng(first)
    found = []
    for n in range(first, first + count):
        tool, size = n % types, float(draw.uniform(1.0, 100.0))
        start, name = 1.6e9 + n, f"tool{tool}_step"
        end = start + 1.0 + size / 10.0
        found.append(
            Execution(f"{UUID(int=n)}-{name}", name, f"t{tool}", start, end, (size,), (size,))
        )
    return found


def fill(dataset: Dataset, size: int) -> None:
    """Append executions of `TOOL` until there are `size`."""
    for first in range(dataset.rows, size, _BATCH):
        count = min(_BATCH, size - first)
        draw = np.random.default_rng(first)
        kinds = draw.integers(FUNCTIONS, size=count).tolist()
        inputs = draw.uniform(1.0, 100.0, (count, 2))
        start = 1.6e9 + first + np.arange(count, dtype=np.float64)
        seconds = (1.0 + np.array(kinds) % 9) * inputs[:, 0] ** 0.3
        names = [f"growing{kind}" for kind in kinds]
        ids = [f"{UUID(int=first + n)}-{name}" for n, name in enumerate(names)]
        nothing = [()] * count
        predicted = np.full(count, np.nan)
        dataset.append(
            Rows(TOOL, ids, names, [""] * count, start, start + seconds, inputs, inputs, predicted,
                 [None] * count, list(nothing), list(nothing), [None] * count, list(nothing),
                 [""] * count)
        )  # fmt: skip
