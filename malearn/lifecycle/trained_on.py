"""What a registered version was trained on: how many rows, until when, which columns.

Kept in tags of the version, so that nobody needs to download its file to know. Versions that
0.1.0 registered have no such tags; the metadata of their files is read instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from malearn.kernel.errors import ArtifactRefused, RegistryError
from malearn.kernel.estimation import history
from malearn.kernel.onnx import onnx_model
from malearn.kernel.onnx.model_metadata import ModelMetadata
from malearn.kernel.tool_types import ToolType
from malearn.lifecycle import registry
from malearn.lifecycle.registry import Version

__all__ = ["LIMITS", "TrainedOn", "of_version", "tags", "until"]

#: The tag of what was trained on a part of a dataset, or an old version of it: which, in words.
LIMITS = "malearn.limits"

_ROWS, _UNTIL, _COLUMNS = "malearn.rows", "malearn.trained_until", "malearn.columns"


@dataclass(frozen=True, slots=True)
class TrainedOn:
    """The extent of a training: `until`, in seconds since the epoch, its last execution ended."""

    rows: int
    until: float


def tags(metadata: ModelMetadata) -> dict[str, str]:
    """What to note on the version whose file carries `metadata`."""
    return {
        _ROWS: str(metadata.rows),
        _UNTIL: repr(metadata.trained_until),
        _COLUMNS: _digest((*metadata.features, *metadata.history)),
    }


def until(version: Version, metadata: ModelMetadata) -> float:
    """When the last execution ended that `version` was trained on, in seconds since the epoch.

    Never later than its registration: an execution that a writer's clock dated into the future
    must not make everything that comes until then count as seen.
    """
    return min(metadata.trained_until, version.created)


def of_version(version: Version, tool_type: ToolType) -> TrainedOn | None:
    """What `version` was trained on; None where it does not fit the declaration of today."""
    noted = version.tags
    try:
        rows, end = int(noted[_ROWS]), float(noted[_UNTIL])
        # A version of other columns counts as untrained: new features call for another.
        fits = noted[_COLUMNS] == _digest((*tool_type.feature_names, *history.FEATURES))
    except (KeyError, ValueError):  # registered by 0.1.0, or not by malearn's training
        return _of_file(version, tool_type)
    return TrainedOn(rows, min(end, version.created)) if fits else None


def _of_file(version: Version, tool_type: ToolType) -> TrainedOn | None:
    name = f"{tool_type.registered_model} v{version.number}"
    try:
        file = registry.model_file(tool_type, version.number)
        metadata = onnx_model.load(file, tool_type, name).metadata
    except (ArtifactRefused, RegistryError):
        return None
    if metadata.features != tool_type.feature_names:
        return None
    return TrainedOn(metadata.rows, until(version, metadata))


def _digest(columns: Sequence[str]) -> str:
    """Short, because a tag is, however many features are declared."""
    return hashlib.sha256("\n".join(columns).encode()).hexdigest()[:16]
