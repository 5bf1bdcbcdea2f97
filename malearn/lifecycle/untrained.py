"""What a dataset holds that no registered version has learnt from yet."""

from __future__ import annotations

from malearn.data.dataset import Dataset
from malearn.kernel import onnx_model
from malearn.kernel.errors import ArtifactRefused, RegistryError
from malearn.kernel.model_metadata import ModelMetadata
from malearn.kernel.tool_types import ToolType
from malearn.lifecycle import registry

__all__ = ["count"]


def count(dataset: Dataset) -> int:
    """How many executions of `dataset` the newest version of its tool type was not trained on.

    All of them where there is no version, or where the newest does not fit the declaration any
    more. Those that ended later than what it has seen count, and so do older ones that came in
    since. Needs `tracking.connect` first.
    """
    rows = dataset.rows
    seen = _newest(dataset.tool_type) if rows else None
    if seen is None or seen.features != dataset.tool_type.feature_names:
        return rows
    return max(rows - seen.rows, dataset.ended_after(seen.trained_until))


def _newest(tool_type: ToolType) -> ModelMetadata | None:
    """What the newest version says of itself; None when it cannot be used."""
    versions = registry.versions(tool_type)
    if not versions:
        return None
    number = versions[0].number
    name = f"{tool_type.registered_model} v{number}"
    try:
        return onnx_model.load(registry.model_file(tool_type, number), tool_type, name).metadata
    except (ArtifactRefused, RegistryError):
        return None
