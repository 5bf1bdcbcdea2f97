"""What the learning half's tests share: executions drawn from a declaration's own bounds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from malearn.records import Execution
from malearn.tool_types import Feature, ToolType

Synthetic = Callable[..., list[Execution]]


@pytest.fixture(scope="session")
def synthetic() -> Synthetic:
    """Draws executions of a tool type: the same seed, the same executions."""
    return draw


def draw(
    tool_type: ToolType, count: int, seed: int = 0, missing: float = 0.1, noise: float = 0.1
) -> list[Execution]:
    """`count` executions of three functions, overlapping in time, a share of features missing.

    A task takes its function's level times a power of how large its inputs are; every eighth
    one is known only from its own report.
    """
    source = random.Random(f"{tool_type.name} {seed}")
    drawn, clock = [], 1.7e9
    for number in range(count):
        kind = source.randrange(3)
        clock += source.expovariate(1 / 5.0)
        shares = [source.random() for _ in tool_type.features]
        values = tuple(map(_value, tool_type.features, shares))
        seen = tuple(math.nan if source.random() < missing else v for v in values)
        log = (-0.5, 1.0, 2.0)[kind] + 2.0 * sum(shares) / len(shares) + source.gauss(0, noise)
        drawn.append(
            Execution(
                f"{number:036d}-{tool_type.name}_{kind}",
                f"{tool_type.name}_{kind}",
                tool_type.name,
                clock,
                clock + math.exp(log),
                (math.nan,) * len(values) if number % 8 == 0 else seen,
                seen,
            )
        )
    return drawn


def _value(feature: Feature, share: float) -> float:
    """The number at `share` of what `feature` may be, on a logarithmic scale where it is wide."""
    high = min(feature.maximum, 1e4)
    if feature.unit == "flag":
        return float(round(share))
    if high <= 1e3:
        return feature.minimum + share * (high - feature.minimum)
    return max(feature.minimum, math.expm1(share * math.log1p(high)))


def renamed(tool_type: ToolType, name: str) -> ToolType:
    """`tool_type` under another name, which no other test's experiment or model bears."""
    return replace(tool_type, name=name, functions=(name,))
