"""The flow that promotes a version, once its ONNX export is verified."""

from __future__ import annotations

import os
from typing import Annotated

from prefect import flow

from malearn.data.dataset import Dataset
from malearn.flows import artifacts, failure, parameters, progress
from malearn.flows.train import load, workflow_scores
from malearn.kernel import generic
from malearn.kernel.home import Home
from malearn.lifecycle import mlflow_connection, promotion
from malearn.lifecycle.promotion import Promoted

__all__ = ["promote"]


@flow(
    name="promote",
    flow_run_name="promote {tool_type} v{version}",
    validate_parameters=False,
    on_failure=[failure.record_cause],
)
def promote(
    tool_type: parameters.ToolTypeName,
    version: parameters.VersionNumber,
    home: parameters.Home = None,
    bypass_gate: Annotated[
        bool, parameters.described("Promote it although it did not pass the gate.")
    ] = False,
) -> Promoted:
    """Verify the ONNX export of `version` on the dataset's rows and move the alias if it passes.

    `bypass_gate` skips the gate, not the verification.
    """
    place = Home.find(home)
    types = generic.declared(place)
    progress.tag(tool_type, "by hand" if bypass_gate else "by the gate")
    with mlflow_connection.connected(os.environ.get("MLFLOW_TRACKING_URI", "")):
        # Real rows of the dataset, not made-up ones: conversions go wrong at real thresholds.
        rows, _ = load(Dataset.open(place, types[tool_type]))
        promoted = promotion.promote(
            rows,
            version,
            bypass_gate=bypass_gate,
            workflow_scores=lambda: workflow_scores(place, types),
        )
        # While MLflow is connected: the page links to the version there.
        artifacts.promotion(promoted, types[tool_type])
    verdict = "is in Production" if promoted.promoted else "was not promoted"
    progress.finished(f"{tool_type}: version {version} {verdict}")
    return promoted
