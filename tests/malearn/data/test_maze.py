"""Maze's run store: every task that ended is accounted for, however the files are found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from malearn.data.dataset import Dataset
from malearn.data.ingest import Ingest
from malearn.data.ingest_report import IngestReport
from malearn.data.maze import outcomes, reader, run, store
from malearn.data.maze.cursor import Cursor
from malearn.kernel import generic
from malearn.kernel.errors import InputError
from malearn.kernel.home import Home
from malearn.kernel.records import Execution, Rejected
from malearn.kernel.tool_types import declared, parse

RUN = "18e5d7d8-f37a-4a88-8eb1-074882395c8b"
T0 = 1_795_738_445.0


class Run:
    """A run's directory, written as Maze writes it, event by event."""

    def __init__(self, store: Path, run_id: str = RUN, kind: str = "static_runs") -> None:
        self.folder = store / kind / run_id
        self.folder.mkdir(parents=True)
        self.run_id, self.nodes, self.edges = run_id, {}, []
        self.now = T0
        self.save("running")

    def node(
        self, task: str, name: str, kind: str = "gpu", parents: Sequence[str] = (), **more: Any
    ) -> None:
        self.nodes[task] = {"task_name": name, "task_kind": kind, "parents": list(parents), **more}
        self.edges += [{"source": parent, "target": task} for parent in parents]
        self.save("running")

    def save(self, status: str, **more: Any) -> None:
        content = {
            "run_id": self.run_id,
            "workflow_id": "w",
            "status": status,
            "created_time": T0,
            "graph": {"nodes": list(self.nodes), "edges": self.edges},
            "task_nodes": self.nodes,
        }
        (self.folder / "run.json").write_text(json.dumps(content | more))

    def event(self, kind: str, task: str, **data: Any) -> None:
        said = {"type": kind, "seq": 1, "data": {"task_id": task, "attempt": 1} | data}
        self.raw(json.dumps(said) + "\n")

    def raw(self, text: str) -> None:
        with (self.folder / "events.jsonl").open("a") as file:
            file.write(text)

    def start(
        self, task: str, source: str = "task_kind_ema", seconds: float = 7.0, attempt: int = 1
    ) -> None:
        said = {"predicted_duration": seconds, "prediction_source": source}
        self.event("start_task", task, scheduling=said, attempt=attempt)

    def finish(
        self, task: str, result: object = None, seconds: float = 2.0, attempt: int = 1
    ) -> None:
        start, self.now = self.now, self.now + seconds
        times = {"started_at": start, "finished_at": self.now}
        self.event("finish_task", task, result=result, attempt=attempt, **times)

    def fail(self, task: str, attempt: int = 1) -> None:
        error = {"error_type": "oom", "message": "out of memory"}
        times = {"started_at": self.now, "finished_at": self.now + 1.0}
        self.event("task_exception", task, error=error, attempt=attempt, **times)


def chain(path: Path, **more: Any) -> Run:
    """Two tasks: one that reads, and one that answers with what the first says of it."""
    made = Run(path, **more)
    made.node("task_a", "read_pages", "cpu")
    made.node("task_b", "task2_llm_process_qwen", "gpu", ["task_a"])
    return made


ANSWER = {"text_length": 500, "token_count": 125, "reason": 1}
SAID = {"succ_task_feat": {"task2_llm_process_qwen": ANSWER}}


def read(path: Path, types: Any = None) -> list[Execution | Rejected]:
    types = types or declared()
    return [
        outcome
        for folder in store.find([path])
        for outcome in outcomes.of_run(run.read(folder), types)
    ]


def one(path: Path, function: str = "task2_llm_process_qwen") -> Execution:
    (found,) = [o for o in read(path) if isinstance(o, Execution) and o.function == function]
    return found


def take(home: Home, path: Path, cursor: Cursor | None = None) -> IngestReport:
    folders = [f for f in store.find([path]) if cursor is None or cursor.changed(f)]
    types = reader.known_types(home, folders)
    report = IngestReport()
    for batch, done in reader.read(folders, types, cursor):
        report += Ingest(home, types).take(batch, "maze")
        done()
    return report


def test_a_task_is_known_by_its_name_and_by_what_its_parents_say(tmp_path: Path) -> None:
    made = chain(tmp_path)
    made.finish("task_a", SAID)
    made.start("task_b", "malearn:model:v7", 3.5)
    made.finish("task_b", {"curr_task_feat": ANSWER | {"reason": 0}, "answer": "x" * 5000})
    found = one(tmp_path)
    assert found.tool_type == "llm_process"
    assert found.run == RUN
    assert found.seconds == 2.0
    assert found.serve[:2] == (500.0, 125.0)
    assert (found.serve[-1], found.ran[-1]) == (1.0, 0.0)
    assert (found.predicted, found.model_version) == (3.5, 7)


