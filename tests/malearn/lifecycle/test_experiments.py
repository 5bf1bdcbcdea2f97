"""Searches and experiments in MLflow: what they leave there, and that none is promoted."""

from __future__ import annotations

from dataclasses import replace

import mlflow
import pytest
from mlflow.entities import Run

from malearn.data.dataset import Dataset
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.learning import matrix
from malearn.learning.matrix import Matrix
from malearn.lifecycle import promotion, registry, training, tuning, untrained
from malearn.lifecycle.training import DatasetVersion, Trained

SOURCE = DatasetVersion("/data/a table", 3)
LIMITS = {"data_version": "dataset version 3", "data_rows": "the newest 120 rows"}


@pytest.fixture(scope="module")
def rows(own_tool_type: ToolType, synthetic) -> Matrix:
    return matrix.build(own_tool_type, synthetic(own_tool_type, 120))


def train(rows: Matrix, source: DatasetVersion = SOURCE, **options: object) -> Trained:
    types = ToolTypes([rows.tool_type])
    return training.train(rows, types, source, families=("linear",), **options)


def children(run: Run) -> list[Run]:
    client = mlflow.MlflowClient()
    parent = f"tags.mlflow.parentRunId = '{run.info.run_id}'"
    return client.search_runs([run.info.experiment_id], parent)


@pytest.mark.usefixtures("connected")
def test_each_trial_is_a_run_below_its_search(rows: Matrix, home: Home) -> None:
    told: list[str] = []
    (found,) = tuning.tune(rows, SOURCE, home, ["linear"], trials=3, progress=told.append)
    assert "linear: trial 3 of 3, complete, best MAE" in told[-1]
    experiment = mlflow.get_experiment_by_name(rows.tool_type.registered_model)
    client = mlflow.MlflowClient()
    (search,) = client.search_runs(
        [experiment.experiment_id],
        "tags.`malearn.search` = 'true' AND attributes.run_name = 'search linear'",
    )
    trials = children(search)
    assert {run.data.tags["malearn.trial"] for run in trials} == {"complete"}
    assert len(trials) == 3
    assert search.data.metrics["validation/mae"] == pytest.approx(found.error)
    assert min(r.data.metrics["validation/mae"] for r in trials) >= found.error
    assert not any(name.startswith("test/") for run in trials for name in run.data.metrics)
    assert tuning.found(home, rows.tool_type.name) == [found]

    trained = train(rows, found={"linear": {"alpha": 1.0}})
    names = {run.data.params["alpha"] for run in children(mlflow.get_run(trained.run_id))}
    assert names == {"10.0", "1.0"}


@pytest.mark.usefixtures("connected")
def test_what_is_trained_on_a_part_says_so_and_is_never_promoted_by_accident(
    rows: Matrix, home: Home
) -> None:
    limited = replace(SOURCE, limits=LIMITS)
    trained = train(rows, limited)
    run = mlflow.get_run(trained.run_id)
    words = "dataset version 3, the newest 120 rows"
    assert run.info.run_name == f"experiment on {words}"
    assert run.data.tags["malearn.limits"] == words
    assert LIMITS.items() <= children(run)[0].data.params.items()
    assert registry.version(rows.tool_type, trained.version).tags["malearn.limits"] == words

    refused = promotion.promote(rows, trained.version)
    assert not refused.promoted
    assert f"trained on {words}" in refused.why
    assert registry.by_alias(rows.tool_type, registry.PRODUCTION) is None
    by_hand = promotion.promote(rows, trained.version, bypass_gate=True)
    assert by_hand.promoted, by_hand.why

    again = train(rows, limited)
    assert not again.decision.promote
    assert "not compared with incumbent v" in again.why


@pytest.mark.usefixtures("connected")
def test_an_experiment_leaves_its_rows_untrained(
    synthetic, own_tool_type: ToolType, home: Home
) -> None:
    own = replace(own_tool_type, name=f"{own_tool_type.name}_part")
    dataset = Dataset.open(home, own)
    dataset.append(synthetic(own, 90))
    source = DatasetVersion(str(dataset.path), dataset.version, limits=LIMITS)
    train(matrix.build(own, dataset.read()), source)
    assert untrained.count(dataset) == 90
    train(matrix.build(own, dataset.read()), replace(source, limits={}))
    assert untrained.count(dataset) == 0
