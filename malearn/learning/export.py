"""Conversion of a `Regressor` to one self-describing ONNX file, and the proof that they agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from malearn.kernel.errors import ArtifactRefused, ExportError
from malearn.kernel.estimation import history
from malearn.kernel.onnx import onnx_model
from malearn.kernel.onnx.model_metadata import (
    INPUT,
    MOST_RECENT,
    MOST_SCORES,
    OUTPUT,
    Carried,
    ModelMetadata,
)
from malearn.kernel.workflows.workflow_calibration import Outcome
from malearn.learning import families
from malearn.learning.matrix import Matrix
from malearn.learning.regressor import Regressor

__all__ = ["PARITY", "metadata_for", "parity_error", "prove", "seconds", "to_onnx"]

#: The largest relative difference in seconds that still counts as the same answer.
PARITY = 1e-4
#: Executions per function that a model carries with it, for schedulers that saw none.
#: Enough for a function's level; a file stays small, as a scheduler loads it while it works.
_CARRIED = 32

_OPSET, _OPSET_ML = 15, 3  # the oldest that have all operators used: any onnxruntime reads them
_OPSETS = (helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _OPSET_ML))


def to_onnx(regressor: Regressor, metadata: ModelMetadata) -> bytes:
    """The model as an ONNX file with `metadata` inside. Raises `ExportError`."""
    try:
        nodes, weights = _estimator(regressor)
        graph = helper.make_graph(
            [*nodes, *_around()],
            f"malearn-{metadata.tool_type}",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, metadata.width])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, 1])],
            [*weights, *_constants(regressor)],
        )
        model = helper.make_model(graph, opset_imports=_OPSETS, producer_name="malearn")
        model.ir_version = 10  # readable by every onnxruntime since 1.18
        helper.set_model_props(model, metadata.properties)
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # whatever a family's converter raises
        reason = " ".join(str(error).split())[:300]
        problem = f"it does not convert to ONNX ({type(error).__name__}: {reason})"
        raise ExportError(metadata.tool_type, regressor.family, problem) from error
    return bytes(model.SerializeToString())


def metadata_for(
    fitted: Regressor,
    rows: Matrix,
    run_id: str,
    dataset_version: int,
    calibration: Mapping[str, float] | None = None,
    workflow_scores: Sequence[Outcome] = (),
) -> ModelMetadata:
    """The metadata of a model `fitted` on `rows`, with the last executions of each function.

    `workflow_scores` are how far whole workflows were off lately, oldest first.
    """
    tool_type = rows.tool_type
    # Of known values only: a feature that no row has gets no clip.
    clips = {}
    for i, name in enumerate(tool_type.feature_names):
        known = rows.inputs[:, i][~np.isnan(rows.inputs[:, i])]
        if len(known):
            clips[name] = (float(known.min()), float(known.max()))
    return ModelMetadata(
        tool_type=tool_type.name,
        family=fitted.family,
        features=tool_type.feature_names,
        history=history.FEATURES,
        run_id=run_id,
        dataset_version=dataset_version,
        # By end, not start: an execution is known once it has ended.
        trained_until=max(e.end for e in rows.executions),
        rows=len(rows),
        seconds_range=fitted.seconds_range,
        clips=clips,
        calibration=calibration or {},
        recent=_recent(rows),
        workflow_scores=tuple(workflow_scores)[-MOST_SCORES:],
    )


def _recent(rows: Matrix) -> tuple[Carried, ...]:
    """The last executions of each function, oldest first."""
    kept: list[Carried] = []
    counts: dict[str, int] = {}
    features = len(rows.tool_type.features)
    for i in sorted(range(len(rows)), key=lambda i: -rows.executions[i].end):
        # The newest first, whatever their function: with very many functions the oldest get none.
        if len(kept) == MOST_RECENT:
            break
        e = rows.executions[i]
        counts[e.function] = counts.get(e.function, 0) + 1
        if counts[e.function] <= _CARRIED:
            numbers = (float(v) for v in rows.inputs[i, :features])
            known = tuple(None if math.isnan(v) else v for v in numbers)
            kept.append((e.function, e.start, e.end, known, e.context))
    # A history takes executions in order of their ends.
    return tuple(reversed(kept))


def seconds(model: bytes, rows: Matrix) -> NDArray[np.float64]:
    """What an exported model answers for `rows`, in seconds, shape (rows,).

    Columns are found by name, so a model of an older declaration can be asked
    too; to it, a removed feature is missing. Raises `ArtifactRefused` when
    it does not fit the tool type.
    """
    loaded = onnx_model.load(model, rows.tool_type, f"The {rows.tool_type.name} model")
    return loaded.predict(rows.inputs_for(loaded.metadata.columns))


def parity_error(model: bytes, regressor: Regressor, rows: Matrix) -> float:
    """The largest relative difference between the file's answers and the trainer's on `rows`."""
    answers = seconds(model, rows)  # refuses by name what the trainer's model would choke on
    expected = regressor.seconds(rows.inputs_for(regressor.columns))
    return float((np.abs(answers - expected) / expected).max(initial=0.0))


def prove(fitted: Regressor, rows: Matrix) -> None:
    """Convert `fitted` and compare the answers to `rows`, which are to be real ones.

    Raises `ExportError` where it does not convert, uses what a scheduler does not run, or does
    not answer the same.
    """
    name = rows.tool_type.name
    try:
        model = to_onnx(fitted, metadata_for(fitted, rows, "", 0))
        error = parity_error(model, fitted, rows)
    except ArtifactRefused as refusal:
        raise ExportError(name, fitted.family, "; ".join(refusal.reasons)) from refusal
    # "not <=" refuses NaN as well.
    if not error <= PARITY:
        raise ExportError(
            name, fitted.family, f"its answers differ from the trainer's by up to {error:.1e}"
        )


def _estimator(
    regressor: Regressor,
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The family's own converter at work, its input renamed to ours, its output to `ratio`.

    Nodes that pass on what they are given are left out.
    """
    convert = families.get(regressor.family).to_onnx
    model = convert(regressor.estimator, len(regressor.columns), INPUT)
    graph = model.graph
    # `Identity` is none of the operators that schedulers accept (`onnx_operators`).
    same = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Identity"}
    nodes = [node for node in graph.node if node.op_type != "Identity"]

    def source(name: str) -> str:
        while name in same:
            name = same[name]
        return name

    names = {graph.input[0].name: INPUT, source(graph.output[0].name): "ratio"}
    for node in nodes:
        node.output[:] = [names.get(name, name) for name in node.output]
        node.input[:] = [names.get(source(name), source(name)) for name in node.input]
    return nodes, list(graph.initializer)


