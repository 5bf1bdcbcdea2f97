"""What people see in a browser after a retraining: MLflow, Prefect and the validation report."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import mlflow
import pytest

from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolType, declared
from malearn.lifecycle import mlflow_pages
from malearn.lifecycle.promotion import Promoted
from malearn.lifecycle.training import Trained
from tests.browser.conftest import Page
from tests.flows.conftest import records

TOOL = "browsed_process"
DECLARATION = f"""
[{TOOL}]
resource = "cpu"
[{TOOL}.features]
length = {{ unit = "pages", min = 0, max = 100000, monotone = 1 }}
"""


@dataclass(frozen=True)
class Seen:
    """A tool type after one turn of its lifecycle, and what the flows came to."""

    tool_type: ToolType
    trained: Trained
    promoted: Promoted
    flow_run: UUID
    report: Path


@pytest.fixture(scope="module")
def seen(
    page: Page, tracking_uri: str, prefect_api: str, tmp_path_factory: pytest.TempPathFactory
) -> Seen:
    """A hundred tasks, four of which break their contract. Asks for `page`, so that all this is
    not done where there is no browser."""
    place = tmp_path_factory.mktemp("pages")
    types = place / "types.toml"
    types.write_text(DECLARATION)
    log = place / "run.jsonl"
    lines = [*_lines(100, 1, lambda dice: dice.randint(100, 4000)), *_lines(4, 2, lambda _: -7)]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    home = Home(place / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MALEARN_TOOL_TYPES", str(types))
        patch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
        patch.delenv("MALEARN_REDIS_URL", raising=False)
        from malearn.flows.ingest import ingest
        from malearn.flows.promote import promote
        from malearn.flows.train import train

        ingest([str(log)], str(home.root))
        state = train(TOOL, str(home.root), ["xgboost", "linear"], "a test", return_state=True)
        trained = state.result()
        promoted = promote(TOOL, trained.version, str(home.root))
        tool_type = declared()[TOOL]
    (report,) = (home.data / "_reports").glob("*.html")
    return Seen(tool_type, trained, promoted, state.state_details.flow_run_id, report)


def _lines(count: int, seed: int, length):
    features = lambda dice: {"length": length(dice)}  # noqa: E731
    return records(count, f"task2_{TOOL}", seed, features, {})


def test_mlflow_compares_the_candidates_of_a_tool_type(seen: Seen, page: Page) -> None:
    base = mlflow_pages.run_page(seen.trained.run_id).partition("/#/")[0]
    experiment = mlflow.get_run(seen.trained.run_id).info.experiment_id
    # By an address that says nothing of a layout, in a browser that has seen none.
    text = page.open(
        f"{base}/#/experiments/{experiment}", "retraining on data v1", "Model training"
    )
    assert "test/mae" in text
    assert "Ask questions about" not in text  # which the open assistant says
    page.picture("experiment", height=620)
    text = page.open(
        mlflow_pages.comparison_page(seen.trained.run_id),
        "xgboost on data v1",
        "linear on data v1",
        "test/mae",
        "validation",
    )
    assert "retraining on" not in text
    sections = re.findall(r"^(test|validation)\s*\(\d+\)", text, re.MULTILINE)
    assert sections == ["test", "validation"]
    page.picture("comparison")


def test_mlflow_shows_the_dataset_of_a_candidate(seen: Seen, page: Page) -> None:
    (child, *_) = mlflow.MlflowClient().search_runs(
        [mlflow.get_run(seen.trained.run_id).info.experiment_id],
        f"tags.mlflow.parentRunId = '{seen.trained.run_id}'",
    )
    page.open(mlflow_pages.run_page(child.info.run_id), f"{TOOL} v1")
    page.click_part(f"{TOOL} v1 (")
    page.shows("Data details for", "2 datasets used", "length", "seconds")


def test_mlflow_shows_a_retraining_with_its_plots(seen: Seen, page: Page) -> None:
    text = page.open(
        mlflow_pages.run_page(seen.trained.run_id), "retraining on data v1", "malearn.trigger"
    )
    assert "2 candidates on 100" in text
    explained = mlflow_pages.run_page(seen.trained.run_id).replace(
        "?", "/artifacts/explanations/worst_1.png?"
    )
    page.open(explained, "explanations.json", "worst_1.png")
    page.picture("explanation")
    plots = mlflow_pages.run_page(seen.trained.run_id).replace("?", "/artifacts/plots?")
    page.open(plots, "all_candidates.png", "learning_curve.png", "predicted_against_actual.png")
    page.open(plots.replace("/plots?", "/plots/learning_curve.png?"), "learning_curve.png")
    page.picture("retraining")


def test_mlflow_shows_a_version_with_its_decision(seen: Seen, page: Page) -> None:
    text = page.open(
        mlflow_pages.version_page(seen.tool_type, seen.trained.version),
        "It may serve:",
        "Production",
    )
    assert "fitted on 100 browsed_process executions of 1 function" in text
    assert all(f"✓ {reason.detail}" in text for reason in seen.promoted.reasons)
    page.picture("version")


def test_prefect_shows_a_run_with_its_artifacts(seen: Seen, page: Page, prefect_api: str) -> None:
    site = prefect_api.removesuffix("/api")
    page.log_in(site, os.environ["PREFECT_API_AUTH_STRING"])
    page.open(f"{site}/runs/flow-run/{seen.flow_run}", f"train {TOOL}", "a test", "Artifacts")
    page.click("Artifacts")
    page.shows("training-browsed-process")
    page.picture("prefect")
    names = ("training-browsed-process", "candidates-browsed-process", "progress-browsed-process")
    page.shows(*names, f"{TOOL}: version 1")
    page.open(f"{site}/artifacts/key/training-browsed-process", f"train {TOOL}")
    page.run("document.querySelector('a[href*=\"/artifacts/artifact/\"]').click()")
    page.shows("passes the gate", "Trigger: a test.", "Candidates, compared in MLflow")
    links = page.run("[...document.querySelectorAll('a')].map(it => it.href).join(' ')")
    assert mlflow_pages.version_page(seen.tool_type, 1) in links


def test_prefect_offers_each_deployment_with_a_form(
    seen: Seen, page: Page, prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client

    from malearn.flows import deployments

    types = tmp_path / "types.toml"
    types.write_text(DECLARATION)
    monkeypatch.setenv("MALEARN_TOOL_TYPES", str(types))
    with get_client(sync_client=True) as client:
        deployments.deploy(client, tmp_path)
        train = client.read_deployment_by_name("train/train-one-tool-type")
    site = prefect_api.removesuffix("/api")
    page.log_in(site, os.environ["PREFECT_API_AUTH_STRING"])
    page.open(f"{site}/deployments", *(one["name"] for one in deployments.declared()))
    text = page.open(
        f"{site}/deployments/deployment/{train.id}/run",
        "A declared tool type.",
        "Model families to try",
        "Search for better hyper-parameters first",
    )
    assert "home" not in text.split()
    assert "trigger" not in text.split()
    page.picture("form", height=1250)


def test_the_validation_report_names_the_failed_expectation_and_asks_nobody(
    seen: Seen, page: Page
) -> None:
    text = page.open(seen.report.as_uri(), "Validation report", "Rejected records", "Logs read")
    assert "length is between 0 and 100,000 pages" in text
    assert "-7" in text
    assert "100 accepted · 4 quarantined · dataset version 1" in text
    assert "run.jsonl\t208" in text
    assert "read_pages (" in text or "task1_" in text
    page.picture("validation", height=1200)
    assert page.run("performance.getEntriesByType('resource').length") == 0
