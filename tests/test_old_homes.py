"""A home made by 0.1.0 is read, served from, monitored, trained and rolled back in by today's code.

`fixtures/home-0.1.0.tar.xz` holds its datasets, rejections, MLflow database and artifacts. The
tests follow each other on one copy of it, as the days of a home that was upgraded do.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest

from malearn import DAGTaskPredictor
from malearn.data.dataset import Dataset
from malearn.data.rejections import Rejections
from malearn.flows import doctor
from malearn.kernel import tool_types
from malearn.kernel.home import Home
from malearn.kernel.onnx import onnx_model
from malearn.kernel.tool_types import ToolType
from malearn.learning import matrix, regressor
from malearn.learning.matrix import Matrix
from malearn.lifecycle import (
    logged_models,
    mlflow_connection,
    monitoring,
    promotion,
    registry,
    runs,
    training,
    untrained,
)
from malearn.lifecycle.training import DatasetVersion
from malearn.platform import MLflowServer

TYPES = tool_types.declared()
#: How many executions of each tool type 0.1.0 had accepted.
ROWS = {"llm_process": 156, "vlm_process": 92, "llm_fuse2In1": 62, "speech_process": 50}
SPEECH, LLM = TYPES["speech_process"], TYPES["llm_process"]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The home of 0.1.0, with its MLflow up and connected."""
    place = tmp_path_factory.mktemp("old home", numbered=False)
    with tarfile.open(Path(__file__).parent / "fixtures" / "home-0.1.0.tar.xz") as archive:
        archive.extractall(place, filter="data")
    before = mlflow.get_tracking_uri()
    with MLflowServer(Home(place)) as server:
        mlflow_connection.connect(server.url)
        yield Home(place)
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(None)


def rows_of(home: Home, tool_type: ToolType) -> Matrix:
    return matrix.build(tool_type, Dataset.open(home, tool_type).read())


def production(tool_type: ToolType) -> registry.Version:
    version = registry.by_alias(tool_type, registry.PRODUCTION)
    assert version is not None
    return version


def test_its_datasets_and_rejections_are_read(old: Home) -> None:
    for name, count in ROWS.items():
        dataset = Dataset.open(old, TYPES[name])
        assert (dataset.rows, len(dataset.read(1))) == (count, count)
    assert sum(Rejections.open(old).counts().values()) > 0


def test_its_registry_and_decisions_are_read(old: Home) -> None:
    for name in ROWS:
        version = production(TYPES[name])
        last = registry.last_promoted(TYPES[name])
        assert last is not None
        assert (version.number, last.number) == (1, 1)
        assert version.decision is not None and version.decision.promote
        assert {"rows", "onnx"} <= {check.check for check in version.decision.reasons}
        assert promotion.verify_manual_promotion(rows_of(old, TYPES[name])) is None


def test_nothing_in_it_counts_as_untrained(old: Home) -> None:
    """0.1.0 noted in no tag until when it trained; the file of the version says so."""
    assert "malearn.trained_until" not in production(LLM).tags
    assert untrained.count(Dataset.open(old, LLM)) == 0


def test_a_scheduler_serves_its_models(old: Home, tmp_path: Path) -> None:
    uri = mlflow.get_tracking_uri()
    with DAGTaskPredictor("redis://127.0.0.1:1", uri, cache_dir=tmp_path / "cache") as predictor:
        predictor.refresh()
        features = dict.fromkeys(LLM.feature_names, 100.0)
        answer = predictor.estimate("task_llm_process", "gpu", [], features)
    assert (answer.source, answer.model_version) == ("model", 1)


@pytest.mark.parametrize("tool_type", [SPEECH, LLM], ids=lambda t: t.name)
def test_the_trainers_model_is_the_one_that_serves_and_can_be_fitted_again(
    old: Home, tool_type: ToolType
) -> None:
    version = production(tool_type)
    rows = matrix.build(
        tool_type,
        Dataset.open(old, tool_type).read(int(version.tags["malearn.dataset_version"])),
    )
    assert len(rows) == int(version.tags["malearn.rows"])
    native = logged_models.load_native(version.tags["malearn.native"])
    file = onnx_model.load(registry.model_file(tool_type, 1), tool_type, "it")
    answers = native.seconds(rows.inputs_for(native.columns))
    assert file.predict(rows.inputs_for(file.metadata.columns)) == pytest.approx(answers, rel=1e-4)
    again = regressor.fit(version.family, rows).seconds(rows.inputs)
    # Not the same: the history that it is fitted on has been improved since 0.1.0.
    assert float(np.median(np.abs(again / answers - 1))) < 0.1


def test_it_is_monitored_against_the_errors_that_0_1_0_kept(old: Home) -> None:
    dataset, known = Dataset.open(old, LLM), rows_of(old, LLM).executions
    later = known[-1].end - known[0].start + 60.0
    dataset.append(
        replace(e, task_id=f"later-{e.task_id}", start=e.start + later, end=e.end + later)
        for e in known[-80:]
    )
    report = monitoring.check(rows_of(old, LLM), TYPES)
    assert (report.production, report.rows) == (1, 80)
    assert "error" in {drift.name for drift in report.drifts}
    assert monitoring.act(report, LLM) in (1, None)
    run = mlflow.get_run(runs.log_monitoring(LLM, report.metrics(), {}))
    assert run.data.metrics["serving/checks"] >= 1


def test_training_goes_on_from_it_and_a_rollback_restores_it(old: Home) -> None:
    dataset, rows = Dataset.open(old, LLM), rows_of(old, LLM)
    assert untrained.count(dataset) == 80
    source = DatasetVersion(str(dataset.path), dataset.version or 0, dataset.first_versions())
    trained = training.train(rows, TYPES, source, families=("xgboost",))
    assert trained.version == 2
    assert "incumbent v1" in (trained.scores or {})
    assert "xgboost updated" in trained.candidates
    assert promotion.promote(rows, 2, bypass_gate=True).promoted
    assert registry.rollback(LLM) == (2, 1)
    assert production(LLM).number == 1


def test_its_runs_are_found_beside_those_of_today(old: Home) -> None:
    """A search over both finds the old metrics by their old names."""
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(LLM.registered_model)
    found = client.search_runs([experiment.experiment_id])
    names = {name for run in found for name in run.data.metrics}
    assert {"newest/mae", "test/mae", "choosing/mae", "validation/mae"} <= names


def test_the_doctor_loads_each_version_in_production_as_a_scheduler_would(
    old: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says what schedulers refuse, and what to do."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri())
    found = {finding.subject: finding for finding in doctor.examine(old)}
    assert found["model llm_process"].detail == "version 1 can be loaded"

    kept = mlflow.MlflowClient().get_model_version(SPEECH.registered_model, "1").source or ""
    (file,) = (old.mlruns / "artifacts").glob(f"*/models/{kept[-34:]}/artifacts/model.onnx")
    file.write_bytes(file.read_bytes()[:-1])
    found = {finding.subject: finding for finding in doctor.examine(old)}
    assert found["model llm_process"].level == "ok"
    assert (found["model speech_process"].level, found["model speech_process"].detail) == (
        "problem",
        "schedulers refuse it (version 1 is refused: it is not an ONNX file that malearn "
        "exported: the file is cut short); train, or roll back",
    )
