"""Runs in MLflow: one parent a retraining, one child a candidate.

Metric names are the same everywhere, so that any two runs compare.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from malearn.kernel.names import Names
from malearn.kernel.tool_types import ToolType
from malearn.learning.gate import Decision
from malearn.learning.matrix import Matrix
from malearn.learning.metrics import Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

__all__ = [
    "NOTE",
    "SCORES",
    "candidate",
    "describe_experiment",
    "log_errors",
    "log_figures",
    "log_learning_curve",
    "log_lineage",
    "log_monitoring",
    "log_outcome",
    "log_scores",
    "log_table",
    "resume",
    "retraining",
    "test_errors",
]

#: Chart sections of the MLflow UI, by the prefix of the metrics in them.
#: MLflow shows them in the order of their names.
TEST, VALIDATION, LEARNING = "test", "validation", "test_by_rows"

#: The artifact with the scores of everybody on the test window, as a table.
SCORES = "scores.json"

#: The tag that MLflow shows as the description of a run or an experiment.
NOTE = "mlflow.note.content"
#: The tag by which MLflow knows whether an experiment is about models or about prompts.
_KIND = "mlflow.experimentKind"
_METRICS = (
    "`test/…` was measured on the test window, the newest rows, which no candidate was fitted on; "
    "`validation/…` on the window before it, by which one candidate is chosen; the table "
    "`scores.json` says what predictors without training, and the serving model, reach on the test "
    "window. MAE and RMSE in seconds."
)
_EXPERIMENT = (
    "How many seconds a {tool_type} task takes. One run is one retraining, its children are the "
    "candidates. " + _METRICS + " The winners: `tags.malearn.version != ''`."
)
_CANDIDATE = "A candidate, fitted on all rows but the test window. " + _METRICS

#: Where a candidate's run keeps its error on each row of the test window; and where 0.1.0 did.
_ERRORS, _ERRORS_0_1 = "test_errors.json", "judged_errors.json"
#: How many checks of the monitor there were so far; and what 0.1.0 called them.
_CHECKS, _CHECKS_0_1 = "serving/checks", "serving/looks"


#: Held while MLflow's one experiment of the process has to be ours; runs are each thread's own.
_experiment_set = threading.Lock()


@contextlib.contextmanager
def retraining(
    tool_type: ToolType, name: str, tags: Mapping[str, str], description: str
) -> Iterator[str]:
    """One retraining of `tool_type` as the parent run; yields its id."""
    import mlflow

    with _experiment_set:
        experiment = mlflow.set_experiment(tool_type.registered_model)
        describe_experiment(_EXPERIMENT.format(tool_type=tool_type.name))
    with mlflow.start_run(
        experiment_id=experiment.experiment_id,
        run_name=name,
        tags={**tags, NOTE: description},
    ) as run:
        yield run.info.run_id


def describe_experiment(description: str) -> None:
    """Describe the experiment that was set, and let MLflow open it in its layout for models."""
    import mlflow

    mlflow.set_experiment_tags({_KIND: "custom_model_development", NOTE: description})


@contextlib.contextmanager
def candidate(
    family: str, parameters: Mapping[str, object], tags: Mapping[str, str]
) -> Iterator[str]:
    """One candidate as a child of the retraining in progress; yields its id."""
    import mlflow

    name = f"{family} on data v{tags['malearn.dataset_version']}"
    retraining = mlflow.active_run()
    with mlflow.start_run(
        experiment_id=retraining.info.experiment_id if retraining else None,
        nested=True,
        run_name=name,
        tags={**tags, NOTE: _CANDIDATE},
    ) as run:
        mlflow.log_params({"family": family, **parameters})
        yield run.info.run_id


@contextlib.contextmanager
def resume(run_id: str) -> Iterator[None]:
    """Add to a candidate's run that had ended."""
    import mlflow

    experiment = mlflow.MlflowClient().get_run(run_id).info.experiment_id
    with _experiment_set:
        mlflow.set_experiment(experiment_id=experiment)  # MLflow resumes no run of another one
        run = mlflow.start_run(run_id=run_id, nested=True)
    with run:
        yield


def log_lineage(rows: Matrix, table: str, version: int, context: str) -> None:
    """Which rows of which version of which Delta table the run in progress used."""
    import mlflow
    import pandas as pd
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.pandas_dataset import from_pandas

    frame = pd.DataFrame(rows.inputs, columns=list(rows.columns))
    frame["seconds"] = rows.seconds
    dataset = from_pandas(
        frame,
        source=DeltaDatasetSource(path=table, delta_table_version=version),
        targets="seconds",
        name=f"{rows.tool_type.name} v{version}",
        # MLflow's own digest is of a sample of the frame; this one is of all rows.
        digest=hashlib.sha256(rows.inputs.tobytes() + rows.seconds.tobytes()).hexdigest()[:8],
    )
    mlflow.log_input(dataset, context=context)


