"""A registered version as an MLflow model that people call: named columns in, seconds out.

    model = mlflow.pyfunc.load_model("models:/malearn-llm_process@Production")
    model.predict(DataFrame({"function": ["task2_llm_process_qwen"], "text_length": [1200.0]}))

The history that a model reads beside the features it takes from the executions that its own file
carries. MLflow loads this module by its name (`loader_module`) and hands it the folder: an ONNX
file and a declaration in TOML. There is no pickle, and no code, among them.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from malearn.kernel import causality, features, tool_types
from malearn.kernel.errors import ArtifactRefused
from malearn.kernel.estimation import estimator, intervals
from malearn.kernel.estimation.estimator import Basis, Estimator
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.features import FeatureSchema, FeatureVector
from malearn.kernel.onnx import onnx_model
from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.kernel.prediction import Prediction
from malearn.kernel.tool_types import ToolType, default_seconds

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FUNCTION", "TIME", "SecondsModel", "save_model", "signature"]

#: Columns beside features and context: the task's function, and when it starts, in seconds since
#: the epoch; without a time it starts once all that the model knows had ended.
FUNCTION, TIME = "function", "time"

_MODEL_FILE, _DECLARATION_FILE = "model.onnx", "tool_type.toml"


class SecondsModel:
    """A model of `tool_type` with the history that its file carries."""

    def __init__(self, model: OnnxModel, tool_type: ToolType) -> None:
        self._model, self._tool_type = model, tool_type
        self._schema = FeatureSchema(tool_type)
        self._default = default_seconds(None, tool_type)
        self._calibration = intervals.calibrated(model.metadata.calibration)
        # By end, since an execution is known once it has ended.
        self._recent = sorted(_carried(model, tool_type), key=lambda o: o.end)

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> Any:
        """One row per row of `model_input`, whose columns the model's signature names.

        `seconds`, `low` and `high`, which enclose the outcome in about 80 % of cases, and
        `source`, which shows whether the model answered.
        """
        import pandas as pd

        rows = [self._row(record) for record in model_input.to_dict("records")]
        bases: list[Basis | None] = [None] * len(rows)
        for number, known in self._moments([time for _, _, time in rows]):
            function, vector, _ = rows[number]
            bases[number] = known.look_up(
                function, self._tool_type.name, vector.values, vector.context
            )
        found = [basis for basis in bases if basis is not None]
        answers: list[Prediction] = []
        if found:
            seconds = self._model.many(
                np.array([vector.values for _, vector, _ in rows], np.float64),
                np.array([basis.snapshot for basis in found]),
            )
            answers = [self._answer(basis, one) for basis, one in zip(found, seconds, strict=True)]
        return pd.DataFrame(
            {
                "seconds": [a.seconds for a in answers],
                "low": [a.low for a in answers],
                "high": [a.high for a in answers],
                "source": [a.source for a in answers],
            },
            index=model_input.index,
        )

    def _row(self, record: Mapping[Any, Any]) -> tuple[str, FeatureVector, float]:
        """Function, features and start of one row; what is NaN or None is missing."""
        given = {
            str(name): value
            for name, value in record.items()
            if value is not None and value == value
        }
        time = features.finite(given.get(TIME))
        function = str(given.get(FUNCTION, ""))
        # No time stands for "after all that the model knows".
        return function, self._schema.vectorize(given), math.inf if time is None else time

    def _moments(self, times: Sequence[float]) -> Iterator[tuple[int, Estimator]]:
        """The numbers of the rows in order of time, each with what was known then."""
        known, ended = Estimator(), 0
        # One estimator that only goes forward, instead of a replay for each row.
        for number in sorted(range(len(times)), key=times.__getitem__):
            while ended < len(self._recent) and causality.was_known(
                self._recent[ended].end, times[number]
            ):
                known.observe(self._recent[ended])
                ended += 1
            yield number, known

    def _answer(self, basis: Basis, seconds: float) -> Prediction:
        bounds = self._model.metadata.seconds_range
        return estimator.answer(basis, self._default, seconds, None, self._calibration, bounds)


def signature(tool_type: ToolType) -> Any:
    """The columns of the input, of which `function` alone is required, and of the output."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    inputs: list[ColSpec | TensorSpec] = [
        ColSpec(DataType.string, FUNCTION),
        *(ColSpec(DataType.double, name, required=False) for name in tool_type.feature_names),
        *(ColSpec(DataType.string, name, required=False) for name in tool_type.context),
        ColSpec(DataType.double, TIME, required=False),
    ]
    outputs: list[ColSpec | TensorSpec] = [
        *(ColSpec(DataType.double, name) for name in ("seconds", "low", "high")),
        ColSpec(DataType.string, "source"),
    ]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def save_model(
    path: str,
    mlflow_model: Any,
    *,
    model: bytes,
    tool_type: ToolType,
    input_example: Any,
    pip_requirements: Sequence[str],
    **_: object,
) -> None:
    """Write the model into the folder `path`, as MLflow asks a flavour of models to.

    It stays an ONNX model for `mlflow.onnx`, and for schedulers; `mlflow.pyfunc` loads it here.
    """
    import mlflow
    import onnx

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Operation with range")  # MLflow, of its own
        mlflow.onnx.save_model(
            onnx.load_model_from_string(model),
            path,
            mlflow_model=mlflow_model,
            signature=signature(tool_type),
            input_example=input_example,
            pip_requirements=list(pip_requirements),
            onnx_execution_providers=[
                "CPUExecutionProvider"
            ],  # else it warns where there is no GPU
            save_as_external_data=False,
        )
    Path(path, _DECLARATION_FILE).write_text(_declaration(tool_type), encoding="utf-8")
    mlflow.pyfunc.add_to_model(
        mlflow_model, __name__, conda_env="conda.yaml", python_env="python_env.yaml"
    )
    mlflow_model.save(str(Path(path, "MLmodel")))


