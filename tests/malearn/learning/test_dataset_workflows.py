"""Workflows are found again in the datasets that their tasks were ingested into."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from malearn.data import run_logs
from malearn.data.ingest import Ingest
from malearn.data.maze import reader, store
from malearn.kernel.errors import InputError
from malearn.kernel.estimation import observation
from malearn.kernel.home import Home
from malearn.kernel.reading import run_ids, stream_entries
from malearn.kernel.tool_types import declared
from malearn.kernel.workflows import workflow_calibration
from malearn.learning import dataset_workflows, maze_traces, replayed_workflows, traces
from malearn.learning.traces import Traces
from tests.malearn.learning.test_simulation import write_log

RUN = "19725120-6620-445b-9f40-7ceccb20bae2"


def edges(found: Traces) -> dict[str, dict[str, tuple[str, str, frozenset[str]]]]:
    """By run and task: function, resource, predecessors."""
    return {
        one.run_id: {i: (f, on, frozenset(before)) for i, (f, on, before) in one.shape.items()}
        for run in found.runs
        for one in run.workflows
    }


def ingest(home: Path, *logs: Path) -> None:
    """Take `logs` into the datasets of `home`, one after the other."""
    for log in logs:
        for batch in run_logs.read([log]):
            Ingest(Home.find(home), declared()).take(batch, "log")


def test_workflows_of_logs_are_those_of_their_dataset(tmp_path: Path) -> None:
    log = write_log(tmp_path, 1)
    ingest(tmp_path, log)
    found = dataset_workflows.read(Home.find(tmp_path), declared())
    assert edges(found) == edges(traces.read([log]))
    assert len(found.runs) == 3, "cut into parts that teach each other"


def test_what_was_skipped_within_no_time_is_replayed_as_from_its_log(tmp_path: Path) -> None:
    log = write_log(tmp_path, 1)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    # Of one workflow its last task was skipped; of another, it never ended.
    first, *_, last = (line for line in lines if line["func_name"] == "task3_llm_fuse_answer")
    for line, end in ((first, first["data"]["start_time"]), (last, 1e300)):
        line["data"] |= {"end_time": end, "status": "skipped"}
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    ingest(tmp_path, log)
    found, logged = dataset_workflows.read(Home.find(tmp_path), declared()), traces.read([log])
    assert edges(found) == edges(logged)
    assert found.skipped == logged.skipped == {"a task has no plausible times": 1}
    (skipped,) = [
        task
        for run in found.runs
        for workflow in run.workflows
        for task in workflow.tasks.values()
        if task.unsuccessful
    ]
    assert (skipped.task_id, skipped.seconds) == (first["task_id"], observation.SHORTEST)


def test_workflows_whose_claimed_tasks_all_failed_are_replayed_as_from_their_log(
    tmp_path: Path,
) -> None:
    log = write_log(tmp_path, 1)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    # The first workflow of all, which is older than what the datasets hold; and the last.
    failed = {run_ids.run_of(lines[at]["task_id"]) for at in (0, -1)}
    for line in lines:
        if run_ids.run_of(line["task_id"]) in failed and "llm" in line["func_name"]:
            line["data"]["status"] = "failed"
    # Another has no times at all.
    lines.append({"task_id": f"{RUN}-task2_llm_process_short", "data": {}})
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    ingest(tmp_path, log)
    found, logged = dataset_workflows.read(Home.find(tmp_path), declared()), traces.read([log])
    assert edges(found) == edges(logged)
    assert edges(found).keys() > failed
    assert found.skipped == logged.skipped == {"a task has no plausible times": 1}


def test_failed_workflows_older_than_what_is_read_are_counted(tmp_path: Path) -> None:
    """Of those, what has succeeded may lie beyond the newest rows."""
    for number, failed in ((1, True), (2, False)):
        log = write_log(tmp_path, number)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        for line in lines:
            line["data"] |= {"status": "failed"} if failed else {}
        log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        ingest(tmp_path, log)
    skipped = Counter[str]()
    found = dataset_workflows.workflows(Home.find(tmp_path), declared(), skipped, rows=10)
    assert found
    assert all(one.arrived > 1.7e9 + 20_000.0 for one in found)
    assert skipped["it is older than the tasks that are read of the datasets"] > 0


def test_what_was_known_of_a_task_is_reported_by_its_predecessor_again(tmp_path: Path) -> None:
    log = write_log(tmp_path, 1)
    ingest(tmp_path, log)
    found = dataset_workflows.read(Home.find(tmp_path), declared())
    logged = {t.task_id: t for r in traces.read([log]).runs for w in r.workflows
              for t in w.tasks.values()}  # fmt: skip
    for run in found.runs:
        for task in (t for w in run.workflows for t in w.tasks.values()):
            theirs = logged[task.task_id].record
            assert task.record is not None
            assert theirs is not None
            of_llm = [name for name in theirs.successors if "llm_process" in name]
            assert task.record.successors.keys() == theirs.successors.keys()
            for name in of_llm:
                # And what the declaration gives those that nobody named.
                assert task.record.successors[name].items() >= theirs.successors[name].items()


def test_edges_of_a_maze_store_are_kept(tmp_path: Path, maze_run: Callable[..., None]) -> None:
    for number in range(5):
        maze_run(tmp_path / "workspace", number)
    home, folders = Home.find(tmp_path / "home"), store.find([tmp_path / "workspace"])
    types = reader.known_types(home, folders)
    for batch, done in reader.read(folders, types):
        Ingest(home, types).take(batch, "maze")
        done()
    found = dataset_workflows.read(home, types)
    own = {
        run: {i.replace(" ", "-", 1): (f, on, frozenset(b.replace(" ", "-", 1) for b in before))
              for i, (f, on, before) in shape.items()}
        for run, shape in edges(maze_traces.read([tmp_path / "workspace"], types)).items()
    }  # fmt: skip
    assert edges(found) == own


def test_edges_that_a_scheduler_knew_are_those_of_the_workflow(tmp_path: Path) -> None:
    """The last two overlap in time with nothing that would tell who waited for whom."""
    entries = [
        ("a_llm_process", 0.0, 5.0, []),
        ("b_llm_process", 5.0, 9.0, [f"{RUN}-a_llm_process"]),
        ("c_write", 9.0, 9.5, [f"{RUN}-a_llm_process"]),
    ]
    found = [
        stream_entries.read(
            json.dumps({
                "task_id": f"{RUN}-{function}", "function": function,
                "start": 1.7e9 + start, "end": 1.7e9 + end,
                "ran": {"text_length": 5, "token_count": 1},
                "predecessors": before, "resource": "io" if function == "c_write" else "gpu",
            }),
            declared(),
        )
        for function, start, end, before in entries
    ]  # fmt: skip
    Ingest(Home.find(tmp_path), declared()).take(found, "stream")
    (one,) = dataset_workflows.workflows(Home.find(tmp_path), declared())
    assert one.shape[f"{RUN}-c_write"] == ("c_write", "io", [f"{RUN}-a_llm_process"])
    assert one.critical_path == 9.0


def test_a_home_without_datasets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no workflow yet; ingest something first"):
        dataset_workflows.read(Home.find(tmp_path), declared())


def test_recent_executions_alone_calibrate_whole_workflows(tmp_path: Path) -> None:
    """What a model carries: predictions of workflows, replayed without knowing what followed."""
    ingest(tmp_path, *(write_log(tmp_path, number) for number in range(1, 6)))
    found = dataset_workflows.workflows(Home.find(tmp_path), declared())
    scores = replayed_workflows.scores(found, declared())
    assert len(scores) == 94  # two each, of all but the first third
    covered = workflow_calibration.coverage(scores)
    assert covered is not None
    assert 0.65 < covered.inside < 0.95
    assert replayed_workflows.scores([], declared()) == ()
