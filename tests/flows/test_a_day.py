"""A day in fast motion: the real logs arrive run by run, and everything else happens by itself.

A scheduler asks before each task and reports after it, through a real Redis; between groups of
runs the flows do what their schedules would have them do. Run 16 is the first on a backend
that takes a quarter of the time.
"""

from __future__ import annotations

import heapq
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from malearn import DAGTaskPredictor
from malearn.data.dataset import Dataset
from malearn.kernel.home import Home
from malearn.kernel.tool_types import declared
from malearn.learning import export, matrix, regressor
from malearn.learning.gate import Decision
from malearn.learning.matrix import Matrix
from malearn.learning.metrics import score
from malearn.lifecycle import logged_models, registry
from malearn.lifecycle.monitoring import Action
from malearn.lifecycle.registry import PREVIOUS, PRODUCTION
from tests.flows.conftest import Artifacts

pytestmark = pytest.mark.timeout(3600)  # it has servers to start and models to train

TOOL = "vlm_process"


@dataclass
class Day:
    """What happened: what the monitor saw, in order, and which version served from when on."""

    rows: Matrix
    watched: dict[str, Any] = field(default_factory=dict)
    served: list[tuple[int, float]] = field(default_factory=list)
    forced: int = 0
    answers: dict[str, int | None] = field(default_factory=dict)

    def mae(self, version: int, since: float) -> float:
        """Of `version` on the executions that started since then, in seconds."""
        rows = [i for i, e in enumerate(self.rows.executions) if e.start >= since]
        known = self.rows.rows(np.array(rows, dtype=np.intp))
        model = registry.model_file(self.rows.tool_type, version)
        return score(known.seconds, export.seconds(model, known)).mae


