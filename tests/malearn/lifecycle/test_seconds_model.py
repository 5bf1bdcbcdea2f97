"""A version as people call it: columns by name, what is missing left out, history inside."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from malearn.kernel.estimation import estimator
from malearn.kernel.estimation.estimator import Estimator
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.onnx import onnx_model
from malearn.learning import export
from malearn.lifecycle import logged_models
from tests.malearn.conftest import Fitted

TOOL = "llm_process"


@pytest.fixture(scope="module")
def uri(connected: str, fit) -> str:
    small: Fitted = fit("linear", TOOL)
    rows, metadata = small.rows, small.metadata
    told = export.metadata_for(small.regressor, rows, metadata.run_id, 3)
    mlflow.set_experiment("seconds models")
    with mlflow.start_run():
        return logged_models.log_onnx(export.to_onnx(small.regressor, told), rows)


@pytest.fixture(scope="module")
def folder(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(place)))


@pytest.fixture(scope="module")
def model(folder: Path):
    return mlflow.pyfunc.load_model(str(folder))


def test_its_answers_are_those_of_the_fallback_chain(model, folder: Path, fit) -> None:
    """The same look-up, the same file and the same chain as a scheduler's."""
    tool_type = fit("linear", TOOL).rows.tool_type
    loaded = onnx_model.load((folder / "model.onnx").read_bytes(), tool_type, "it")
    known = Estimator(
        Observation(
            function, TOOL, start, end, tuple(math.nan if v is None else v for v in values), context
        )
        for function, start, end, values, context in loaded.metadata.recent
    )
    answers = model.predict(model.input_example)
    for row, answer in zip(
        model.input_example.to_dict("records"), answers.to_dict("records"), strict=True
    ):
        values = tuple(
            feature.missing if math.isnan(row[feature.name]) else row[feature.name]
            for feature in tool_type.features
        )
        basis = known.look_up(row["function"], TOOL, values)
        seconds = loaded.seconds(loaded.row(values, basis.snapshot))
        expected = estimator.answer(basis, 15.0, seconds)
        assert answer["seconds"] == pytest.approx(expected.seconds, rel=1e-6)
        assert answer["low"] < answer["seconds"] < answer["high"]
        assert answer["source"] == "model"


def test_a_column_that_is_left_out_is_missing(model) -> None:
    function = "llm_process_1"
    names = [name for name in model.input_example.columns if name != "function"]
    nothing = pd.DataFrame({"function": [function], **dict.fromkeys(names, math.nan)})
    alone = model.predict(pd.DataFrame({"function": [function]}))
    assert alone.equals(model.predict(nothing.astype(dict.fromkeys(names, float))))
    given = model.predict(pd.DataFrame({"function": [function], "text_length": [4000.0]}))
    assert given["seconds"][0] != alone["seconds"][0]


def test_whole_numbers_other_columns_and_an_index_are_taken_as_they_are(model) -> None:
    frame = pd.DataFrame(
        {"function": ["llm_process_0"], "text_length": np.array([900], np.int32), "note": ["x"]},
        index=[42],
    )
    answers = model.predict(frame)
    assert answers.index.tolist() == [42]
    same = pd.DataFrame({"function": ["llm_process_0"], "text_length": [900.0]})
    assert answers["seconds"].tolist() == model.predict(same)["seconds"].tolist()


def test_with_a_time_only_what_had_ended_by_then_is_known(model, folder: Path, fit) -> None:
    rows = fit("linear", TOOL).rows
    function = rows.executions[-1].function
    frame = pd.DataFrame(
        {"function": [function] * 3, "time": [0.0, max(e.end for e in rows.executions), math.nan]}
    )
    first, last, now = model.predict(frame)["seconds"]
    # A matrix product of one row and of three may differ in the last bit of a float32.
    assert last == pytest.approx(now, rel=1e-6)
    assert first != pytest.approx(now, rel=1e-4)
    assert model.predict(frame[:1])["seconds"][0] == pytest.approx(first, rel=1e-6)


def test_an_unknown_function_is_answered_too(model) -> None:
    answers = model.predict(pd.DataFrame({"function": ["never seen", "llm_process_0"]}))
    assert np.isfinite(answers["seconds"]).all()


def test_the_signature_names_the_columns_and_wants_a_function(model) -> None:
    inputs = model.metadata.signature.inputs
    assert inputs.required_input_names() == ["function"]
    assert {"text_length", "token_count", "model", "time"} <= set(inputs.optional_input_names())
    with pytest.raises(mlflow.exceptions.MlflowException, match="function"):
        model.predict(pd.DataFrame({"text_length": [1.0]}))


def test_it_holds_no_pickle_and_no_code(folder: Path) -> None:
    described = yaml.safe_load((folder / "MLmodel").read_text("utf-8"))
    flavours = described["flavors"]
    assert flavours["python_function"]["loader_module"] == "malearn.lifecycle.seconds_model"
    assert "code" not in flavours["python_function"]
    files = {file.name for file in folder.rglob("*") if file.is_file()}
    assert not {name for name in files if name.endswith((".pkl", ".pickle", ".py"))}
    assert {"model.onnx", "tool_type.toml"} <= files


@pytest.mark.filterwarnings("ignore")  # MLflow calls pandas in ways that pandas deprecates
def test_mlflow_evaluates_it(model, folder: Path, fit) -> None:
    rows = fit("linear", TOOL).rows
    newest = rows.executions[-40:]
    frame = pd.DataFrame(
        {
            "function": [e.function for e in newest],
            "time": [e.start for e in newest],
            "actual": [e.seconds for e in newest],
        }
    )
    with mlflow.start_run():
        done = mlflow.models.evaluate(
            str(folder),
            frame,
            targets="actual",
            predictions="seconds",
            model_type="regressor",
            evaluators=["default"],
            evaluator_config={"default": {"log_model_explainability": False}},
        )
    answers = model.predict(frame.drop(columns="actual"))["seconds"]
    expected = float(np.abs(answers - frame["actual"]).mean())
    assert done.metrics["mean_absolute_error"] == pytest.approx(expected)


def test_mlflow_serves_it(model) -> None:
    """What `mlflow models serve` starts, without a port."""
    import httpx
    from mlflow.pyfunc.scoring_server import init

    body = {"dataframe_records": [{"function": "llm_process_0", "text_length": 900.0}]}

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=init(model))
        async with httpx.AsyncClient(transport=transport, base_url="http://served") as client:
            return await client.post("/invocations", json=body)

    answer = asyncio.run(ask())
    assert answer.status_code == 200, answer.text
    (served,) = answer.json()["predictions"]
    frame = pd.DataFrame({"function": ["llm_process_0"], "text_length": [900.0]})
    assert served["seconds"] == pytest.approx(model.predict(frame)["seconds"][0])
