"""One model in use: an ONNX file of a registered version, loaded and checked."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from malearn.kernel.estimation import intervals
from malearn.kernel.onnx import onnx_model
from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.kernel.tool_types import ToolType

__all__ = ["Model", "load", "of_version"]

_log = logging.getLogger("malearn.serving")


@dataclass(frozen=True, slots=True)
class Model(OnnxModel):
    """What answers for one tool type, with the registry's `version` of it.

    `digest` is the SHA-256 of its file. `interval` holds until outcomes have calibrated a
    better one; `loaded_at` is seconds since the epoch.
    """

    version: int
    digest: str
    interval: intervals.Factors
    loaded_at: float

    def reordered(self, tool_type: ToolType) -> Model:
        """The same for features in the order of `tool_type`."""
        # The generic tool type grows while its model is in use, which moves features' places.
        columns = onnx_model.columns(self.metadata, tool_type)
        return self if columns == self.columns else replace(self, columns=columns)


def load(
    artifact: bytes,
    tool_type: ToolType,
    version: int,
    trial: Callable[[bytes], None] | None = None,
) -> Model:
    """A model from the bytes of an ONNX file, tried by `trial` before it is loaded here.

    Raises `ArtifactRefused`, naming registered model, version and every reason found.
    """
    name = f"{tool_type.registered_model} version {version}"
    checked = onnx_model.load(artifact, tool_type, name, trial)
    declared = tool_type.feature_names
    if tool_type.generic:  # whose features are found, among them those of its models
        declared = checked.metadata.features
    if removed := [f for f in checked.metadata.features if f not in declared]:
        _log.warning(
            "%s reads features that are no longer declared, now always missing: %s",
            name,
            ", ".join(removed),
        )
    return of_version(checked, version, onnx_model.digest(artifact))


def of_version(loaded: OnnxModel, version: int, digest: str = "") -> Model:
    """`loaded` as what answers from now on."""
    return Model(
        loaded.tool_type,
        loaded.metadata,
        loaded.session,
        loaded.columns,
        version,
        digest,
        intervals.calibrated(loaded.metadata.calibration),
        time.time(),
    )
