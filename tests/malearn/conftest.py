"""What the learning half's tests share: executions drawn from a declaration's own bounds."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from malearn.kernel.estimation import history
from malearn.kernel.onnx.model_metadata import ModelMetadata
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import Feature, ToolType, declared
from malearn.learning import export, matrix, regressor
from malearn.learning.families import FAMILIES
from malearn.learning.matrix import Matrix
from malearn.learning.regressor import Regressor
from malearn.lifecycle import mlflow_connection

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


@dataclass(frozen=True)
class Fitted:
    """One family fitted to one tool type, and the file it became."""

    rows: Matrix
    regressor: Regressor
    metadata: ModelMetadata
    model: bytes


@functools.cache
def fit_once(family: str, name: str) -> Fitted:
    tool_type = declared()[name]
    rows = matrix.build(tool_type, draw(tool_type, 160))
    fitted = regressor.fit(family, rows)
    low, high = fitted.log_range
    metadata = ModelMetadata(
        tool_type=name,
        family=family,
        features=tool_type.feature_names,
        history=history.FEATURES,
        run_id="a run",
        dataset_version=3,
        trained_until=rows.executions[-1].end,
        rows=len(rows),
        seconds_range=(math.exp(low), math.exp(high)),
    )
    return Fitted(rows, fitted, metadata, export.to_onnx(fitted, metadata))


@pytest.fixture(params=[f"{family}-{name}" for family in FAMILIES for name in declared()])
def fitted(request: pytest.FixtureRequest) -> Fitted:
    """Every family × every tool type, each fitted once."""
    family, _, name = request.param.partition("-")
    return fit_once(family, name)


@pytest.fixture(scope="session")
def fit() -> Callable[[str, str], Fitted]:
    """Any one of them, by the names of family and tool type."""
    return fit_once


@pytest.fixture(scope="session")
def connected(tracking_uri: str) -> Iterator[str]:
    """MLflow's client pointed at the session's server, and nowhere once the tests are done."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow_connection.connect(tracking_uri)
    yield tracking_uri
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(None)


@pytest.fixture(autouse=True)
def _still_connected(request: pytest.FixtureRequest) -> None:
    """A test in between may have pointed the client, of which a process has one, elsewhere."""
    if "connected" in request.fixturenames:
        mlflow_connection.connect(request.getfixturevalue("connected"))


@pytest.fixture(scope="module")
def own_tool_type(request: pytest.FixtureRequest) -> ToolType:
    """A tool type of this module alone, so that nobody else's experiment or model is its own.

    Always of the same name, which what is drawn of it depends on.
    """
    name = f"toy_{request.module.__name__.rpartition('test_')[2]}"
    features = (
        Feature("words", "tokens", 0, 5_000),
        Feature("pages", "pages", 0, 100),
        Feature("careful", "flag", 0, 1, default=0.0),
    )
    return ToolType(name, (name,), "cpu", features)
