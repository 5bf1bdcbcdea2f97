"""Runs in MLflow: one parent a retraining, one child a candidate.

With `registry.py` the only place that knows MLflow. Metric names are the same
everywhere, so that any two runs compare.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from malearn.kernel.errors import RegistryError, Unreachable, without_password
from malearn.kernel.model_metadata import INPUT, OUTPUT
from malearn.kernel.tool_types import ToolType
from malearn.learning import plots
from malearn.learning.gate import Decision
from malearn.learning.matrix import Matrix
from malearn.learning.metrics import Scores
from malearn.learning.regressor import SHRINKAGE, Regressor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from malearn.learning.evaluation import Evaluation
    from malearn.learning.policy_comparison import Comparison

__all__ = [
    "candidate",
    "comparison_page",
    "connect",
    "connected",
    "judged_errors",
    "load_native",
    "log_comparison",
    "log_errors",
    "log_evaluation",
    "log_figures",
    "log_learning_curve",
    "log_lineage",
    "log_monitoring",
    "log_native",
    "log_onnx",
    "log_outcome",
    "log_scores",
    "native_beside",
    "native_facts",
    "resume",
    "retraining",
    "run_page",
    "version_page",
]

#: Chart sections of the MLflow UI, by the prefix of the metrics in them.
NEWEST, CHOOSING, BASELINE, LEARNING = "newest", "choosing", "baseline", "learning"

#: The tag that MLflow shows as the description of a run or an experiment.
_NOTE = "mlflow.note.content"
_METRICS = (
    "`newest/…` was measured on the newest rows, which no candidate was fitted on and which "
    "judge; `choosing/…` on the rows before, which choose among the candidates; `baseline/…` "
    "is what predictors without training reach on the newest rows. MAE and RMSE in seconds."
)
_EXPERIMENT = (
    "How many seconds a {tool_type} task takes. One run is one retraining, its children are the "
    "candidates. " + _METRICS + " The winners: `tags.malearn.version != ''`."
)
#: MLflow's pages have two layouts, one for prompts and one for models; it remembers the last.
_LAYOUT = "?workflowType=machine_learning"
_CANDIDATE = "A candidate, fitted on all but the newest rows. " + _METRICS

#: Where a candidate's run keeps how far off it was on each row that judged it.
_ERRORS = "judged_errors.json"

#: How long a server may take to say that it is there, in seconds.
_PATIENCE = 5.0

_PACKAGES = ("mlflow", "numpy", "onnxruntime", "scikit-learn", "xgboost", "skops")


def connect(tracking_uri: str) -> None:
    """Make MLflow's client use `tracking_uri`. Raises `Unreachable` when nothing answers there."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    # A server that went away is away: say so within half a minute, not after five.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    # Its bars would stand between our lines, or in the middle of one.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if tracking_uri.startswith("http"):
        try:
            with urllib.request.urlopen(_health(tracking_uri), timeout=_PATIENCE):
                pass
        except (OSError, ValueError, HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it holds the connection
            reason = getattr(error, "reason", error)
            raise Unreachable("MLflow", tracking_uri, "MLFLOW_TRACKING_URI", reason) from error
    import mlflow

    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


@contextlib.contextmanager
def connected(tracking_uri: str) -> Iterator[None]:
    """`connect`, and let no exception of MLflow's own out of the `with`.

    Raises `Unreachable` when the server goes away meanwhile, `RegistryError` with what it
    said when it refuses; the cause is kept.
    """
    connect(tracking_uri)
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        said = " ".join(str(error).split()).rstrip(".")
        if said.startswith("API request to") and "failed with exception" in said:
            raise Unreachable("MLflow", tracking_uri, "MLFLOW_TRACKING_URI") from error
        where = f"MLflow at {without_password(tracking_uri)}"
        raise RegistryError(where, f"it refuses ({said[:300]})") from error


@contextlib.contextmanager
def retraining(
    tool_type: ToolType, name: str, tags: Mapping[str, str], description: str
) -> Iterator[str]:
    """One retraining of `tool_type` as the parent run; yields its id."""
    import mlflow

    experiment = mlflow.set_experiment(tool_type.registered_model)
    mlflow.set_experiment_tags(
        {
            "mlflow.experimentKind": "custom_model_development",
            _NOTE: _EXPERIMENT.format(tool_type=tool_type.name),
        }
    )
    with mlflow.start_run(
        experiment_id=experiment.experiment_id,
        run_name=name,
        tags={**tags, _NOTE: description},
    ) as run:
        yield run.info.run_id


@contextlib.contextmanager
def candidate(
    family: str, parameters: Mapping[str, object], tags: Mapping[str, str]
) -> Iterator[str]:
    """One candidate as a child of the retraining in progress; yields its id."""
    import mlflow

    name = f"{family} on data v{tags['malearn.dataset_version']}"
    with mlflow.start_run(nested=True, run_name=name, tags={**tags, _NOTE: _CANDIDATE}) as run:
        mlflow.log_params({"family": family, **parameters})
        yield run.info.run_id


def run_page(run_id: str) -> str:
    """Where a browser finds a run."""
    return f"{_experiment_page(run_id)}/runs/{run_id}{_LAYOUT}"


def comparison_page(run_id: str) -> str:
    """Where a browser finds a retraining beside all others of its tool type, as charts."""
    return f"{_experiment_page(run_id)}/runs{_LAYOUT}&compareRunsMode=CHART"


def version_page(tool_type: ToolType, number: int) -> str:
    """Where a browser finds a registered version."""
    return f"{_browsed()}/#/models/{tool_type.registered_model}/versions/{number}{_LAYOUT}"


def _experiment_page(run_id: str) -> str:
    import mlflow

    return f"{_browsed()}/#/experiments/{mlflow.get_run(run_id).info.experiment_id}"


def _browsed() -> str:
    """The address of MLflow's pages, without the credentials that may be in it."""
    import mlflow

    scheme, _, rest = mlflow.get_tracking_uri().rstrip("/").partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def log_lineage(rows: Matrix, table: str, version: int, context: str) -> None:
    """Which rows of which version of which Delta table the run in progress used."""
    import mlflow
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.numpy_dataset import from_numpy

    dataset = from_numpy(
        rows.inputs,
        source=DeltaDatasetSource(path=table, delta_table_version=version),
        targets=rows.seconds,
        name=f"{rows.tool_type.name} v{version}",
    )
    mlflow.log_input(dataset, context=context)


@contextlib.contextmanager
def resume(run_id: str) -> Iterator[None]:
    """Add to a candidate's run that had ended."""
    import mlflow

    with mlflow.start_run(run_id=run_id, nested=True):
        yield


def log_outcome(
    scores: Mapping[str, Scores], own: str, version: int, decision: Decision, chosen: str
) -> None:
    """What the retraining in progress came to: the winner's scores, the decision, its reasons.

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
        mlflow.log_metric(f"{LEARNING}/mae", error, step=rows)


def log_scores(scores: Mapping[str, Scores], own: str, chosen_by: Scores | None = None) -> None:
    """`own`'s scores under `newest/`, the others' under `baseline/`, in one call.

    `chosen_by` are the scores on the slice that chose among the candidates.
    """
    import mlflow

    metrics = _named(NEWEST, scores[own])
    if chosen_by is not None:
        metrics |= _named(CHOOSING, chosen_by)
    for name, rival in scores.items():
        if name != own:
            key = "incumbent" if name.startswith("incumbent") else name
            metrics[f"{BASELINE}/{key}_mae"] = rival.mae
            metrics[f"{BASELINE}/{key}_order"] = rival.pairwise_accuracy
    mlflow.log_metrics({k: v for k, v in metrics.items() if np.isfinite(v)})


def _named(section: str, scores: Scores) -> dict[str, float]:
    """The error first, which MLflow then draws first; how many rows there were last."""
    metrics = {f"{section}/{key}": value for key, value in scores.as_dict().items()}
    metrics[f"{section}/n"] = metrics.pop(f"{section}/n")
    return metrics


def log_evaluation(evaluation: Evaluation, name: str) -> str:
    """A replay as one run of its own experiment, with its plots; returns the run's id."""
    import mlflow

    mlflow.set_experiment("malearn-evaluation")
    with mlflow.start_run(run_name=name) as run:
        metrics = {f"order/{who}": share for who, share in evaluation.order().items()}
        figures, inside = {}, {}
        for tool_type in evaluation.tool_types:
            rows = evaluation.rows(tool_type)
            actual = evaluation.actual[rows]
            for who, s in evaluation.scores(tool_type).items():
                metrics |= {f"{tool_type}/{who}_mae": s.mae, f"{tool_type}/{who}_r2": s.r2}
                metrics[f"{tool_type}/{who}_median_ape"] = s.median_ape
            metrics[f"{tool_type}/coverage"] = evaluation.coverage(tool_type)
            inside[tool_type] = evaluation.inside(tool_type)
            figures[f"error_over_time_{tool_type}"] = plots.error_over_time(
                actual,
                {who: p[rows] for who, p in evaluation.predicted.items()},
                f"{tool_type}: how far off, over {len(rows)} tasks",
            )
        figures["coverage_over_time"] = plots.coverage_over_time(
            inside, "Outcomes within the 80 % interval, over time"
        )
        mlflow.log_metrics({k: v for k, v in metrics.items() if np.isfinite(v)})
        log_figures(figures)
        return str(run.info.run_id)


def log_comparison(comparison: Comparison, name: str) -> str:
    """A simulation as one run of its own experiment, with its plots; returns the run's id."""
    import mlflow

    from malearn.learning import scheduling_plots

    mlflow.set_experiment("malearn-simulation")
    with mlflow.start_run(run_name=name) as run:
        settings = comparison.settings
        mlflow.log_params(
            {
                "slots": ", ".join(f"{name}={n}" for name, n in settings.slots.items()),
                "loads": ", ".join(
                    "as recorded" if load is None else f"{load:g}" for load in settings.loads
                ),
                "seeds": settings.seeds,
                "deadlines": ", ".join(f"{factor:g}" for factor in settings.deadlines),
                "workflows": comparison.workflows,
            }
        )
        metrics: dict[str, float] = {}
        for policy, predictors in comparison.as_json()["policies"].items():
            for predictor, found in predictors.items():
                metrics |= {
                    f"{policy}/{predictor}_mean": found["mean"],
                    f"{policy}/{predictor}_late": found["late"],
                    f"{policy}/{predictor}_gain": found["gain"]["mean"],
                }
        mlflow.log_metrics(metrics)
        log_figures(scheduling_plots.of_comparison(comparison))
        return str(run.info.run_id)


def log_figures(figures: Mapping[str, Figure]) -> None:
    """Each figure as an image that the UI can lay beside those of other runs."""
    import mlflow
    from PIL import Image

    for key, figure in figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        buffer.seek(0)
        image = Image.open(buffer)
        mlflow.log_image(image, key=key, step=0)
        mlflow.log_image(image, artifact_file=f"plots/{key}.png")


def log_errors(errors: NDArray[np.float64]) -> None:
    """How far off the candidate in progress was, as log(predicted ÷ actual) of each judged row."""
    import mlflow

    mlflow.log_text(json.dumps([round(float(e), 5) for e in errors]), _ERRORS)


def judged_errors(run_id: str) -> NDArray[np.float64] | None:
    """What `log_errors` kept with the run; None where there is no such thing."""
    import mlflow

    try:
        text = mlflow.artifacts.load_text(f"runs:/{run_id}/{_ERRORS}")
        return np.asarray(json.loads(text), dtype=np.float64).reshape(-1)
    except (mlflow.exceptions.MlflowException, OSError, ValueError, TypeError):
        return None


def log_monitoring(
    tool_type: ToolType, metrics: Mapping[str, float], figures: Mapping[str, Figure]
) -> str:
    """One look at `tool_type`: a point on each curve of its run, and its pictures as they are now.

    One run per tool type, in an experiment of its own, goes on for ever; returns its id.
    """
    import mlflow

    client = mlflow.MlflowClient()
    experiment = mlflow.set_experiment("malearn-monitor")
    name = tool_type.name
    found = client.search_runs(
        [experiment.experiment_id],
        f"tags.`malearn.tool_type` = '{name}'",
        order_by=["attributes.start_time ASC"],
        max_results=1,
    )
    described = {
        "malearn.tool_type": name,
        _NOTE: f"How the models of {name} do in production, a point for each look.",
    }
    run_id = found[0].info.run_id if found else None
    looks = "serving/looks"
    number = int(found[0].data.metrics.get(looks, 0.0)) + 1 if found else 1
    with mlflow.start_run(run_id, run_name=None if run_id else name, tags=described) as run:
        known = {k: v for k, v in metrics.items() if np.isfinite(v)}
        mlflow.log_metrics({**known, looks: float(number)}, step=number)
        for key, figure in figures.items():
            mlflow.log_figure(figure, f"plots/{key}.png")
        return str(run.info.run_id)


def log_native(regressor: Regressor, rows: Matrix, dataset_version: int = 0) -> str:
    """The estimator in its library's own form, with what surrounds it; returns its model URI.

    `rows` are those it was fitted on, of that version of the dataset.
    """
    import mlflow

    common: dict[str, Any] = {
        "name": "native",
        "signature": _signature(len(rows.columns)),
        "pip_requirements": _requirements(),
        "metadata": {
            "malearn": {
                "family": regressor.family,
                "columns": list(rows.columns),
                "level_column": regressor.level_column,
                "level_default": regressor.level_default,
                "ratio_range": list(regressor.ratio_range),
                "log_range": list(regressor.log_range),
                "shrinkage": regressor.shrinkage,
                "trained_until": max(e.end for e in rows.executions),
                "dataset_version": dataset_version,
            }
        },
    }
    if regressor.family == "xgboost":
        info = mlflow.xgboost.log_model(regressor.estimator, model_format="ubj", **common)
    else:
        info = mlflow.sklearn.log_model(
            regressor.estimator,
            serialization_format="skops",  # no pickle, which runs what it is given
            skops_trusted_types=["numpy.dtype"],
            **common,
        )
    return str(info.model_uri)


def log_onnx(model: bytes, rows: Matrix) -> str:
    """The exported model, loadable with `mlflow.pyfunc`; returns its model URI.

    Its metadata names the columns of the input, which an ONNX signature does not.
    """
    import mlflow
    import onnx

    info = mlflow.onnx.log_model(
        onnx.load_model_from_string(model),
        name="model",
        signature=_signature(len(rows.columns)),
        input_example=rows.inputs[-3:],
        metadata={"malearn": {"tool_type": rows.tool_type.name, "columns": list(rows.columns)}},
        pip_requirements=_requirements(),
        onnx_execution_providers=["CPUExecutionProvider"],  # else it warns where there is no GPU
        save_as_external_data=False,
    )
    return str(info.model_uri)


def load_native(model_uri: str) -> Regressor:
    """What `log_native` kept, as a `Regressor` again. Raises `RegistryError` when it is gone."""
    import mlflow

    kept = native_facts(model_uri)
    try:
        if kept["family"] == "xgboost":
            estimator = mlflow.xgboost.load_model(model_uri)
        else:
            estimator = mlflow.sklearn.load_model(model_uri)
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise RegistryError(model_uri, f"the trainer's model cannot be loaded ({error})") from error
    return Regressor(
        kept["family"],
        tuple(kept["columns"]),
        estimator,
        int(kept["level_column"]),
        float(kept["level_default"]),
        (float(kept["ratio_range"][0]), float(kept["ratio_range"][1])),
        (float(kept["log_range"][0]), float(kept["log_range"][1])),
        float(kept.get("shrinkage", kept.get("trust", SHRINKAGE))),
    )


def native_beside(run_id: str) -> str | None:
    """The address of the trainer's model that a candidate's run holds, if it does."""
    import mlflow

    if not run_id:
        return None
    client = mlflow.MlflowClient()
    found = client.search_logged_models(
        [client.get_run(run_id).info.experiment_id],
        filter_string=f"source_run_id = '{run_id}' AND name = 'native'",
    )
    return str(found[0].model_uri) if found else None


def native_facts(model_uri: str) -> Mapping[str, Any]:
    """What `log_native` noted beside the estimator. Raises `RegistryError` for any other model."""
    import mlflow

    try:
        metadata = mlflow.models.get_model_info(model_uri).metadata or {}
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise RegistryError(model_uri, f"the trainer's model cannot be loaded ({error})") from error
    kept: Mapping[str, Any] | None = metadata.get("malearn")
    if kept is None or "family" not in kept:  # an ONNX file of ours notes its columns there
        raise RegistryError(
            model_uri, "malearn did not train it, and nothing says which numbers it reads"
        )
    return kept


def _health(tracking_uri: str) -> urllib.request.Request:
    """The question whether a server is there; a user and password in its address go along."""
    scheme, _, rest = tracking_uri.rstrip("/").partition("://")
    credentials, at, address = rest.rpartition("@")
    request = urllib.request.Request(f"{scheme}://{address}/health")
    if at:
        token = base64.b64encode(urllib.parse.unquote(credentials).encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    return request


def _signature(width: int) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, width), INPUT)]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 1), OUTPUT)]),
    )


def _requirements() -> list[str]:
    """The versions in use, named here because MLflow would take xgboost for two packages."""
    from importlib.metadata import version

    return [f"{package}=={version(package)}" for package in _PACKAGES]
