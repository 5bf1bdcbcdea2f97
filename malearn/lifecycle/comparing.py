"""Two registered versions on the same rows, and the page that MLflow keeps of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from malearn.data import execution_window
from malearn.data.dataset import Dataset
from malearn.data.execution_window import ExecutionWindow
from malearn.kernel import text
from malearn.kernel.errors import InputError
from malearn.kernel.estimation.intervals import State
from malearn.kernel.names import Names
from malearn.kernel.onnx import onnx_model
from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.learning import comparison_plots, evaluation, matrix, version_comparison, windows
from malearn.learning.version_comparison import VersionComparison
from malearn.lifecycle import registry, runs, trained_on

__all__ = ["compare", "log"]

#: Rows that are compared on unless so many are asked for, and the fewest that suffice.
_ROWS, _FEWEST = 500, 10


def compare(
    tool_type: ToolType,
    numbers: tuple[int, int],
    dataset: Dataset,
    rows: int | None = None,
) -> VersionComparison:
    """Both versions of the models of `tool_type` on the newest `rows` of `dataset`.

    Of the dataset the window is read that monitoring reads, or `rows` if those are more; what was
    before it is still what the history knows of. Without `rows`: on those that neither was fitted
    on where there are ten of them, at most the newest 500; else on the newest 500, whoever knows
    them. Raises `InputError` where there are fewer than ten, `RegistryError` or `ArtifactRefused`
    for a version that cannot be loaded. Needs `mlflow_connection.connect` first.
    """
    models = [_model(tool_type, number) for number in numbers]
    until = [
        trained_on.until(registry.version(tool_type, number), model.metadata)
        for number, model in zip(numbers, models, strict=True)
    ]
    window = execution_window.read(dataset, max(execution_window.TAIL, rows or 0))
    everything = matrix.build(tool_type, window.executions, window.before)
    # Rows that a version was fitted on flatter it, so rows new to both are preferred.
    new = windows.unseen(everything, max(until))
    count = rows if rows is not None else min(_ROWS, new if new >= _FEWEST else len(everything))
    newest = everything.rows(np.arange(max(0, len(everything) - count), len(everything)))
    if len(newest) < _FEWEST:
        raise InputError(
            tool_type.name,
            f"has {text.counted(len(newest), 'execution')} to compare on; "
            f"at least {_FEWEST} are required",
        )
    seen = (
        len(newest) - windows.unseen(newest, until[0]),
        len(newest) - windows.unseen(newest, until[1]),
    )
    predicted = [model.predict(newest.inputs_for(model.metadata.columns)) for model in models]
    return version_comparison.compare(
        tool_type.name,
        numbers,
        newest.seconds,
        (predicted[0], predicted[1]),
        [e.function for e in newest.executions],
        # Replayed from the first row: the state of a prediction depends on all that came before it.
        _states(window, tool_type)[-len(newest) :],
        seen,
    )


def log(comparison: VersionComparison, dataset_version: int | None) -> str:
    """A run of its own with metrics, plots and the page `comparison.html`; returns its id."""
    import mlflow

    first, second = comparison.versions
    mlflow.set_experiment(Names.find().experiment("comparison"))
    runs.describe_experiment(
        "Two versions of a model on the same rows, each run one comparison. `mae/v…` in seconds; "
        "`comparison.html` among the artifacts is the whole of it."
    )
    name = f"{comparison.tool_type} v{first} against v{second}"
    tags = {"malearn.tool_type": comparison.tool_type, runs.NOTE: comparison.verdict}
    with mlflow.start_run(run_name=name, tags=tags) as run:
        mlflow.log_params(
            {
                "tool_type": comparison.tool_type,
                "versions": f"{first}, {second}",
                "rows": comparison.n,
                "dataset_version": dataset_version,
                "test": version_comparison.TEST,
            }
        )
        mlflow.log_metrics(_metrics(comparison))
        figures = comparison_plots.of_versions(comparison)
        mlflow.log_text(
            comparison_plots.page(comparison, figures, datetime.now(UTC)), "comparison.html"
        )
        runs.log_figures(figures)
        return str(run.info.run_id)


def _metrics(comparison: VersionComparison) -> dict[str, float]:
    overall, (first, second) = comparison.overall, comparison.versions
    metrics = {
        f"mae/v{first}": overall.mae[0],
        f"mae/v{second}": overall.mae[1],
        f"median_ape/v{first}": overall.median_ape[0],
        f"median_ape/v{second}": overall.median_ape[1],
        f"pairwise_accuracy/v{first}": comparison.pairwise_accuracy[0],
        f"pairwise_accuracy/v{second}": comparison.pairwise_accuracy[1],
        "difference/mae": overall.difference,
        "difference/low": overall.low,
        "difference/high": overall.high,
        "difference/p_value": float("nan") if overall.p_value is None else overall.p_value,
    }
    return {key: value for key, value in metrics.items() if np.isfinite(value)}


def _model(tool_type: ToolType, number: int) -> OnnxModel:
    file = registry.model_file(tool_type, number)
    return onnx_model.load(file, tool_type, f"{tool_type.registered_model} version {number}")


def _states(window: ExecutionWindow, tool_type: ToolType) -> Sequence[State]:
    """What a prediction of each execution stood on, in order of start."""
    everything = [*window.before, *window.executions]
    # Without models: a state belongs to the history, and none would be fitted for it.
    return evaluation.replay(everything, ToolTypes([tool_type]), family="").states
