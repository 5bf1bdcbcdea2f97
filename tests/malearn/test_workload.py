"""The workload leaves the records a Maze worker would, and leaves nothing else behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import threadpoolctl

from malearn import workload
from malearn.data import extract
from malearn.kernel import errors
from malearn.workload import inputs
from malearn.workload.tasks import MODEL_TASKS, Input, WorkloadTask
from malearn.workload.workflows import WORKFLOWS, WorkflowTemplate, plan

FEATURES = {  # CONTRACT.md
    "llm_process": {"text_length", "token_count", "batch_size", "reason"},
    "vlm_process": {
        "image_height",
        "image_width",
        "image_area",
        "image_aspect_ratio",
        "batch_size",
        "image_entropy",
        "edge_density",
        "text_area_ratio",
        "text_block_count",
        "avg_brightness",
        "brightness_variance",
        "prompt_length",
        "prompt_token_count",
        "reason",
    },
    "llm_fuse": {
        "prompt_length",
        "prompt_token_count",
        "text1_length",
        "text2_length",
        "text1_token_count",
        "text2_token_count",
        "reason",
    },
    "speech_process": {"duration", "audio_entropy", "audio_energy"},
}
KEYS = {"dag_id", "status", "curr_task_feat", "succ_task_feat", "start_time", "end_time"}
IGNORED = {"items_processed", "message", "final_answer"}

Record = dict[str, Any]
Runs = dict[str, dict[str, Record]]  # run id, then function


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture(scope="module")
def runs() -> Runs:
    """The records of runs that hold every workflow."""
    found: Runs = defaultdict(dict)
    for run in plan(12, seed=1):
        for task_id, record in run.records():
            assert task_id.startswith(f"{run.run_id}-")
            found[run.run_id][task_id[37:]] = json.loads(record, parse_constant=refuse)
    return found


def written(client: redis.Redis) -> Runs:
    runs: Runs = defaultdict(dict)
    for key in client.scan_iter("result:*"):
        task_id = key.removeprefix("result:")
        runs[task_id[:36]][task_id[37:]] = json.loads(client.get(key), parse_constant=refuse)
    return runs


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} in a record")


def eventually(condition: Callable[[], bool], what: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still waiting: {what}"
        time.sleep(0.02)


def tool_type(function: str) -> str | None:
    return next((name for name in FEATURES if name in function), None)


def every(runs: Runs) -> Iterator[tuple[str, Record]]:
    return ((function, record) for run in runs.values() for function, record in run.items())


def workflow_of(run: dict[str, Record]) -> WorkflowTemplate:
    return next(one for one in WORKFLOWS.values() if one.steps.keys() == run.keys())


# ── Records ───────────────────────────────────────────────────────────────────────────


def test_every_task_of_every_workflow_leaves_its_record(runs: Runs) -> None:
    shapes = {frozenset(run) for run in runs.values()}
    assert shapes == {frozenset(workflow.steps) for workflow in WORKFLOWS.values()}
    assert all(str(uuid.UUID(run_id)) == run_id for run_id in runs)


def test_a_record_has_the_contracts_keys_and_no_others(runs: Runs) -> None:
    for function, record in every(runs):
        assert set(record) <= KEYS | IGNORED, function
        assert record.keys() >= {"dag_id", "start_time", "end_time"}
        assert 0 < record["end_time"] - record["start_time"] < 60
        assert abs(record["end_time"] - time.time()) < 3600


def test_a_record_names_the_query_and_not_the_run(runs: Runs) -> None:
    for run_id, run in runs.items():
        queries = {record["dag_id"] for record in run.values()}
        assert len(queries) == 1
        assert queries != {run_id}


def test_a_model_task_reports_exactly_its_tool_types_features(runs: Runs) -> None:
    seen = Counter[str]()
    for function, record in every(runs):
        tool, features = tool_type(function), record.get("curr_task_feat")
        if tool is None or function == "task1_speech_process":
            continue
        assert FEATURES[tool] - {"batch_size"} <= set(features) <= FEATURES[tool], function
        assert all(isinstance(value, int | float) for value in features.values())
        seen[tool] += 1
    assert set(seen) == set(FEATURES)


def test_successor_features_name_functions_that_exist_and_wait_for_this_one(runs: Runs) -> None:
    for run in runs.values():
        workflow = workflow_of(run)
        for function, record in run.items():
            if function != "task1_speech_process":
                known = set(record.get("succ_task_feat") or ())
                assert known <= set(workflow.successors(function))


def test_every_model_task_was_described_before_it_ran(runs: Runs) -> None:
    for run in runs.values():
        known = known_before(run)
        for function in run:
            if tool_type(function) and function != "task1_speech_process":
                assert known[function], function


def known_before(run: dict[str, Record]) -> dict[str, dict[str, float]]:
    """What the predecessors said about each function, put together."""
    known: dict[str, dict[str, float]] = defaultdict(dict)
    for record in run.values():
        for function, features in (record.get("succ_task_feat") or {}).items():
            if isinstance(features, dict):
                known[function] |= features
            else:  # speech: flat
                known["task2_speech_process"][function] = features
    return known


def test_images_and_audio_arrive_as_they_were_described(runs: Runs) -> None:
    for run in runs.values():
        for function, features in known_before(run).items():
            if tool_type(function) in {"vlm_process", "speech_process"}:
                assert features.items() >= run[function]["curr_task_feat"].items()


def test_text_arrives_within_the_models_own_instruction(runs: Runs) -> None:
    for run in runs.values():
        for function, known in known_before(run).items():
            if tool_type(function) == "llm_process":
                ran = run[function]["curr_task_feat"]
                assert 0 < ran["text_length"] - known["text_length"] < 120
                assert ran["reason"] == known["reason"]


def test_each_predecessor_of_a_fuse_task_supplies_its_own_half(runs: Runs) -> None:
    for run in runs.values():
        for function in filter(lambda name: "fuse" in name, run):
            _, (first, second) = workflow_of(run).steps[function]
            halves = [run[name]["succ_task_feat"][function] for name in (first, second)]
            ran = run[function]["curr_task_feat"]
            assert {name for name in halves[0] if "text" in name} == {
                "text1_length",
                "text1_token_count",
            }
            for name in ("text1_length", "text1_token_count"):
                assert ran[name] == halves[0][name]
            for name in ("text2_length", "text2_token_count"):
                assert ran[name] == halves[1][name]
            assert ran["prompt_length"] > halves[0]["prompt_length"] == halves[1]["prompt_length"]


def test_speech_is_described_flat(runs: Runs) -> None:
    starts = [r for function, r in every(runs) if function == "task1_speech_process"]
    assert starts
    assert all(set(r["succ_task_feat"]) == FEATURES["speech_process"] for r in starts)


def test_no_task_starts_before_its_predecessors_ended(runs: Runs) -> None:
    for run in runs.values():
        for function, (_, after) in workflow_of(run).steps.items():
            for name in after:
                assert run[function]["start_time"] >= run[name]["end_time"]


def test_it_counts_what_it_wrote_and_writes_nothing_else(
    redis_url: str, client: redis.Redis
) -> None:
    seen: list[tuple[int, int]] = []
    before = dict(os.environ)
    count = workload.execute(
        redis_url, tasks=5, seed=2, workers=1, progress=lambda *now: seen.append(now)
    )
    assert seen == [(done + 1, count) for done in range(count)]
    assert len(client.keys("*")) == len(client.keys("result:*")) == count
    assert dict(os.environ) == before


def test_a_seed_decides_every_feature_and_every_run_is_new(
    redis_url: str, client: redis.Redis
) -> None:
    outcomes = []
    for seed in (3, 3, 4):
        client.flushdb()
        workload.execute(redis_url, tasks=2, seed=seed, workers=1)
        outcomes.append(written(client))
    first, again, other = map(features_by_query, outcomes)
    assert first == again
    assert not first.keys() & other.keys()
    assert not outcomes[0].keys() & outcomes[1].keys()


def features_by_query(runs: Runs) -> dict[tuple[str, str], object]:
    return {
        (record["dag_id"], function): (record.get("curr_task_feat"), record.get("succ_task_feat"))
        for function, record in every(runs)
    }


def test_the_default_plan_holds_enough_of_every_tool_type() -> None:
    steps = [step for run in plan(360, 0) for step in WORKFLOWS[run.name].steps.items()]
    typed = Counter(tool_type(name) for name, (perform, _) in steps if perform in MODEL_TASKS)
    assert 360 <= sum(typed.values()) <= 363
    assert all(typed[tool] >= 50 for tool in FEATURES)


def test_some_queries_are_posed_again_with_the_same_inputs() -> None:
    asked = Counter(run.query_id for run in plan(360, 0))
    assert 0.6 < len(asked) / asked.total() < 0.95


# ── Real work ─────────────────────────────────────────────────────────────────────────

VQA = "openagi/multimodal_vqa_complex"
DICE = np.random.default_rng(5)
SHORT, LONG = inputs.library()[:700], inputs.library()[:5000]
SMALL, LARGE = (DICE.integers(0, 256, (s, s, 3), dtype=np.uint8) for s in (200, 640))
BRIEF, LENGTHY = (DICE.normal(0, 0.1, 16_000 * s).astype(np.float32) for s in (4, 40))


@pytest.mark.parametrize(
    ("workflow", "function", "little", "much"),
    [
        ("gaia/speech", "task3_llm_process_qwen", [Input(SHORT)], [Input(LONG)]),
        ("gaia/speech", "task5_llm_fuse_answer", [Input(SHORT)] * 2, [Input(LONG)] * 2),
        ("gaia/speech", "task2_speech_process", [Input(samples=BRIEF)], [Input(samples=LENGTHY)]),
        (VQA, "task4a_vlm_process", [Input(images=(SMALL,))], [Input(images=(LARGE,))]),
        (VQA, "task4a_vlm_process", [Input(images=(SMALL,))], [Input(images=(SMALL,) * 6)]),
    ],
)
def test_more_input_is_more_work(
    workflow: str, function: str, little: list[Input], much: list[Input]
) -> None:
    assert work(workflow, function, much) > 1.5 * work(workflow, function, little)


def test_a_bigger_model_and_reasoning_work_longer_over_the_same_text() -> None:
    qwen, deepseek = (
        work("gaia/speech", name, [Input(SHORT)])
        for name in ("task3_llm_process_qwen", "task4_llm_process_deepseek")
    )
    assert deepseek > 1.5 * qwen


def work(workflow: str, function: str, given: list[Input]) -> float:
    """CPU seconds of one task at its quickest: unlike the clock, deaf to the neighbours."""
    perform, _ = WORKFLOWS[workflow].steps[function]
    task = WorkloadTask(function, (), tuple(given), (0,))
    taken = []
    with threadpoolctl.threadpool_limits(1):  # as in a worker
        for _ in range(3):
            start = time.process_time()
            perform(task)
            taken.append(time.process_time() - start)
    return min(taken)


@pytest.mark.parametrize("seed", range(8))
def test_inputs_are_text_images_and_audio_with_features(seed: int) -> None:
    dice = np.random.default_rng(seed)
    assert 100 <= extract.text_features(inputs.english(dice, 200, 5000))["text_length"] <= 5000
    image = inputs.drawing(dice, 16, 200)
    assert extract.image_features(image)["image_entropy"] > 0
    sound = inputs.sound(dice, 1, 5)
    assert 1 <= extract.audio_features(sound, inputs.RATE)["duration"] <= 5
    assert np.abs(sound).max() <= 1


# ── Leaving nothing behind ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("deadly", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_an_interrupted_or_killed_parent(
    redis_url: str, client: redis.Redis, deadly: signal.Signals, tmp_path: Path
) -> None:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from malearn import workload; workload.execute({redis_url!r}, seed=9, workers=2)"
    )
    paths = {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    with (tmp_path / "stderr").open("wb") as stderr:
        parent = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | paths, stderr=stderr
        )
    eventually(lambda: len(client.client_list()) >= 3, "both workers write")
    parent.send_signal(deadly)
    assert parent.wait(300) == -deadly
    eventually(lambda: len(client.client_list()) == 1, "both workers are gone")
    count = client.dbsize()
    time.sleep(0.3)
    assert client.dbsize() == count
    said = (tmp_path / "stderr").read_text()
    own = deadly == signal.SIGINT  # the parent's own traceback; its workers say nothing
    assert said.count("Traceback") == own, said


def test_an_interrupt_leaves_no_worker_in_a_process_that_goes_on(
    redis_url: str, client: redis.Redis
) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workload.execute(redis_url, tasks=40, progress=interrupt)
    eventually(lambda: len(client.client_list()) == 1, "both workers are gone")


# ── Refusals ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("tasks", "workers"), [(0, 1), (-3, 2), (5, 0)])
def test_nothing_to_do_or_nobody_to_do_it_is_refused(tasks: int, workers: int) -> None:
    with pytest.raises(errors.InputError, match=f"cannot execute {tasks} tasks with {workers}"):
        workload.execute("redis://127.0.0.1:1/0", tasks=tasks, workers=workers)


def test_a_redis_that_does_not_answer_is_named_before_anything_runs() -> None:
    with pytest.raises(errors.Unreachable, match="point MALEARN_REDIS_URL at another") as refusal:
        workload.execute("redis://:secret@127.0.0.1:1/0", tasks=1)
    assert "secret" not in str(refusal.value)
    with pytest.raises(errors.InputError, match="is not a usable Redis URL"):
        workload.execute("nonsense", tasks=1)


def test_a_redis_that_takes_no_record_stops_the_workload(
    redis_url: str, client: redis.Redis
) -> None:
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(errors.Unreachable, match="maxmemory"):
            workload.execute(redis_url, tasks=8)
    finally:
        client.config_set("maxmemory", 0)


def test_a_worker_that_dies_is_reported(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(errors.PlatformError, match="A workload worker died before"):
        workload.execute(redis_url, tasks=1)