def log_outcome(
    scores: Mapping[str, Scores], own: str, version: int, decision: Decision, chosen: str
) -> None:
    """What the retraining in progress came to: the chosen candidate's scores, and the decision.

    The run `chosen`, its candidate's, gets the same tags, so that a search finds the winners.
    """
    import mlflow

    log_scores(scores, own)
    tags = {
        "malearn.family": own,
        "malearn.version": str(version),
        "malearn.promote": str(decision.promote).lower(),
        "malearn.why": decision.why,
    }
    mlflow.set_tags(tags)
    client = mlflow.MlflowClient()
    for key, value in tags.items():
        client.set_tag(chosen, key, value)
    mlflow.log_text(decision.to_json(), "decision.json")


def log_learning_curve(curve: Mapping[int, float]) -> None:
    """Mean absolute error, in seconds, by rows fitted on: a line that compares between runs."""
    import mlflow

    for rows, error in curve.items():
        # The step is the number of rows: MLflow draws a metric over its steps.
        mlflow.log_metric(f"{LEARNING}/mae", error, step=rows)


def log_scores(scores: Mapping[str, Scores], own: str, validation: Scores | None = None) -> None:
    """`own`'s scores under `test/`, and everybody's as one table.

    `validation` are its scores on the validation window.
    """
    import mlflow

    metrics = _named(TEST, scores[own])
    if validation is not None:
        metrics |= _named(VALIDATION, validation)
    mlflow.log_metrics({k: v for k, v in metrics.items() if np.isfinite(v)})
    ranked = sorted(scores.items(), key=lambda item: item[1].mae)
    columns: dict[str, list[object]] = {"predictor": [name for name, _ in ranked]}
    for key in scores[own].as_dict():
        values = [one.as_dict()[key] for _, one in ranked]
        columns[key] = [round(v, 4) if np.isfinite(v) else None for v in values]
    log_table(columns, SCORES)


def log_table(columns: Mapping[str, list[object]], file: str) -> None:
    """Columns of equal length as a table among the artifacts, which MLflow shows as one."""
    import mlflow

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow calls pandas in ways that pandas deprecates
        mlflow.log_table(dict(columns), file)


def log_errors(errors: NDArray[np.float64]) -> None:
    """Errors of the candidate in progress, as log(predicted ÷ actual) of each test row."""
    import mlflow

    mlflow.log_text(json.dumps([round(float(e), 5) for e in errors]), _ERRORS)


def test_errors(run_id: str) -> NDArray[np.float64] | None:
    """What `log_errors` kept with the run; None where there is no such thing."""
    import mlflow

    for name in (_ERRORS, _ERRORS_0_1):
        try:
            text = mlflow.artifacts.load_text(f"runs:/{run_id}/{name}")
            return np.asarray(json.loads(text), dtype=np.float64).reshape(-1)
        except (mlflow.exceptions.MlflowException, OSError, ValueError, TypeError):
            continue
    return None


def log_figures(
    figures: Mapping[str, Figure], *, compared: bool = False, folder: str = "plots"
) -> None:
    """Each figure of the run in progress as `<folder>/<name>.png` among its artifacts.

    Those that are `compared` are images by key instead, which MLflow lays beside those of other
    runs.
    """
    import mlflow

    for key, figure in figures.items():
        image = _drawn(figure)
        if compared:
            # MLflow lays images beside each other by key and step, figures not at all.
            mlflow.log_image(image, key=key, step=0)
        else:
            mlflow.log_image(image, f"{folder}/{key}.png")


def _drawn(figure: Figure) -> Image.Image:
    """The pixels that `savefig` would write. It draws everything twice, for options not used."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.asarray(canvas.buffer_rgba()))  # type: ignore[no-untyped-call]


def log_monitoring(
    tool_type: ToolType, metrics: Mapping[str, float], figures: Mapping[str, Figure]
) -> str:
    """One check of `tool_type`: a point on each curve of its run, and its plots as they are now.

    One run per tool type, in an experiment of its own, goes on for ever; returns its id.
    """
    import mlflow

    client = mlflow.MlflowClient()
    experiment = mlflow.set_experiment(Names.find().experiment("monitor"))
    describe_experiment(
        "How the models in Production do: one run a tool type, a point on each curve a check."
    )
    name = tool_type.name
    found = client.search_runs(
        [experiment.experiment_id],
        f"tags.`malearn.tool_type` = '{name}'",
        # The oldest: if two checks once made a run each, all later ones agree on the same.
        order_by=["attributes.start_time ASC"],
        max_results=1,
    )
    described = {
        "malearn.tool_type": name,
        NOTE: f"How the models of {name} do in production, a point for each check.",
    }
    run_id = found[0].info.run_id if found else None
    number = 1
    if found:
        known = found[0].data.metrics
        number += int(known.get(_CHECKS, known.get(_CHECKS_0_1, 0.0)))
    with mlflow.start_run(run_id, run_name=None if run_id else name, tags=described) as run:
        finite = {k: v for k, v in metrics.items() if np.isfinite(v)}
        mlflow.log_metrics({**finite, _CHECKS: float(number)}, step=number)
        log_figures(figures)
        return str(run.info.run_id)


def _named(section: str, scores: Scores) -> dict[str, float]:
    """The error first, which MLflow then draws first; how many rows there were last."""
    metrics = {f"{section}/{key}": value for key, value in scores.as_dict().items()}
    # Taken out and put in again: a dictionary keeps the order of insertion.
    metrics[f"{section}/n"] = metrics.pop(f"{section}/n")
    return metrics
