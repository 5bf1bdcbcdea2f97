"""What the predictor's tests share: small models made by hand, and servers to be mistreated."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from malearn import DAGTaskPredictor
from malearn.kernel.estimation import history
from malearn.kernel.onnx.model_metadata import INPUT, OUTPUT, ModelMetadata
from malearn.kernel.tool_types import Feature, ToolType, ToolTypes
from tests.own_redis import OwnRedis

RUN = "19725120-6620-445b-9f40-7ceccb20bae2"
NOWHERE = "redis://127.0.0.1:1/0"  # a port nobody listens on

Toy = Callable[..., bytes]


@pytest.fixture
def tool_type() -> ToolType:
    """A tool type of this test alone: `size` and `words`, the latter 1 where nobody says."""
    features = (Feature("size", "px", 0, 1e6), Feature("words", "", 0, 1e6, default=1.0))
    name = f"toy_{uuid.uuid4().hex[:8]}"
    return ToolType(name, (name, "toy_process"), "cpu", features)


@pytest.fixture
def tool_types(tool_type: ToolType) -> ToolTypes:
    return ToolTypes([tool_type])


@pytest.fixture
def toy(tool_type: ToolType) -> Toy:
    """Builds an ONNX file that answers `bias + size + words` seconds, unknown ones left out."""

    def build(bias: float = 10.0, **changes: Any) -> bytes:
        return build_toy(changes.pop("tool_type", tool_type), bias, **changes)

    return build


def build_toy(tool_type: ToolType, bias: float = 10.0, **changes: Any) -> bytes:
    """`changes` are fields of the metadata; `metadata=None` leaves it out,
    `columns` sets the width, `flat` answers a row of numbers instead of a column."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    features = changes.get("features", tool_type.feature_names)
    width = changes.pop("columns", len(features) + len(history.FEATURES))
    described = changes.pop("metadata", True)
    padding = changes.pop("padding", 0)
    shape = (width,) if changes.pop("flat", False) else (width, 1)
    weights = np.zeros(shape, np.float32)
    weights[: len(features)] = 1.0
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.float32(bias), "bias"),
        numpy_helper.from_array(np.float32(0), "zero"),
        numpy_helper.from_array(np.zeros(padding, np.uint8), "padding"),
    ]
    nodes = [
        helper.make_node("IsNaN", [INPUT], ["unknown"]),
        helper.make_node("Where", ["unknown", "zero", INPUT], ["known"]),
        helper.make_node("MatMul", ["known", "weights"], ["weighed"]),
        helper.make_node("Add", ["weighed", "bias"], [OUTPUT]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, *shape[1:]])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if described:
        values: dict[str, Any] = {
            "tool_type": tool_type.name,
            "family": "toy",
            "features": features,
            "history": history.FEATURES,
            "run_id": "run",
            "dataset_version": 1,
            "trained_until": 0.0,
            "rows": 100,
            "seconds_range": (0.1, 1e4),
        }
        helper.set_model_props(model, ModelMetadata(**(values | changes)).properties)
    return bytes(model.SerializeToString())


@pytest.fixture
def publish(tracking_uri: str, tool_type: ToolType, tmp_path: Path) -> Callable[..., int]:
    """Registers an ONNX file as the next version of `tool_type`, and lets the alias name it."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri)

    def register(
        artifact: bytes,
        alias: str | None = "Production",
        tags: Mapping[str, str] | None = None,
        named: str = tool_type.registered_model,
    ) -> int:
        run = client.create_run("0")
        file = tmp_path / "model.onnx"
        file.write_bytes(artifact)
        client.log_artifact(run.info.run_id, str(file), "onnx")
        name = named
        with contextlib.suppress(MlflowException):  # it is there from the version before
            client.create_registered_model(name)
        source = f"{run.info.artifact_uri}/onnx"
        version = int(client.create_model_version(name, source, run.info.run_id, tags).version)
        if alias:
            client.set_registered_model_alias(name, alias, str(version))
        return version

    return register


@pytest.fixture
def predictor(tool_types: ToolTypes, tmp_path: Path) -> Iterator[Callable[..., DAGTaskPredictor]]:
    """Builds predictors that are closed after the test; without servers unless some are given."""
    made: list[DAGTaskPredictor] = []

    def build(redis_url: str = NOWHERE, tracking_uri: str | None = None, **options: Any) -> Any:
        options = {"cache_dir": tmp_path / "cache", "tool_types": tool_types} | options
        made.append(DAGTaskPredictor(redis_url, tracking_uri, **options))
        return made[-1]

    yield build
    for predictor in made:
        predictor.close()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    server = OwnRedis(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., OwnRedis]]:
    """Starts servers with options of their own, which end with the test."""
    servers: list[OwnRedis] = []

    def start(*options: str) -> OwnRedis:
        servers.append(OwnRedis(tmp_path, *options))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def record() -> Callable[..., str]:
    """Writes what a worker writes: a record that ran `seconds` and said `successors`."""

    def write(
        seconds: float = 5.0,
        successors: Mapping[str, object] | None = None,
        features: Mapping[str, object] | None = None,
        end: float = 1_754_000_100.0,
        **more: object,
    ) -> str:
        return json.dumps(
            {
                "start_time": end - seconds,
                "end_time": end,
                "status": "success",
                "dag_id": "query-1",
                "curr_task_feat": features,
                "succ_task_feat": successors or {},
                "result": "payload",
                **more,
            }
        )

    return write


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits until `condition` holds."""

    def wait(condition: Callable[[], object], within: float = 300.0) -> None:
        until = time.monotonic() + within
        while not condition():
            assert time.monotonic() < until, "it never came true"
            time.sleep(0.01)

    return wait