@pytest.fixture(scope="module")
def day(
    traces: Path,
    redis_url: str,
    tracking_uri: str,
    prefect_api: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Day]:
    home = Home(tmp_path_factory.mktemp("a day"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MALEARN_REDIS_URL", redis_url)
        patch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
        with DAGTaskPredictor(
            redis_url, tracking_uri, cache_dir=home.cache, refresh_interval=3600, budget=60.0
        ) as scheduler:
            yield _played(scheduler, traces, home)


def _played(scheduler: DAGTaskPredictor, traces: Path, home: Home) -> Day:
    from malearn.flows.ingest import ingest
    from malearn.flows.monitor import monitor
    from malearn.flows.promote import promote
    from malearn.flows.train import train

    tool_type, root = declared()[TOOL], str(home.root)
    day = Day(matrix.build(tool_type, []))

    def arrive(first: int, last: int) -> None:
        files = [traces / "maze" / f"run{n:02d}.jsonl" for n in range(first, last + 1)]
        _schedule(scheduler, files)
        ingest((), root)

    def retrain() -> None:
        trained = train(TOOL, root, ["xgboost"], trigger="schedule")
        assert trained.version is not None
        promote(TOOL, trained.version, root)
        note()

    def note() -> None:
        """Which version serves from here on, in the registry and in the scheduler."""
        scheduler.refresh()
        serving = registry.by_alias(tool_type, PRODUCTION)
        newest = max((e.end for e in Dataset.open(home, tool_type).read()), default=0.0)
        if serving and (not day.served or day.served[-1][0] != serving.number):
            day.served.append((serving.number, newest))

    def look(when: str) -> None:
        day.watched[when] = monitor([TOOL], root)[TOOL]
        note()
        model = scheduler.stats().models.get(TOOL)
        day.answers[when] = model.version if model else None

    arrive(1, 5)
    retrain()
    arrive(6, 15)
    look("before")
    retrain()
    arrive(16, 16)
    look("run 16")
    arrive(17, 17)
    look("run 17")
    day.rows = _rows(home)
    day.forced = _forced(day.rows)
    assert promote(TOOL, day.forced, root, bypass_gate=True).promoted
    note()
    arrive(18, 19)
    look("runs 18 and 19")
    arrive(20, 21)
    look("runs 20 and 21")
    day.rows = _rows(home)
    return day


def _schedule(scheduler: DAGTaskPredictor, files: list[Path]) -> None:
    """The tasks of `files` as a scheduler meets them: asked about, then reported, in time."""
    lines = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    tasks = [task for task in lines if _ran(task["data"])]
    before: Mapping[tuple[str, str], list[str]] = defaultdict(list)
    for task in tasks:
        for function in task["data"].get("succ_task_feat") or ():
            before[task["task_id"][:36], function].append(task["task_id"])
    running: list[tuple[float, int]] = []
    for i in sorted(range(len(tasks)), key=lambda i: float(tasks[i]["data"]["start_time"])):
        task, data = tasks[i], tasks[i]["data"]
        while running and running[0][0] <= data["start_time"]:
            _report(scheduler, tasks[heapq.heappop(running)[1]])
        function, identity = task["func_name"], task["task_id"]
        scheduler.estimate(function, "gpu", before[identity[:36], function], task_id=identity)
        heapq.heappush(running, (data["end_time"], i))
    while running:
        _report(scheduler, tasks[heapq.heappop(running)[1]])
    while scheduler.stats().queued:
        time.sleep(0.01)


def _ran(data: object) -> bool:
    if not isinstance(data, dict):
        return False
    start, end = data.get("start_time"), data.get("end_time")
    return isinstance(start, float) and isinstance(end, float) and start < end


def _report(scheduler: DAGTaskPredictor, task: Mapping[str, Any]) -> None:
    scheduler.collect_data_for_task(task["task_id"], task["func_name"], task["data"])


def _rows(home: Home) -> Matrix:
    tool_type = declared()[TOOL]
    return matrix.build(tool_type, Dataset.open(home, tool_type).read())


def _forced(rows: Matrix) -> int:
    """A version whose ONNX file is faithful to a model that learnt everything upside down."""
    import mlflow

    usual = float(np.median(rows.log_seconds))
    bad = regressor.fit("linear", replace(rows, seconds=np.exp(2 * usual - rows.log_seconds)))
    mlflow.set_experiment(rows.tool_type.registered_model)
    with mlflow.start_run(run_name="upside down") as run:
        native = logged_models.log_native(bad, rows)
        model = export.to_onnx(bad, export.metadata_for(bad, rows, run.info.run_id, 0))
        uri = logged_models.log_onnx(model, rows)
    tags = {"malearn.family": "linear", "malearn.native": native}
    number = registry.register(rows.tool_type, uri, run.info.run_id, tags)
    registry.decide(rows.tool_type, number, Decision(False, "linear", 0, ()), "upside down")
    return number


def test_the_first_model_serves_and_its_predictions_are_judged(day: Day) -> None:
    before = day.watched["before"]
    assert (before.production, day.answers["before"]) == (1, 1)
    (live,) = (one for one in before.report.live if one.version == 1)
    assert live.scores.mae < min(rival.mae for rival in live.baselines.values())
    # What schedulers were told is what a replay says that they should have been told.
    assert live.scores.mae == pytest.approx(before.report.scores["production"].mae, rel=0.05)


def test_while_nothing_changes_nothing_is_done(day: Day) -> None:
    verdict = day.watched["before"].report.decision
    assert (verdict.action, verdict.retrain) == (Action.NOTHING, False)


def test_another_backend_is_noticed_at_once_and_acted_on_when_seen_again(day: Day) -> None:
    first, second = day.watched["run 16"], day.watched["run 17"]
    assert first.report.decision.action is Action.WARN
    found = {d.name for d in first.report.drifts if d.found}
    assert found == {"seconds", "error"}  # tasks are the same as before, times are not
    assert second.report.decision.retrain
    assert second.production is not None
    assert f"version {second.production} was promoted" in second.retrained
    assert day.answers["run 17"] == second.production > 1


def test_no_model_is_worse_than_the_one_before_it_on_what_follows(day: Day) -> None:
    first: dict[int, float] = {}
    for number, since in day.served:
        if number != day.forced:
            first.setdefault(number, since)
    assert len(first) > 1
    for old, new in pairwise(first):
        assert day.mae(new, first[new]) <= day.mae(old, first[new])


def test_a_bad_model_that_is_forced_on_schedulers_is_rolled_back(day: Day) -> None:
    first, second = day.watched["runs 18 and 19"], day.watched["runs 20 and 21"]
    good = day.watched["run 17"].production
    assert (first.production, day.answers["runs 18 and 19"]) == (day.forced, day.forced)
    assert first.report.decision.action is Action.WARN
    assert second.report.decision.action is Action.ROLL_BACK
    assert (second.production, day.answers["runs 20 and 21"]) == (good, good)
    tool_type = declared()[TOOL]
    assert registry.by_alias(tool_type, PREVIOUS).number == day.forced
    why = registry.version(tool_type, day.forced).tags["malearn.unpublished"]
    assert "roll back to the last version" in why


def test_what_was_done_and_why_can_be_read_in_prefect(day: Day, artifacts: Artifacts) -> None:
    told = (artifact.data for artifact in artifacts("monitor"))
    (text,) = (page for page in told if f"# {TOOL}: rolled back" in page)
    assert f"In Production now: version {day.served[-1][0]}." in text
    assert "worse in two consecutive checks: roll back to the last version" in text
    for name in ("production", "previous", "function_median", "without_model", "batch_size"):
        assert f"| {name} |" in text.replace("**", "")


def test_every_look_is_a_point_on_the_curves_in_mlflow(day: Day) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("malearn-monitor")
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`malearn.tool_type` = '{TOOL}'")
    points = client.get_metric_history(run.info.run_id, "mae/production")
    assert [point.step for point in points] == list(range(1, len(day.watched) + 1))
    assert {f.path for f in client.list_artifacts(run.info.run_id, "plots")} == {
        "plots/error_over_time.png",
        "plots/predicted_against_actual.png",
    }
