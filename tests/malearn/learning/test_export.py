"""The parity matrix: what is exported answers what its trainer answers, and says what it is."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from malearn.kernel.errors import ArtifactRefused, ExportError
from malearn.kernel.estimation import history
from malearn.kernel.onnx import onnx_model
from malearn.kernel.onnx.model_metadata import INPUT, KEY, OUTPUT, ModelMetadata
from malearn.kernel.tool_types import Feature
from malearn.learning import export, matrix
from malearn.learning.matrix import Matrix

NAN = np.float32("nan")


def holed(inputs: np.ndarray, share: float) -> np.ndarray:
    """`inputs` with a share of all numbers missing."""
    return np.where(np.random.default_rng(1).random(inputs.shape) < share, NAN, inputs)


ODD = {
    "the rows it was fitted on": lambda inputs: inputs,
    "a third of everything missing": lambda inputs: holed(inputs, 0.33),
    "nothing known": lambda inputs: np.full_like(inputs[:3], NAN),
    "a thousand times more": lambda inputs: inputs * np.float32(1000),
    "far below": lambda inputs: -np.float32(1e6) * np.abs(inputs) - 1,
    "all zero": lambda inputs: np.zeros_like(inputs[:3]),
    "absurdly large": lambda inputs: np.full_like(inputs[:3], 1e30),
    "one row": lambda inputs: inputs[:1],
}


def with_inputs(rows: Matrix, inputs: np.ndarray) -> Matrix:
    return replace(rows, inputs=np.asarray(inputs, dtype=np.float32))


@pytest.mark.parametrize("odd", ODD)
def test_the_file_answers_what_the_trainer_answers(fitted, odd: str) -> None:
    """And every answer is a positive number of seconds within what the metadata promises."""
    rows = with_inputs(fitted.rows, ODD[odd](fitted.rows.inputs))
    answers = export.seconds(fitted.model, rows)
    assert answers == pytest.approx(fitted.regressor.seconds(rows.inputs), rel=export.PARITY)
    low, high = fitted.metadata.seconds_range
    assert len(answers) == len(rows.inputs)
    assert np.all(answers >= low * (1 - 1e-5))
    assert np.all(answers <= high * (1 + 1e-5))
    assert low > 0
    assert math.isfinite(high)


def test_rows_of_another_day_are_answered_alike(fitted, synthetic) -> None:
    tool_type = fitted.rows.tool_type
    unseen = matrix.build(tool_type, synthetic(tool_type, 200, seed=9, missing=0.3))
    assert export.parity_error(fitted.model, fitted.regressor, unseen) <= export.PARITY


def test_a_batch_is_answered_as_its_rows_one_by_one(fitted) -> None:
    some = fitted.rows.rows(np.arange(5))
    alone = [export.seconds(fitted.model, some.rows(np.array([i])))[0] for i in range(5)]
    assert export.seconds(fitted.model, some) == pytest.approx(alone, rel=export.PARITY)


def test_the_metadata_comes_back_as_it_went_in(fitted) -> None:
    assert onnx_model.load(fitted.model, fitted.rows.tool_type, "it").metadata == fitted.metadata


def test_full_metadata_comes_back_too(fitted) -> None:
    name = fitted.metadata.features[0]
    recent = (("f", 1.0, 2.0, (3.0, None), ("m", "")), ("g", 1.5, 2.5, (), ()))
    metadata = replace(
        fitted.metadata,
        clips={name: (0.0, 9.5)},
        calibration={"low": 0.5, "high": 2.0},
        recent=recent,
        workflow_scores=((False, -0.5), (True, 1.25)),
    )
    file = export.to_onnx(fitted.regressor, metadata)
    assert onnx_model.load(file, fitted.rows.tool_type, "it").metadata == metadata


def test_the_graph_is_one_plain_matrix_in_and_seconds_out(fitted) -> None:
    graph = onnx.load_model_from_string(fitted.model).graph
    assert [one.name for one in graph.input] == [INPUT]
    assert [one.name for one in graph.output] == [OUTPUT]
    width = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    assert width == fitted.metadata.width == len(fitted.rows.columns)


@pytest.fixture
def linear(fit):
    """One small model, where which one does not matter."""
    return fit("linear", "llm_process")


def refusal(model: bytes, rows: Matrix) -> str:
    with pytest.raises(ArtifactRefused) as refused:
        export.seconds(model, rows)
    return str(refused.value)


def with_metadata(model: bytes, text: str | None) -> bytes:
    """`model` with other metadata: what tampering, or another program, would leave."""
    graph = onnx.load_model_from_string(model)
    del graph.metadata_props[:]
    if text is not None:
        onnx.helper.set_model_props(graph, {KEY: text})
    return graph.SerializeToString()


def edited(metadata: ModelMetadata, **changes: Any) -> str:
    values = {**json.loads(metadata.to_json()), **changes}
    return json.dumps({key: value for key, value in values.items() if value is not ...})


def test_a_model_of_another_tool_type_is_refused_by_name(fit, linear) -> None:
    assert refusal(fit("linear", "speech_process").model, linear.rows) == (
        "The llm_process model is refused: it predicts speech_process, not llm_process; "
        "it wants features nobody declares: audio_energy, audio_entropy, duration."
    )


def test_what_is_declared_no_more_is_missing_to_a_model_that_knows_more(linear) -> None:
    tool_type, inputs = linear.rows.tool_type, linear.rows.inputs
    tool_type = replace(tool_type, features=tool_type.features[1:])
    fewer = replace(linear.rows, tool_type=tool_type, inputs=inputs[:, 1:])
    unknown = linear.rows.inputs.copy()
    unknown[:, 0] = math.nan
    expected = linear.regressor.seconds(unknown)
    assert export.seconds(linear.model, fewer) == pytest.approx(expected, rel=1e-4)


def test_a_model_of_an_older_declaration_still_answers(linear) -> None:
    """A feature declared since then, even in front of the others, is not shown to it."""
    rows = linear.rows
    features = (Feature("temperature"), *rows.tool_type.features)
    wider = replace(
        rows,
        tool_type=replace(rows.tool_type, features=features),
        inputs=np.insert(rows.inputs, 0, 0.7, axis=1),
    )
    assert list(export.seconds(linear.model, wider)) == list(export.seconds(linear.model, rows))
    assert export.parity_error(linear.model, linear.regressor, wider) <= export.PARITY


@pytest.mark.parametrize("columns", [["level", "moon_phase"], [*history.FEATURES][::-1]])
def test_a_model_of_another_history_is_refused(linear, columns: list[str]) -> None:
    """Of the same columns in another order, too: it would read one number for another."""
    other = with_metadata(linear.model, edited(linear.metadata, history=columns))
    assert refusal(other, linear.rows) == (
        "The llm_process model is refused: "
        "its history features are not the ones this version computes."
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 2}, "its metadata is not of format 1"),
        ({"mood": "good"}, "its metadata cannot be read (Object contains unknown field `mood`"),
        ({"seconds_range": 5}, "its metadata cannot be read (Expected `array`"),
        ({"seconds_range": [1, "x"]}, "its metadata cannot be read (Expected `float`"),
        ({"family": ...}, "its metadata cannot be read (Object missing required field `family`"),
        (
            {"features": ...},
            "its metadata cannot be read (Object missing required field `features`",
        ),
        ({"clips": [1]}, "its metadata cannot be read (Expected `object`"),
    ],
)
def test_metadata_that_was_tampered_with_is_refused(linear, changes, reason: str) -> None:
    said = refusal(with_metadata(linear.model, edited(linear.metadata, **changes)), linear.rows)
    assert said.startswith(f"The llm_process model is refused: {reason}")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": NaN}'])
def test_metadata_that_is_no_metadata_is_refused(linear, text: str) -> None:
    assert "its metadata " in refusal(with_metadata(linear.model, text), linear.rows)


def test_a_file_without_metadata_is_refused(linear) -> None:
    assert refusal(with_metadata(linear.model, None), linear.rows) == (
        "The llm_process model is refused: it has no malearn metadata."
    )


@pytest.mark.parametrize("damaged", [b"", b"no model", slice(200)], ids=["empty", "text", "cut"])
def test_a_file_that_is_no_model_is_refused(linear, damaged: bytes | slice) -> None:
    file = linear.model[damaged] if isinstance(damaged, slice) else damaged
    assert "The llm_process model is refused: " in refusal(file, linear.rows)


def test_metadata_that_names_fewer_columns_than_the_graph_takes_is_refused(linear) -> None:
    lying = with_metadata(linear.model, edited(linear.metadata, features=["token_count"]))
    assert "its input has shape" in refusal(lying, linear.rows)


def test_the_parity_error_is_the_largest_relative_difference(fit) -> None:
    one, other = fit("linear", "llm_process"), fit("mlp", "llm_process")
    ours, theirs = (f.regressor.seconds(f.rows.inputs) for f in (one, other))
    error = export.parity_error(one.model, other.regressor, one.rows)
    assert error == pytest.approx((abs(ours - theirs) / theirs).max(), rel=1e-2)
    assert error > export.PARITY


def test_a_model_that_does_not_convert_is_an_export_error(linear) -> None:
    class Unheard:
        """No converter knows it."""

    strange = replace(linear.regressor, estimator=Unheard())
    with pytest.raises(ExportError, match=r"^The linear model of llm_process was not exported: "):
        export.to_onnx(strange, linear.metadata)


def test_metadata_with_nan_in_it_is_not_written(linear) -> None:
    with pytest.raises(ExportError, match="Out of range float values"):
        export.to_onnx(linear.regressor, replace(linear.metadata, trained_until=math.nan))
