"""What people see in a browser after a retraining: MLflow, Prefect and the validation report."""

from __future__ import annotations

import json
import os
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
    page.open(
        mlflow_pages.comparison_page(seen.trained.run_id), "retraining on data v1", "validation"
    )
    client = mlflow.MlflowClient()
    experiment = client.get_run(seen.trained.run_id).info.experiment_id
    children = client.search_runs(
        [experiment], f"tags.mlflow.parentRunId = '{seen.trained.run_id}'"
    )
    runs = json.dumps([run.info.run_id for run in children], separators=(",", ":"))
    base = mlflow_pages.run_page(seen.trained.run_id).partition("/#/")[0]
    page.open(
        f'{base}/#/compare-runs?runs={runs}&experiments=["{experiment}"]',
        "Comparing 2 Runs",
        "xgboost on data v1",
        "linear on data v1",
        "test/mae",
    )
    page.picture("comparison")


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
    names = ("training-browsed-process", "candidates-browsed-process", "progress-browsed-process")
    page.shows(*names, f"{TOOL}: version 1")
    page.open(f"{site}/artifacts/key/training-browsed-process", f"train {TOOL}")
    page.run("document.querySelector('a[href*=\"/artifacts/artifact/\"]').click()")
    page.shows("passes the gate", "Trigger: a test.", "Candidates, compared in MLflow")
    links = page.run("[...document.querySelectorAll('a')].map(it => it.href).join(' ')")
    assert mlflow_pages.version_page(seen.tool_type, 1) in links


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
