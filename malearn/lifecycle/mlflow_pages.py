"""Addresses of MLflow's pages, for a browser."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from malearn.kernel.tool_types import ToolType

__all__ = ["comparison_page", "run_page", "version_page"]

#: MLflow's pages have two layouts, one for prompts and one for models; it remembers the last.
_LAYOUT = "?workflowType=machine_learning"


def run_page(run_id: str) -> str:
    """Where a browser finds a run."""
    return f"{_experiment_page(run_id)}/runs/{run_id}{_LAYOUT}"


def comparison_page(run_id: str) -> str:
    """Where a browser finds the candidates of a retraining beside each other, the best first."""
    # In any other order than that of time, MLflow shows children without opening their parent.
    chosen = {
        "compareRunsMode": "CHART",
        "orderByKey": "metrics.`test/mae`",
        "orderByAsc": "true",
        "searchFilter": f"tags.`mlflow.parentRunId` = '{run_id}'",
    }
    return f"{_experiment_page(run_id)}/runs{_LAYOUT}&{urlencode(chosen, quote_via=quote)}"


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
    # The address ends up in artifacts and terminals, where a password must not stand.
    return f"{scheme}://{rest.rpartition('@')[2]}"