def test_what_a_stranger_says_of_the_function_does_not_count(tmp_path: Path) -> None:
    """Several tasks of a run may be of one function: only the parents' words are meant."""
    made = chain(tmp_path)
    made.node("task_c", "task2_llm_process_qwen", "gpu", ["task_d"])
    made.node("task_d", "read_pages", "cpu")
    made.finish("task_a", SAID)
    made.finish(
        "task_d", {"succ_task_feat": {"task2_llm_process_qwen": ANSWER | {"text_length": 9}}}
    )
    made.finish("task_b", {"curr_task_feat": ANSWER})
    made.finish("task_c", {"curr_task_feat": ANSWER})
    lengths = [o.serve[0] for o in read(tmp_path) if isinstance(o, Execution)]
    assert lengths == [500.0, 9.0]


def test_a_failed_attempt_is_rejected_and_the_one_after_it_teaches(tmp_path: Path) -> None:
    made = chain(tmp_path)
    made.finish("task_a", SAID)
    made.fail("task_b")
    made.fail("task_b", attempt=2)
    made.finish("task_b", {"curr_task_feat": ANSWER}, seconds=4.0, attempt=3)
    reasons = Counter(o.reason for o in read(tmp_path) if isinstance(o, Rejected))
    assert reasons == {"no_features": 1, "soft_failed": 2}
    assert one(tmp_path).seconds == 4.0
    home = Home.find(tmp_path / "home")
    report = take(home, tmp_path)
    assert report.records == report.accounted == 4
    assert report.rejected == {"soft_failed": 2}


def test_of_two_attempts_that_finished_the_last_counts(tmp_path: Path) -> None:
    made = chain(tmp_path)
    made.finish("task_b", {"curr_task_feat": ANSWER}, seconds=9.0)
    made.finish("task_b", {"curr_task_feat": ANSWER}, seconds=3.0, attempt=2)
    assert one(tmp_path).seconds == 3.0
    assert [o.reason for o in read(tmp_path) if isinstance(o, Rejected)] == ["duplicate"]


def test_the_model_that_a_task_is_anchored_to_is_its_context(tmp_path: Path) -> None:
    made = chain(tmp_path)
    made.nodes["task_b"]["model_anchor"] = {"local_model": "Qwen3-8B", "backend": "vllm"}
    made.save("running")
    made.finish("task_a", SAID)
    made.finish("task_b", {"curr_task_feat": ANSWER})
    assert one(tmp_path).context[:2] == ("Qwen3-8B", "vllm")
    assert one(tmp_path).serve_context == one(tmp_path).ran_context


def test_a_dynamic_run_names_its_tasks_as_it_appends_them(tmp_path: Path) -> None:
    made = Run(tmp_path, kind="dynamic")
    first, then = "abe37451-433d-4311-adac-91c716d9b3cb", "46047da3-af5e-42d2-b299-aee383c82918"
    made.event("append_task", first, task_name="read_pages", task_kind="cpu", parents=[])
    made.finish(first, SAID)
    made.event("append_task", then, task_name="task2_llm_process_qwen", parents=[first])
    made.finish(then, {"curr_task_feat": ANSWER})
    assert one(tmp_path).serve[:2] == (500.0, 125.0)
    assert one(tmp_path).run == RUN


def test_tasks_of_any_name_are_kept_with_what_was_announced_for_them(tmp_path: Path) -> None:
    made = chain(tmp_path)
    made.node("task_c", "gaia_fuse_answers", "gpu", ["task_a"])
    made.finish("task_a", {"succ_task_feat": {"gaia_fuse_answers": {"pages": 12, "note": "x"}}})
    made.finish("task_c", {"curr_task_feat": {"pages": 12, "output_tokens": 900}})
    home = Home.find(tmp_path / "home")
    assert take(home, tmp_path).tool_types["other"].accepted == 2
    other = generic.declared(home)["other"]
    assert other.feature_names == ("pages",), "what only the task itself reports comes too late"
    rows = {e.function: e for e in Dataset.open(home, other).read()}
    assert rows["gaia_fuse_answers"].serve == rows["gaia_fuse_answers"].ran == (12.0,)
    assert "other" not in declared(), "a store turns it on for its own home"


def test_a_tool_type_claims_by_kind_model_and_backend(tmp_path: Path) -> None:
    made = chain(tmp_path)
    made.node("task_c", "gaia_model_answer", "gpu", model_anchor={"local_model": "Qwen3-8B"})
    made.finish("task_c", {"curr_task_feat": {"pages": 3}})
    text = '[local_llm]\nkinds = ["gpu"]\nmodels = ["qwen*"]\nfeatures.pages = {}\n'
    (local,) = parse(text, "test")
    found = one_of(read(tmp_path, declared().with_added(local)))
    assert found.tool_type == "local_llm"


def one_of(found: list[Execution | Rejected]) -> Execution:
    (only,) = [o for o in found if isinstance(o, Execution)]
    return only


