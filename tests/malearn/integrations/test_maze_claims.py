"""Tasks that are claimed by what they run with, from a Maze store to a model that answers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from malearn import maze
from malearn.data.dataset import Dataset
from malearn.data.ingest import Ingest
from malearn.data.ingest_report import IngestReport
from malearn.data.maze import reader, store
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolTypes, declared, parse
from malearn.learning import matrix
from malearn.lifecycle import promotion, training
from malearn.lifecycle.training import DatasetVersion
from malearn.serving import DAGTaskPredictor

DECLARED = """
[toy_backend]
backends = ["vllm*"]
[toy_backend.features]
pages = { unit = "pages", min = 0 }
"""


def seconds(pages: int) -> float:
    return 1.0 + pages / 10.0


def write_run(folder: Path, number: int, pages: int) -> None:
    """A run in Maze's store: a task that announces pages, and one for each of two backends."""
    start, run = 1.79e9 + 60.0 * number, f"{number:08d}-f37a-4a88-8eb1-074882395c8b"
    anchors = {"task_b": "vllm-0.11", "task_c": "transformers"}
    nodes: dict[str, Any] = {"task_a": {"task_name": "read", "task_kind": "cpu", "parents": []}}
    for task, backend in anchors.items():
        nodes[task] = {
            "task_name": f"gaia_answer_{task}",
            "task_kind": "gpu",
            "parents": ["task_a"],
            "model_anchor": {"local_model": "Qwen3-8B", "backend": backend},
        }
    said = {f"gaia_answer_{task}": {"pages": pages} for task in anchors}
    ended = [("task_a", 0.5, {"succ_task_feat": said})]
    ended += [(task, seconds(pages), {"curr_task_feat": {"pages": pages}}) for task in anchors]
    events = [
        {"task_id": task, "started_at": start, "finished_at": (start := start + took)}
        | {"result": result}
        for task, took, result in ended
    ]
    place = folder / "static_runs" / run
    place.mkdir(parents=True)
    described = {"run_id": run, "status": "succeeded", "task_nodes": nodes}
    (place / "run.json").write_text(json.dumps(described))
    lines = [json.dumps({"type": "finish_task", "data": data}) + "\n" for data in events]
    (place / "events.jsonl").write_text("".join(lines))


def ingested(home: Home, folder: Path, types: ToolTypes) -> IngestReport:
    report = IngestReport()
    for batch, done in reader.read(store.find([folder]), types):
        report += Ingest(home, types).take(batch, "maze")
        done()
    return report


def test_tasks_that_are_claimed_by_their_backend_are_answered_by_a_model(
    head: Callable[[], Any], connected: str, tmp_path: Path
) -> None:
    dice, home = random.Random(1), Home(tmp_path / "home")
    for number in range(120):
        write_run(tmp_path / "workspace", number, dice.randint(1, 400))
    types = declared().with_added(parse(DECLARED, "a test")[0])
    report = ingested(home, tmp_path / "workspace", types)
    assert report.tool_types["toy_backend"].accepted == 120
    assert sum(report.rejected.values()) == 240, "of other backends, or without any"

    dataset = Dataset.open(home, types["toy_backend"])
    assert {e.context[:2] for e in dataset.read()} == {("Qwen3-8B", "vllm-0.11")}
    rows = matrix.build(dataset.tool_type, dataset.read())
    source = DatasetVersion(str(home.data), dataset.version)
    trained = training.train(rows, types, source, families=["linear"])
    assert trained.version is not None
    assert trained.passes, trained.why
    assert promotion.promote(rows, trained.version).promoted

    def task(name: str, task_id: str, backend: str) -> Any:
        anchor = {"local_model": "Qwen3-8B", "backend": backend}
        return SimpleNamespace(
            task_id=task_id, task_name=name, task_kind="gpu", model_anchor=anchor, resources={}
        )

    with DAGTaskPredictor("", connected, cache_dir=tmp_path / "c", tool_types=types) as predictor:
        assert predictor.wait_until_ready(60.0)
        maze.install(predictor)
        path, run = head(), "99999999-f37a-4a88-8eb1-074882395c8b"
        ours = task("gaia_answer_task_b", "task_b", "vllm-0.11")
        others = task("gaia_answer_task_c", "task_c", "transformers")
        before = SimpleNamespace(task_id="task_a", task_name="read", task_kind="cpu")
        said = {"succ_task_feat": {"gaia_answer_task_b": {"pages": 200}}}
        ended = {"workflow_id": run, "result": said, "started_at": 1.8e9, "finished_at": 1.8e9 + 1}
        path._observe_task_runtime(before, ended, success=True)
        dynamic = SimpleNamespace(run_id=run, tasks={}, task_parents={"task_b": {"task_a"}})
        found = path._dynamic_scheduling_context(dynamic, ours)
        assert found["prediction_source"] == f"malearn:model:v{trained.version}"
        assert found["predicted_duration"] == pytest.approx(seconds(200), rel=0.2)
        assert (
            path._dynamic_scheduling_context(dynamic, others)["prediction_source"]
            != (found["prediction_source"])
        )
        maze.uninstall()
