"""`malearn status --workflows` and `malearn eta`: when workflows end, for people and as JSON."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from malearn import DAGTaskPredictor, Workflow
from malearn.flows import workflow_progress
from malearn.flows.commands import app
from malearn.kernel.workflows import workflow_status
from malearn.kernel.workflows.workflow_status import WorkflowStatus


@pytest.fixture
def malearn(redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[..., Any]:
    monkeypatch.setenv("MALEARN_REDIS_URL", redis_url)
    monkeypatch.setenv("MALEARN_HOME", str(tmp_path))
    return lambda *words: CliRunner().invoke(app, words)


@pytest.fixture
def running(redis_url: str, tmp_path: Any) -> Iterator[str]:
    """A workflow of two tasks, the first one running, of which a scheduler has just asked."""
    run, now = str(uuid.uuid4()), time.time()
    tasks = {f"{run}-a": ("draft", "gpu", []), f"{run}-b": ("answer", "gpu", [f"{run}-a"])}
    workflow = Workflow(run, tasks, arrived=now - 5.0, deadline=now + 1.0)
    with (
        redis.Redis.from_url(redis_url) as client,
        DAGTaskPredictor(redis_url, cache_dir=tmp_path / "cache") as predictor,
    ):
        predictor.estimate_workflow(workflow, running={f"{run}-a": now - 4.0}, now=now)
        until = time.monotonic() + 300.0
        while client.get(workflow_status.KEY + run) is None:
            assert time.monotonic() < until, "it was never published"
            time.sleep(0.05)
        assert 0 < client.ttl(workflow_status.KEY + run) <= 3600
        yield run


def test_a_workflow_that_a_scheduler_asked_about_is_shown(
    malearn: Callable[..., Any], running: str
) -> None:
    one = json.loads(malearn("eta", running, "--json").stdout)
    assert (one["tasks"], one["done"], one["running"]) == (2, 0, ["draft"])
    assert one["next"] == ["draft", "answer"]
    assert one["late"] > 0.5
    assert one["end"]["low"] < one["end"]["expected"] < one["end"]["high"]
    listed = json.loads(malearn("status", "--workflows", "--json").stdout)
    assert running in [status["run_id"] for status in listed]
    assert running in malearn("status", "--workflows").stdout
    assert "running: draft" in malearn("eta", running).stdout


def test_a_clock_in_milliseconds_costs_no_other_workflow_its_line(
    malearn: Callable[..., Any], running: str, redis_url: str
) -> None:
    status, key = WorkflowStatus("in-ms", 1.754e12, 2, 1, 5.0, 4.0, 6.0), workflow_status.KEY
    with redis.Redis.from_url(redis_url) as client:
        client.set(f"{key}in-ms", status.to_json(), ex=60)
        listed, one = malearn("status", "--workflows"), malearn("eta", "in-ms")
        client.delete(f"{key}in-ms")
    assert (listed.exit_code, one.exit_code) == (0, 0)
    assert running in listed.stdout
    assert "1754000000005 s" in one.stdout


def test_every_run_id_has_one_row_and_leaves_room_for_the_other_columns(
    malearn: Callable[..., Any], redis_url: str
) -> None:
    given = {"x" * 5_000, "\u4e2d" * 90, "two\nlines", "", "  ", "sweep-" + "y" * 90 + "-0017"}
    with redis.Redis.from_url(redis_url) as client:
        for run_id in given:
            status = WorkflowStatus(run_id, time.time(), 4, 1, 9.0, 4.0, 16.0, running=("a\nb",))
            client.set(f"{workflow_status.KEY}{run_id}", status.to_json())
    heading, *rows = malearn("status", "--workflows").stdout.splitlines()
    assert heading.split("  ")[0] == "workflow"
    assert all(name in heading for name in ("done", "expected end", "late", "running"))
    assert len(rows) == len(given)
    assert all("25%" in row and row.rstrip().endswith("a\ufffdb") for row in rows)
    assert sum(row.startswith(('""', '"  "', "two\ufffdlines ")) for row in rows) == 3
    assert any(row.startswith("sweep-y") and "\u2026" in row and "-0017 " in row for row in rows)
    listed = json.loads(malearn("status", "--workflows", "--json").stdout)
    assert {one["run_id"] for one in listed} == given
    assert malearn("eta", "two\nlines").stdout.splitlines()[0] == "two\ufffdlines: 25% done"


def test_an_old_estimate_says_its_age_and_that_its_end_is_overdue(
    malearn: Callable[..., Any], redis_url: str
) -> None:
    now = time.time()
    # The first was due two hours ago, the second is not yet; of the third somebody just asked.
    old = {
        "due": (now - 7200.0, 9.0),
        "long": (now - 3600.0, 7200.0),
        "new": (now + 600.0, 9000.0),
    }
    with redis.Redis.from_url(redis_url) as client:
        for run_id, (updated, left) in old.items():
            status = WorkflowStatus(run_id, updated, 4, 1, left, 0.5 * left, 2.0 * left)
            client.set(f"{workflow_status.KEY}{run_id}", status.to_json())
    due, long, new = (malearn("eta", run_id).stdout for run_id in old)
    assert "overdue: that was 2.0 h ago" in due
    assert "estimated 2.0 h ago: no scheduler asked since" in due
    assert "estimated 1.0 h ago" in long
    assert "overdue" not in long + new
    assert "ago" not in new
    *rows, overdue, last = malearn("status", "--workflows").stdout.splitlines()
    assert "".join(rows).count("!") == 1  # after midnight rows have dates, and more lines
    assert overdue == "An expected end with ! has passed: the workflow is overdue."
    assert last.startswith("Made over a minute ago: 2 of 3 estimates, the oldest 2.0 h ago.")


def test_an_unknown_workflow_is_an_error_that_says_what_to_check(
    malearn: Callable[..., Any],
) -> None:
    done = malearn("eta", "nobody")
    assert done.exit_code == 1
    assert "no scheduler asked about this workflow within the last hour" in done.stderr


def test_the_monitor_says_how_intervals_of_whole_workflows_did(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.delete("malearn:workflow_scores")
        few = workflow_progress.described(workflow_progress.coverage(redis_url))
        client.lpush("malearn:workflow_scores", "nonsense", *["[false, 0.1]", "[true, -0.1]"] * 30)
        many = workflow_progress.described(workflow_progress.coverage(redis_url))
        client.delete("malearn:workflow_scores")
    assert "Too few workflows" in few
    assert "Of 40 predictions of whole workflows" in many


@pytest.mark.parametrize(
    "wrong",
    [
        {"spent": 1.0, "work": -1.0},
        {"seconds": 1e308},
        {"high": -5.0},
        {"done": 900},
        {"tasks": -2, "done": -3},
        {"tasks": 10**30},
        {"updated": 1e300},
        {"ended": -1e200},
        {"late": 7.0},
        {"unseen": -1},
    ],
)
def test_a_status_of_numbers_that_cannot_be_is_none(
    malearn: Callable[..., Any], redis_url: str, wrong: dict[str, float]
) -> None:
    sane = WorkflowStatus("foreign", 1.754e9, 2, 1, 5.0, 4.0, 6.0, late=0.5)
    assert workflow_status.read(sane.to_json()) == sane
    key = f"{workflow_status.KEY}foreign"
    with redis.Redis.from_url(redis_url) as client:
        client.set(key, json.dumps(json.loads(sane.to_json()) | wrong), ex=60)
        listed, one = malearn("status", "--workflows", "--json"), malearn("eta", "foreign")
        client.delete(key)
    assert (listed.exit_code, one.exit_code) == (0, 1)
    assert "foreign" not in [status["run_id"] for status in json.loads(listed.stdout)]
    assert "no scheduler asked about this workflow" in one.stderr