def test_a_store_is_found_by_any_of_its_directories(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    chain(workspace / "workflow_runs").finish("task_a", SAID)
    (workspace / "workflow_runs" / ".maze_core_process.lock").touch()
    runs = workspace / "workflow_runs" / "static_runs"
    for path in (workspace, workspace / "workflow_runs", runs, runs / RUN):
        assert [f.path.name for f in store.find([path])] == [RUN], path
    with pytest.raises(InputError, match="is no Maze run store"):
        store.find([tmp_path])
    with pytest.raises(InputError, match="does not exist"):
        store.find([tmp_path / "nowhere"])
    assert store.find([tmp_path / "nowhere"], waiting=True) == []


def test_damaged_lines_are_rejected_by_their_place(tmp_path: Path) -> None:
    made = chain(tmp_path)
    made.finish("task_a", SAID)
    made.raw('{"type": "finish_task", "data": \n[1, 2]\n\n')
    made.event("finish_task", "", result={})
    made.finish("task_b", {"curr_task_feat": ANSWER | {"reason": float("nan")}})
    found = [o for o in read(tmp_path) if isinstance(o, Rejected)]
    assert Counter(o.reason for o in found) == {
        "no_features": 1,
        "invalid_json": 3,
        "invalid_feature": 1,
    }
    assert all("events.jsonl of run" in o.detail for o in found if o.reason == "invalid_json")
    report = take(Home.find(tmp_path / "home"), tmp_path)
    assert report.records == report.accounted == 5


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"run_id": "x',
        "[]",
        '{"graph": 3, "task_nodes": [1]}',
        '{"graph": {"edges": [{"source": {}, "target": []}, 3]}, "task_nodes": {"x": []}}',
    ],
)
def test_a_run_whose_description_is_being_rewritten_is_read_by_its_events(
    tmp_path: Path, content: str
) -> None:
    made = chain(tmp_path)
    made.event(
        "finish_task",
        "task_a",
        started_at=T0,
        finished_at=T0 + 1,
        result=SAID,
        resource_observation={"task_name": "read_pages"},
    )
    made.event(
        "finish_task",
        "task_b",
        started_at=T0 + 2,
        finished_at=T0 + 4,
        result={"curr_task_feat": ANSWER},
        resource_observation={"task_name": "task2_llm_process_qwen"},
    )
    (made.folder / "run.json").write_text(content)
    assert one(tmp_path).serve[:2] == (500.0, 125.0)


def test_what_the_events_lost_is_read_from_the_description_once_the_run_is_over(
    tmp_path: Path,
) -> None:
    made = chain(tmp_path)
    made.finish("task_a", SAID)
    made.nodes["task_b"] |= {
        "status": "succeeded",
        "finished_time": T0 + 9.0,
        "duration_seconds": 3.0,
        "result_summary": {"curr_task_feat": ANSWER},
    }
    made.save("running")
    assert len(read(tmp_path)) == 1, "its event may still be written"
    made.save("succeeded")
    assert one(tmp_path).seconds == 3.0


def test_a_growing_store_is_read_once(tmp_path: Path) -> None:
    """A watcher looks again and again; a line that is still being written waits for its end."""
    home = Home.find(tmp_path / "home")
    made = chain(tmp_path / "store")
    made.finish("task_a", SAID)
    made.raw('{"type": "finish_task", "data": {"task_id": "task_b", "att')
    cursor = Cursor.open(home)
    assert take(home, tmp_path / "store", cursor).records == 1
    assert take(home, tmp_path / "store", cursor).records == 0
    times = {"started_at": T0 + 2, "finished_at": T0 + 5, "result": {"curr_task_feat": ANSWER}}
    made.raw('empt": 1, ' + json.dumps(times)[1:] + "}\n")
    report = take(home, tmp_path / "store", Cursor.open(home))
    assert (report.records, report.accepted) == (1, 1)
    assert take(home, tmp_path / "store", Cursor.open(home)).records == 0
    (home.data / "maze_runs.json").write_text("{")
    again = take(home, tmp_path / "store", Cursor.open(home))
    assert again.rejected == {"duplicate": 2}, "the cursor saves work and decides nothing"


def test_the_real_store_is_accounted_for_to_the_last_task(tmp_path: Path, traces: Path) -> None:
    real = traces / "maze_head"
    home = Home.find(tmp_path)
    assert len(store.find([real])) == 23
    report = take(home, real)
    assert report.records == report.accounted == 86, "84 finished tasks, and 2 attempts that failed"
    assert report.rejected == {"soft_failed": 2}
    accepted = {name: counts.accepted for name, counts in report.tool_types.items()}
    assert accepted == {"llm_process": 42, "llm_fuse2In1": 19, "other": 23}
    assert take(home, real).rejected == {"duplicate": 86}
    fused = Dataset.open(home, declared()["llm_fuse2In1"]).read()
    assert all(value == value for e in fused for value in e.serve), "both parents' halves are there"
    read = Dataset.open(home, declared()["llm_process"]).read()
    assert {e.model_version for e in read} == {None, 1}