def _load_pyfunc(path: str) -> SecondsModel:
    """What MLflow calls with the model's folder. Raises `ArtifactRefused`."""
    folder = Path(path)
    try:
        declaration = (folder / _DECLARATION_FILE).read_text(encoding="utf-8")
        file = (folder / _MODEL_FILE).read_bytes()
    except OSError as error:
        raise ArtifactRefused(path, [f"it lacks {error.filename}"]) from error
    # Its own declaration: that of this machine may be another, or missing.
    (tool_type,) = tool_types.parse(declaration, _DECLARATION_FILE)
    return SecondsModel(onnx_model.load(file, tool_type, path), tool_type)


def _carried(model: OnnxModel, tool_type: ToolType) -> Iterator[Observation]:
    """The executions in the model's file, their features in declared order."""
    for function, start, end, numbers, context in model.metadata.recent:
        if 0.0 < end - start < math.inf:
            given = dict(zip(model.metadata.features, numbers, strict=False))
            known = (given.get(name) for name in tool_type.feature_names)
            values = tuple(math.nan if value is None else value for value in known)
            yield Observation(function, tool_type.name, start, end, values, context)


def _declaration(tool_type: ToolType) -> str:
    """`tool_type` as TOML, as much of it as a prediction needs."""
    lines = [
        f"[{tool_type.name}]",
        f"functions = {json.dumps(list(tool_type.functions))}",
        f"resource = {json.dumps(tool_type.resource)}",
        f"context = {json.dumps(list(tool_type.context))}",
        f"[{tool_type.name}.default_seconds]",
        *(f"{name} = {seconds!r}" for name, seconds in tool_type.default_seconds.items()),
        f"[{tool_type.name}.features]",
    ]
    for feature in tool_type.features:
        bounds = {"min": feature.minimum, "max": feature.maximum, "default": feature.default}
        given = [
            f"{key} = {float(value)!r}"
            for key, value in bounds.items()
            if value is not None and math.isfinite(value)
        ]
        lines.append(
            f"{feature.name} = {{ {', '.join([f'unit = {json.dumps(feature.unit)}', *given])} }}"
        )
    return "\n".join(lines) + "\n"
