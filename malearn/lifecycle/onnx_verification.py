"""Verification of a version's ONNX file: on real rows it predicts what the trainer's model does.

What a person registered in MLflow may hold the trainer's model alone; it is converted first.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from malearn.kernel import text
from malearn.kernel.errors import ArtifactRefused, ExportError, RegistryError
from malearn.kernel.onnx import onnx_model, onnx_trial
from malearn.kernel.workflows.workflow_calibration import Outcome
from malearn.learning import export
from malearn.learning.gate import GateCheck
from malearn.learning.matrix import Matrix
from malearn.lifecycle import logged_models, registry, runs
from malearn.lifecycle.registry import Version

__all__ = ["CONVERTED_FROM", "OnnxVerification", "WorkflowScores"]

#: Notes on versions: what it was converted from, and to.
CONVERTED_FROM, _CONVERTED_TO = "malearn.converted_from", "malearn.converted_to"

#: How far whole workflows were off lately: see `export.metadata_for`.
WorkflowScores = Sequence[Outcome]


@dataclass(frozen=True, slots=True)
class OnnxVerification:
    """Verifies versions on `rows`, real executions of their tool type.

    `workflow_scores` are written into what is converted, and are not computed for anything else.
    """

    rows: Matrix
    workflow_scores: Callable[[], WorkflowScores]

    def check(self, version: Version) -> tuple[Version, GateCheck]:
        """Whether its ONNX file equals the trainer's model, as the condition "onnx".

        The version returned is the one that was checked: `version` itself, or what it was
        converted to.
        """
        rows = self.rows
        if not len(rows):
            return version, _check(False, "there are no rows to prove its ONNX file on")
        try:
            version, model, native_uri = self._both(version)
            with onnx_trial.Trial() as trial:  # before it may harm this process, or a scheduler's
                onnx_model.load(model, rows.tool_type, f"version {version.number}", trial.check)
            error = export.parity_error(model, logged_models.load_native(native_uri), rows)
        except (ArtifactRefused, ExportError, RegistryError) as refusal:
            return version, _check(False, f"its ONNX file cannot be proven: {refusal}")
        faithful = error <= export.PARITY
        return version, _check(
            faithful,
            f"its ONNX file {'equals' if faithful else 'differs from'} the trainer's model on "
            f"{text.counted(len(rows), 'real row')} "
            f"(largest difference {error:.1e} of a prediction)",
        )

    def _both(self, version: Version) -> tuple[Version, bytes, str]:
        """The version's ONNX file, and where the trainer's model is that it must equal.

        It was noted by training; else it lies in the same run; else the version itself holds it,
        and what that is converted to takes its place.
        """
        tool_type = self.rows.tool_type
        native = version.tags.get("malearn.native")
        try:
            model = registry.model_file(tool_type, version.number)
        except RegistryError:
            if native is not None:
                raise
            version = self._converted(version)
            model = registry.model_file(tool_type, version.number)
            native = version.tags["malearn.native"]
        native = native or logged_models.native_beside(version.run_id)
        if native is None:
            raise RegistryError(
                tool_type.registered_model,
                f"there is no trainer's model to compare version {version.number} with",
            )
        return version, model, native

    def _converted(self, version: Version) -> Version:
        """A version of its own that holds the ONNX file of `version`, which holds the trainer's
        model.

        A new one, because schedulers do not ask twice for a version that held no such file.
        Raises `RegistryError` or `ExportError` where it holds nothing that can be converted.
        """
        tool_type = self.rows.tool_type
        # A promotion that is asked for twice must not register a second conversion.
        if done := version.tags.get(_CONVERTED_TO):
            return registry.version(tool_type, int(done))
        uri = f"models:/{tool_type.registered_model}/{version.number}"
        facts = logged_models.native_facts(uri)
        fitted = logged_models.load_native(uri)
        if fitted.columns != self.rows.columns:
            raise ExportError(tool_type.name, fitted.family, "it reads columns nobody declares now")
        until = float(facts.get("trained_until", math.inf))
        # The rows that it may have been fitted on: its clips and metadata are to describe these.
        learnt = np.flatnonzero([e.end <= until for e in self.rows.executions])
        known = self.rows.rows(learnt) if len(learnt) else self.rows
        made_of = int(facts.get("dataset_version", 0))
        metadata = export.metadata_for(
            fitted, known, version.run_id, made_of, workflow_scores=self.workflow_scores()
        )
        model = export.to_onnx(fitted, metadata)
        # A version that a person registered from a file belongs to no run.
        with runs.resume(version.run_id) if version.run_id else contextlib.nullcontext():
            onnx_uri = logged_models.log_onnx(model, known)
        notes = {
            "malearn.family": fitted.family,
            "malearn.native": uri,
            onnx_model.DIGEST_TAG: onnx_model.digest(model),
            "malearn.rows": str(len(known)),
            "malearn.dataset_version": str(made_of),
            CONVERTED_FROM: str(version.number),
        }
        number = registry.register(tool_type, onnx_uri, version.run_id, notes)
        registry.tag(tool_type, version.number, _CONVERTED_TO, str(number))
        return registry.version(tool_type, number)


def _check(passed: bool, detail: str) -> GateCheck:
    return GateCheck("onnx", passed, detail)