def _around() -> list[onnx.NodeProto]:
    """What surrounds the estimator, in the same float32 steps as in `Regressor`."""
    return [
        helper.make_node("Clip", ["ratio", "ratio_low", "ratio_high"], ["held_ratio"]),
        helper.make_node("Mul", ["held_ratio", "shrinkage"], ["believed"]),
        helper.make_node("Gather", [INPUT, "level_column"], ["given_level"], axis=1),
        helper.make_node("IsNaN", ["given_level"], ["unknown_level"]),
        helper.make_node("Where", ["unknown_level", "level_default", "given_level"], ["level"]),
        helper.make_node("Add", ["level", "believed"], ["total"]),
        helper.make_node("Clip", ["total", "log_low", "log_high"], ["log_seconds"]),
        helper.make_node("Exp", ["log_seconds"], [OUTPUT]),
    ]


def _constants(regressor: Regressor) -> list[onnx.TensorProto]:
    # As inputs of the graph rather than attributes: `Clip` takes its bounds so since opset 11.
    numbers = {
        "level_default": regressor.level_default,
        "shrinkage": regressor.shrinkage,
        "ratio_low": regressor.ratio_range[0],
        "ratio_high": regressor.ratio_range[1],
        "log_low": regressor.log_range[0],
        "log_high": regressor.log_range[1],
    }
    return [
        helper.make_tensor("level_column", TensorProto.INT64, [1], [regressor.level_column]),
        *(helper.make_tensor(name, TensorProto.FLOAT, [], [n]) for name, n in numbers.items()),
    ]
