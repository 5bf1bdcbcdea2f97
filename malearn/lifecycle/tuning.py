"""Searches for hyper-parameters as runs in MLflow: one parent a search, a child for each trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from malearn.kernel.errors import TrainingError
from malearn.kernel.home import Home
from malearn.learning import families, tuning
from malearn.learning.matrix import Matrix
from malearn.learning.tuning import Found, Trial
from malearn.lifecycle import runs
from malearn.lifecycle.training import DatasetVersion

__all__ = ["TRIALS", "found", "storage", "tune"]

#: Trials of a search, unless said otherwise.
TRIALS = 30


def storage(home: Home) -> str:
    """The URL of the database below `home` that keeps what has been tried."""
    return f"sqlite:///{_file(home)}"


def found(home: Home, tool_type: str) -> list[Found]:
    """The result of the last search of each family for `tool_type`; nothing without any."""
    if not _file(home).is_file():
        return []
    newest: dict[str, Found] = {}
    for one in tuning.finished(storage(home), tool_type):
        # `finished` gives the newest first.
        newest.setdefault(one.family, one)
    return list(newest.values())


def tune(
    rows: Matrix,
    source: DatasetVersion,
    home: Home,
    names: Sequence[str],
    *,
    trials: int = TRIALS,
    seconds: float | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Found]:
    """Search for the hyper-parameters of each family of `names` that has something to search for.

    `trials` are counted per family, with those of an earlier search of the same rows, which this
    one goes on with; `seconds` are for all of them together. Families that have too few rows are
    left out. Needs `mlflow_connection.connect` first.
    """
    # SQLite makes its file, but no directory for it.
    home.root.mkdir(parents=True, exist_ok=True)
    _file(home).touch(0o600)  # like everything below a home, it is its owner's alone
    began, results = time.monotonic(), []
    searched = [name for name in names if families.get(name).search]
    for place, name in enumerate(searched):
        left = None
        if seconds is not None:
            # Shared anew each time: a family that ends early leaves its time to the others.
            left = max(0.0, began + seconds - time.monotonic()) / (len(searched) - place)
        try:
            results.append(_tune(name, rows, source, home, trials, left, progress))
        except TrainingError as error:
            progress(str(error))
    return results


def _tune(
    family: str,
    rows: Matrix,
    source: DatasetVersion,
    home: Home,
    trials: int,
    seconds: float | None,
    progress: Callable[[str], None],
) -> Found:
    tags = {
        "malearn.tool_type": rows.tool_type.name,
        "malearn.family": family,
        "malearn.dataset_version": str(source.version),
        "malearn.search": "true",
    }
    description = (
        f"A search for the hyper-parameters of {family} ({source.described}). Each child is a "
        "trial, fitted on the train window and scored on the validation window; the test window "
        "has no part in it."
    )
    with runs.retraining(rows.tool_type, f"search {family}", tags, description):
        runs.log_lineage(rows, source.table, source.version, "tuning")

        def each(trial: Trial, best: Found) -> None:
            _log(trial, family, tags)
            progress(
                f"{family}: trial {best.trials} of {trials}, {trial.state}, best MAE "
                f"{best.error:.3g} s (declared: {best.declared_error:.3g} s)"
            )

        result = tuning.search(
            family, rows, trials=trials, seconds=seconds, storage=storage(home), each=each
        )
        _log_found(result)
    return result


def _log(trial: Trial, family: str, tags: dict[str, str]) -> None:
    """One trial as a run below the search in progress."""
    import mlflow

    name = f"{family} trial {trial.number}"
    with mlflow.start_run(nested=True, run_name=name, tags={**tags, "malearn.trial": trial.state}):
        mlflow.log_params({"family": family, **trial.parameters})
        if np.isfinite(trial.error):
            mlflow.log_metrics(
                {"validation/mae": trial.error, "trial/seconds": round(trial.seconds, 3)}
            )


def _log_found(result: Found) -> None:
    import mlflow

    mlflow.log_params({"family": result.family, **result.parameters})
    mlflow.log_metrics(
        {
            "validation/mae": result.error,
            "validation/declared_mae": result.declared_error,
            "validation/n": float(result.rows),
            "trial/count": float(result.trials),
        }
    )


def _file(home: Home) -> Path:
    return home.root / "tuning.db"
