"""An exported model, loaded: the one place that runs onnxruntime.

The predictor, `ExecTimePredictor`, training's parity proof, promotion and
monitoring all load their ONNX files here, so what one of them refuses none of
them accepts. Loading is parse, check, act: nothing is run before the metadata
fits the tool type, and nothing is returned before a probe was answered sensibly.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from malearn.kernel import late_imports
from malearn.kernel.errors import ArtifactRefused
from malearn.kernel.onnx import onnx_file
from malearn.kernel.onnx.model_metadata import INPUT, OUTPUT, ModelMetadata
from malearn.kernel.tool_types import ToolType

__all__ = ["DIGEST_TAG", "OnnxModel", "columns", "digest", "load", "runtime", "session"]

#: The tag of a registered version that holds the digest of its ONNX file.
DIGEST_TAG = "malearn.onnx_sha256"

_OUTPUTS = [OUTPUT]
_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A checked model of one tool type. Shared by threads; never changed, only replaced.

    `columns` are the positions, among the declared features, of those the model reads, in
    its order; the position after the last stands for a feature that is no longer declared.
    None where it reads all of them as declared.
    """

    tool_type: str
    metadata: ModelMetadata
    session: Any
    columns: tuple[int, ...] | None
    #: `bound`: this thread's `_BoundSession`. onnxruntime's bindings cannot be shared.
    _local: threading.local = field(
        init=False, default_factory=threading.local, repr=False, compare=False
    )

    def row(self, values: Sequence[float], snapshot: Sequence[float]) -> tuple[float, ...]:
        """One row of the matrix, from numbers in declared order and a history snapshot."""
        if self.columns is None:
            return (*values, *snapshot)
        known = (*values, math.nan)
        return (*(known[column] for column in self.columns), *snapshot)

    def seconds(self, row: Sequence[float]) -> float:
        """The answer to one row; NaN when it is no positive finite number."""
        try:
            bound = self._local.bound
        except AttributeError:  # this thread's first
            bound = self._local.bound = _BoundSession(self.session, self.metadata.width)
        answer = bound.answer(row)
        return answer if 0.0 < answer < math.inf else math.nan

    def many(
        self, values: npt.NDArray[np.float64], snapshots: npt.NDArray[np.float64]
    ) -> list[float]:
        """The answers to many rows in one call: numbers in declared order, and snapshots."""
        if self.columns is not None:
            unknown = np.full((len(values), 1), math.nan)  # of features no longer declared
            values = np.hstack((values, unknown))[:, self.columns]
        # "unsafe", since numpy refuses to give up digits unless told to.
        inputs = np.hstack((values, snapshots), dtype=np.float32, casting="unsafe")
        answers: list[float] = self.session.run(_OUTPUTS, {INPUT: inputs})[0].ravel().tolist()
        return answers

    def predict(self, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """The answers to a matrix of its own columns, `metadata.columns`; shape (rows,).

        Raises `ArtifactRefused` where onnxruntime cannot run it.
        """
        try:
            (answers,) = self.session.run(_OUTPUTS, {INPUT: inputs})
        except Exception as error:  # onnxruntime's errors have no common base
            problem = f"onnxruntime cannot run it ({error})"
            raise ArtifactRefused(f"The {self.tool_type} model", [problem]) from error
        return np.asarray(answers, dtype=np.float64).reshape(-1)


class _BoundSession:
    """A session with one thread's own input row and output bound to it.

    Binding them once saves a third of what a call costs.
    """

    __slots__ = ("_bound", "_buffer", "_inputs", "_output", "_pack", "_run")

    def __init__(self, session: Any, width: int) -> None:
        wrap = runtime().OrtValue.ortvalue_from_numpy
        # On the CPU an OrtValue shares the memory of its array: what is packed into it is what the
        # session reads.
        self._inputs = np.zeros((1, width), np.float32)
        self._output = np.zeros((1, 1), np.float32)
        self._pack = struct.Struct(f"{width}f").pack_into  # twice as quick as assigning
        self._buffer = self._inputs.data
        self._run, self._bound = session.run_with_iobinding, session.io_binding()
        self._bound.bind_ortvalue_input(INPUT, wrap(self._inputs))
        self._bound.bind_ortvalue_output(OUTPUT, wrap(self._output))

    def answer(self, row: Sequence[float]) -> float:
        self._pack(self._buffer, 0, *row)
        self._run(self._bound)
        answer: float = self._output.item()
        return answer


def digest(artifact: bytes) -> str:
    """What tells the bytes of one file from those of any other: SHA-256, in hexadecimal."""
    return hashlib.sha256(artifact).hexdigest()


def load(
    artifact: bytes,
    tool_type: ToolType,
    name: object,
    trial: Callable[[bytes], None] | None = None,
) -> OnnxModel:
    """A model of `tool_type` from the bytes of an ONNX file.

    `trial` runs a file that was never loaded before elsewhere first, and raises `ValueError`
    with the reason where it must not be loaded here: `onnx_trial.Trial.check`.

    Raises `ArtifactRefused`, naming it `name` and every reason found, whatever goes wrong:
    a file that nobody foresaw must not take other models with it.
    """
    try:
        return _load(artifact, tool_type, name, trial)
    except ArtifactRefused:
        raise
    except Exception as error:
        problem = f"it cannot be loaded ({type(error).__name__}: {error})"
        raise ArtifactRefused(name, [problem[:300]]) from error


def columns(metadata: ModelMetadata, tool_type: ToolType) -> tuple[int, ...] | None:
    """`OnnxModel.columns` of a model with that metadata, under that declaration."""
    found = metadata.positions(tool_type.feature_names)
    return None if found == tuple(range(len(tool_type.features))) else found


def runtime() -> Any:
    """onnxruntime, without its telemetry."""
    # Read while it is imported: later it would have sent what it knows of this machine, and left a
    # number for it in the user's cache.
    os.environ.setdefault(_NO_TELEMETRY, "1")
    with late_imports.uninterrupted():
        import onnxruntime
    return onnxruntime


def session(artifact: bytes) -> Any:
    """onnxruntime's session of an ONNX file. Raises what onnxruntime does."""
    onnxruntime = runtime()
    options = onnxruntime.SessionOptions()
    # Of one row, one thread is the quickest; and a scheduler's cores are its tasks'.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Else a file may be read in another format than the one that was checked.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # It would write to the scheduler's stderr what it raises anyway.
    options.log_severity_level = 4
    # Named, since a build for GPUs has other providers, and GPUs are for tasks.
    return onnxruntime.InferenceSession(
        artifact, sess_options=options, providers=["CPUExecutionProvider"]
    )


def _load(
    artifact: bytes,
    tool_type: ToolType,
    name: object,
    trial: Callable[[bytes], None] | None,
) -> OnnxModel:
    try:
        # The cheap look first: what it refuses costs no process.
        onnx_file.check(artifact)
        if trial is not None:
            trial(artifact)
    except ValueError as error:
        raise ArtifactRefused(name, [str(error)]) from error
    try:
        opened = session(artifact)
    except Exception as error:  # onnxruntime's errors have no common base
        problem = f"onnxruntime cannot load it ({type(error).__name__})"
        raise ArtifactRefused(name, [problem]) from error
    metadata = ModelMetadata.parse(opened.get_modelmeta().custom_metadata_map, name)
    metadata.check(tool_type, name)
    if reasons := _signature_problems(opened, metadata) or _probe_problems(opened, metadata):
        raise ArtifactRefused(name, reasons)
    return OnnxModel(tool_type.name, metadata, opened, columns(metadata, tool_type))


def _signature_problems(session: Any, metadata: ModelMetadata) -> list[str]:
    """Why the graph is not `inputs` float32 (N, width) → `seconds` float32 (N, 1)."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if [(i.name, i.type) for i in inputs] != [(INPUT, "tensor(float)")]:
        return [f"its input is not one float tensor named '{INPUT}'"]
    if (OUTPUT, "tensor(float)") not in [(o.name, o.type) for o in outputs]:
        return [f"it has no float output named '{OUTPUT}'"]
    shape = inputs[0].shape
    if len(shape) != 2 or shape[1] != metadata.width or isinstance(shape[0], int):
        return [f"its input has shape {shape}, not (any, {metadata.width})"]
    return []


def _probe_problems(session: Any, metadata: ModelMetadata) -> list[str]:
    """Why the answers to unknown, lowest and highest inputs are not times."""
    try:
        answers = session.run(_OUTPUTS, {INPUT: _probe(metadata)})[0]
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base
        return [f"onnxruntime cannot run it on a test input ({type(error).__name__})"]
    if getattr(answers, "shape", ()) != (3, 1) or not np.all(np.isfinite(answers) & (answers > 0)):
        return ["it returns a non-finite or non-positive duration for a test input"]
    return []


def _probe(metadata: ModelMetadata) -> npt.NDArray[np.float32]:
    rows = np.full((3, metadata.width), np.nan, dtype=np.float32)
    for column, feature in enumerate(metadata.columns):
        # Columns without a range, such as the history's, stay unknown.
        rows[1, column], rows[2, column] = metadata.clips.get(feature, (math.nan, math.nan))
    return rows
