"""The incumbent of a tool type, loaded from the registry."""

from __future__ import annotations

import logging

from malearn.kernel.errors import ArtifactRefused, RegistryError
from malearn.kernel.onnx import onnx_model
from malearn.kernel.tool_types import ToolType
from malearn.learning import selection, windows
from malearn.learning.incumbent import Incumbent
from malearn.learning.matrix import Matrix
from malearn.learning.regressor import Regressor
from malearn.lifecycle import logged_models, registry, trained_on
from malearn.lifecycle.registry import Version

__all__ = ["load"]

_log = logging.getLogger(__name__)


def load(rows: Matrix) -> Incumbent | None:
    """What serves the tool type of `rows` now; None where nothing does, or it cannot be loaded."""
    tool_type = rows.tool_type
    version = registry.by_alias(tool_type, registry.PRODUCTION)
    if version is None:
        return None
    name = f"incumbent v{version.number}"
    try:
        model = onnx_model.load(registry.model_file(tool_type, version.number), tool_type, name)
    except (ArtifactRefused, RegistryError) as error:
        # It cannot serve either: schedulers refuse the same file for the same reason.
        _log.warning("The incumbent is left out of the comparison: %s", error)
        return None
    until = trained_on.until(version, model.metadata)
    regressor = None
    # The trainer's form is only needed for an update, and is a download of its own.
    if windows.unseen(rows, until) >= selection.ENOUGH_TO_UPDATE:
        regressor = _regressor(tool_type, version)
    return Incumbent(version.number, model, until, regressor)


def _regressor(tool_type: ToolType, version: Version) -> Regressor | None:
    """The trainer's model of `version`, if it was kept and can be loaded."""
    if (uri := version.tags.get("malearn.native")) is None:
        return None
    try:
        return logged_models.load_native(uri)
    except RegistryError as reason:
        _log.info("%s v%d cannot be updated: %s", tool_type.name, version.number, reason)
        return None
