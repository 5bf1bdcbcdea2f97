"""The model of an `ExecTimePredictor`: one ONNX file on disk, and the importance of its features.

A file is verified before it replaces the last: one that does not predict what the trainer's
model predicts never takes the place of one that did. Loading is parse, check, act.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from malearn.kernel.errors import ArtifactRefused, ExportError
from malearn.kernel.onnx import onnx_model
from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.kernel.tool_types import ToolType
from malearn.learning.matrix import Matrix
from malearn.learning.regressor import Regressor

__all__ = ["LocalModel"]

_MODEL, _IMPORTANCE = "model.onnx", "importance.json"


@dataclass(frozen=True, slots=True)
class LocalModel(OnnxModel):
    """What answers for one tool type, with the weight of each column.

    `importance` sums to 1, largest first; empty where the file that held it is gone.
    """

    importance: Mapping[str, float]

    @property
    def version(self) -> int:
        """The version of the dataset that it was fitted on."""
        return self.metadata.dataset_version

    @classmethod
    def load(cls, directory: Path, tool_type: ToolType) -> Self | None:
        """What `directory` holds, or None. Raises `ArtifactRefused` for what does not fit."""
        file = directory / _MODEL
        try:
            model = file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ArtifactRefused(file, [f"it cannot be read ({error})"]) from error
        return cls._of(model, tool_type, file, _read_importance(directory / _IMPORTANCE, model))

    @classmethod
    def save(
        cls, directory: Path, fitted: Regressor, rows: Matrix, version: int, until: float
    ) -> Self:
        """`fitted` on `rows`, as the model in `directory`.

        They are in `version` of the dataset, and the last of them ended at `until`, in
        seconds since the epoch. Raises `ExportError` where the file does not answer them as
        `fitted` does.
        """
        from malearn.learning import export

        name = rows.tool_type.name
        metadata = export.metadata_for(fitted, rows, "", version)  # there is no MLflow run
        # Nobody starts from the executions in the file: they are in the dataset beside it.
        model = export.to_onnx(fitted, replace(metadata, trained_until=until, recent=()))
        error = export.parity_error(model, fitted, rows)
        # "not <=" refuses NaN as well.
        if not error <= export.PARITY:
            raise ExportError(
                name, fitted.family, f"its answers differ from the trainer's by up to {error:.1e}"
            )
        importance = _shares(fitted.importance)
        loaded = cls._of(model, rows.tool_type, directory / _MODEL, importance)
        directory.mkdir(parents=True, exist_ok=True)
        kept = {"model": _digest(model), "family": fitted.family, "importance": importance}
        # The model last: after a crash in between the old one stands beside an importance that
        # names another digest, and is ignored.
        _replace(directory / _IMPORTANCE, json.dumps(kept, indent=1).encode())
        _replace(directory / _MODEL, model)
        return loaded

    @classmethod
    def _of(
        cls, model: bytes, tool_type: ToolType, file: Path, importance: Mapping[str, float]
    ) -> Self:
        checked = onnx_model.load(model, tool_type, file)
        return cls(
            checked.tool_type, checked.metadata, checked.session, checked.columns, importance
        )


def _shares(importance: Mapping[str, float]) -> Mapping[str, float]:
    """As given, or all equal where a model uses no feature."""
    if sum(importance.values()) > 0.0:
        return importance
    return dict.fromkeys(importance, 1.0 / len(importance))


def _read_importance(file: Path, model: bytes) -> Mapping[str, float]:
    """What was kept of this very `model`; nothing where it is gone or of another one."""
    try:
        kept = json.loads(file.read_bytes())
        if kept["model"] == _digest(model):
            return {str(name): float(share) for name, share in kept["importance"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    return {}


def _digest(model: bytes) -> str:
    return hashlib.sha256(model).hexdigest()[:16]


def _replace(file: Path, content: bytes) -> None:
    """Write `file` so that a reader finds the old content or the new, never a part."""
    # Named for process and thread, as several may share a home.
    scratch = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with scratch.open("wb") as out:
            out.write(content)
            out.flush()
            # On the disk before the rename, or a power failure may leave an empty file.
            os.fsync(out.fileno())
        scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)
