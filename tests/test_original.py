"""What the documentation of the original module promises its readers, promise by promise.

It describes a predictor per tool type, `ExecTimePredictor`, and the scheduler's `DAGTaskPredictor`
above them, which learns by itself from what workers leave in Redis. Both are used here as that
documentation uses them: no MLflow, no Prefect, no declaration in a file.
"""

from __future__ import annotations

import csv
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from malearn import DAGTaskPredictor, ExecTimePredictor
from malearn.kernel.errors import InputError
from malearn.kernel.process_declaration import HERE
from malearn.serving import daps

RUN = "19725120-6620-445b-9f40-7ceccb20bae2"


@pytest.fixture
def scheduler(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., DAGTaskPredictor]]:
    """Builds predictors that learn in `<tmp_path>/models`, as a scheduler has one."""
    built: list[DAGTaskPredictor] = []

    def build(**more: Any) -> DAGTaskPredictor:
        given = {"model_dir": tmp_path / "models", "model": "linear", "retrain_after": 30} | more
        built.append(DAGTaskPredictor(redis_url, budget=5.0, **given))
        built[-1].wait_until_ready(60)
        return built[-1]

    yield build
    for predictor in built:
        predictor.close(60)


@pytest.fixture
def video_process() -> Iterator[str]:
    """The name of a new tool type, which is forgotten after the test."""
    name = f"video_{uuid.uuid4().hex[:8]}"
    yield name
    if HERE.has_added(name):
        HERE.remove(name)
    for pattern in [
        p for p, owner in DAGTaskPredictor.func_name_to_tool_type.items() if owner == name
    ]:
        del DAGTaskPredictor.func_name_to_tool_type[pattern]


def work(client: redis.Redis, function: str, tokens: int, number: int) -> str:
    """A worker has finished a task: its record is in Redis. Gives the task's id."""
    task_id = f"{uuid.UUID(int=number)}-{function}"
    start = 1_000_000.0 + 100.0 * number
    record = {
        "start_time": start,
        "end_time": start + 1.0 + tokens / 100,
        "curr_task_feat": {"text_length": 4 * tokens, "token_count": tokens},
    }
    client.set(f"result:{task_id}", json.dumps(record))
    return task_id


def wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 240
    while not done():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)


# Each predictor is of one tool type, with model and data of its own.


def test_the_four_tool_types_have_the_features_that_are_listed() -> None:
    listed = ExecTimePredictor.tool_types
    assert listed["llm_process"] == ["text_length", "token_count", "batch_size", "reason"]
    assert listed["speech_process"] == ["duration", "audio_entropy", "audio_energy"]
    assert {"text1_length", "text2_token_count", "reason"} <= set(listed["llm_fuse2In1"])
    assert {"image_height", "edge_density", "prompt_length"} <= set(listed["vlm_process"])


def test_models_and_data_stand_below_the_model_dir_apart_for_each_tool_type(
    tmp_path: Path,
) -> None:
    for name in ("llm_process", "speech_process"):
        with ExecTimePredictor(name, "linear", model_dir=tmp_path, retrain_after=0) as predictor:
            for number in range(30):
                given = dict.fromkeys(ExecTimePredictor.tool_types[name], number + 1.0)
                given |= {"text_length": 50.0 * (number + 1)} if name == "llm_process" else {}
                predictor.collect_data(1.0 + number, given | {"reason": 0})
            assert predictor.train_model()
        assert (tmp_path / name / "model.onnx").is_file()
        assert (tmp_path / name / "executions").is_dir()


@pytest.mark.parametrize("model", ["xgboost", "mlp", "linear"])
def test_three_families_of_models_can_be_chosen(model: str, tmp_path: Path) -> None:
    with ExecTimePredictor("llm_process", model, model_dir=tmp_path) as predictor:
        assert predictor.predict({"text_length": 10}) > 0


def test_xgboost_is_the_default(tmp_path: Path) -> None:
    source = random.Random(0)
    with ExecTimePredictor("llm_process", model_dir=tmp_path, retrain_after=0) as predictor:
        for _ in range(60):
            tokens = source.randint(10, 3000)
            predictor.collect_data(0.5 + tokens / 100, {"token_count": tokens})
        predictor.train_model()
        assert predictor.estimate({"token_count": 100}).source == "model"
    from malearn.kernel import tool_types
    from malearn.kernel.onnx import onnx_model

    artifact = (tmp_path / "llm_process" / "model.onnx").read_bytes()
    loaded = onnx_model.load(artifact, tool_types.declared()["llm_process"], "the model")
    assert loaded.metadata.family == "xgboost"


def test_an_outlier_teaches_no_model(tmp_path: Path) -> None:
    errors = []
    for odd in ((), (90_000.0,)):
        place = tmp_path / str(len(odd))
        with ExecTimePredictor("llm_process", "linear", model_dir=place, retrain_after=0) as one:
            for number in range(60):
                tokens = 100 + 37 * number % 1000
                one.collect_data(1.0 + tokens / 100, {"token_count": tokens})
                if number == 40:
                    for seconds in odd:
                        one.collect_data(seconds, {"token_count": tokens})
            one.train_model()
            errors.append(
                sum(abs(one.predict({"token_count": t}) - 1 - t / 100) for t in (200, 800))
            )
    assert errors[1] < errors[0] + 2.0


def test_missing_features_take_their_defaults_and_the_rest_may_be_missing(tmp_path: Path) -> None:
    with ExecTimePredictor("llm_process", "linear", model_dir=tmp_path) as predictor:
        predictor.collect_data(7.0, {"token_count": 10, "batch_size": 1, "reason": 0})
        whole = predictor.predict({"token_count": 10, "batch_size": 1, "reason": 0})
        assert predictor.predict({"token_count": 10}) == whole
        assert predictor.predict({}) > 0


# What a scheduler calls.


def test_a_function_name_is_mapped_to_its_tool_type() -> None:
    names = DAGTaskPredictor.func_name_to_tool_type
    assert names["llm_fuse"] == "llm_fuse2In1"
    with DAGTaskPredictor("redis://127.0.0.1:1/0") as predictor:
        predictor.collect_data_for_task(
            f"{RUN}-vlm_process",
            "vlm_process",
            {"start_time": 1.0, "end_time": 9.0, "curr_task_feat": {"image_height": 10}},
        )
        assert predictor.estimate("vlm_inference_v1", "gpu").source == "tool_history"


def test_features_come_from_the_predecessors_through_redis_alone(
    scheduler: Callable[..., DAGTaskPredictor], redis_client: redis.Redis
) -> None:
    predictor = scheduler()
    ids = [
        work(redis_client, "task2_llm_process", tokens, number)
        for number, tokens in enumerate((100, 2000) * 4)
    ]
    for task_id in ids:
        predictor.collect_data_for_task(task_id, "task2_llm_process")
    wait_for(lambda: predictor.stats().collected == len(ids))
    for name, tokens in (("short", 100), ("long", 2000)):
        told = {"task2_llm_process": {"text_length": 4 * tokens, "token_count": tokens}}
        record = {"start_time": 1.0, "end_time": 2.0, "succ_task_feat": told}
        redis_client.set(f"result:{RUN}-{name}", json.dumps(record))
    short = predictor.predict("task2_llm_process", "gpu", [f"{RUN}-short"])
    long = predictor.predict("task2_llm_process", "gpu", [f"{RUN}-long"])
    assert short < 5.0 < long


def test_the_results_of_all_predecessors_are_read(
    scheduler: Callable[..., DAGTaskPredictor], redis_client: redis.Redis
) -> None:
    """Each of two texts that are fused is known to the task that made it, and to no other."""
    function, predictor = "task4_llm_fuse_answer", scheduler()
    for number, tokens in enumerate((10, 3000) * 4):
        own = {"text1_token_count": tokens, "text2_token_count": tokens}
        start = 1_000_000.0 + 100.0 * number
        record = {"start_time": start, "end_time": start + tokens / 100, "curr_task_feat": own}
        task_id = f"{uuid.UUID(int=number)}-{function}"
        redis_client.set(f"result:{task_id}", json.dumps(record))
        predictor.collect_data_for_task(task_id, function)
    wait_for(lambda: predictor.stats().collected == 8)
    found = {}
    for tokens in (10, 3000):
        halves = {name: {name: tokens} for name in ("text1_token_count", "text2_token_count")}
        for name, half in halves.items():
            record = {"start_time": 1.0, "end_time": 2.0, "succ_task_feat": {function: half}}
            redis_client.set(f"result:{RUN}-{name}-{tokens}", json.dumps(record))
        ids = [f"{RUN}-{name}-{tokens}" for name in halves]
        found[tokens] = predictor.predict(function, "gpu", ids)
    assert found[10] < 3.0 < 10.0 < found[3000]


def test_while_nothing_is_known_the_defaults_are_15_3_and_1_seconds(
    scheduler: Callable[..., DAGTaskPredictor],
) -> None:
    predictor = scheduler()
    assert [predictor.predict("task9_llm_process", kind, []) for kind in ("gpu", "cpu", "io")] == [
        15.0,
        3.0,
        1.0,
    ]


def test_while_a_prediction_fails_the_defaults_are_used() -> None:
    with DAGTaskPredictor("redis://127.0.0.1:1/0") as predictor:
        assert predictor.predict("task9_llm_process", "gpu", [f"{RUN}-before"]) == 15.0


@pytest.mark.parametrize("record", ["", "{", "[]", '{"succ_task_feat": 3}'])
def test_what_is_no_record_is_as_good_as_none(
    record: str, scheduler: Callable[..., DAGTaskPredictor], redis_client: redis.Redis
) -> None:
    redis_client.set(f"result:{RUN}-before", record)
    assert scheduler().predict("task9_llm_process", "cpu", [f"{RUN}-before"]) == 3.0


def test_a_scheduler_learns_by_itself_from_redis_and_goes_on_after_a_restart(
    scheduler: Callable[..., DAGTaskPredictor], redis_client: redis.Redis, tmp_path: Path
) -> None:
    """Durations, CSV datasets, training at the threshold in the background, and recovery."""
    function, source = "task2_llm_process_qwen", random.Random(1)
    predictor = scheduler()
    for number in range(40):
        task_id = work(redis_client, function, source.randint(10, 3000), number)
        predictor.collect_data_for_task(task_id, function)  # reads the record from Redis
    known = {"text_length": 4000, "token_count": 1000}
    wait_for(lambda: predictor.estimate(function, "gpu", features=known).source == "model")
    before = predictor.estimate(function, "gpu", features=known)
    assert before.seconds == pytest.approx(11.0, rel=0.25)
    for number in range(40, 80):  # as many again: the model is trained on, in the background
        task_id = work(redis_client, function, source.randint(10, 3000), number)
        predictor.collect_data_for_task(task_id, function)
    first = before.model_version
    wait_for(lambda: predictor.estimate(function, "gpu", features=known).model_version != first)
    before = predictor.estimate(function, "gpu", features=known)
    predictor.close(60)
    assert predictor.stats().internal_errors == 0

    place = tmp_path / "models" / "llm_process"
    with (place / "data" / "llm_process_data.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80
    row = rows[0]
    assert list(row)[:3] == ["task_id", "timestamp", "text_length"]
    assert float(row["execution_time"]) == pytest.approx(1.0 + float(row["token_count"]) / 100)

    redis_client.flushall()  # recovery is from the disk
    after = scheduler().estimate(function, "gpu", features=known)
    assert (after.source, after.model_version) == ("model", before.model_version)
    assert after.seconds == pytest.approx(before.seconds, rel=0.2)
    # The same directory, opened by the predictor of that tool type alone.
    with ExecTimePredictor("llm_process", "linear", model_dir=tmp_path / "models") as one:
        assert one.estimate(known, function).source == "model"


def test_the_dataset_of_the_original_is_where_a_predictor_begins(tmp_path: Path) -> None:
    file = tmp_path / "llm_process" / "data" / "llm_process_data.csv"
    file.parent.mkdir(parents=True)
    names = "task_id,timestamp,text_length,token_count,batch_size,reason,execution_time"
    rows = [f"N/A,2025-08-0{day}T10:00:00,400,100,1,0,{day}.5" for day in range(1, 8)]
    file.write_text("\n".join([names, *rows]) + "\n")
    with ExecTimePredictor("llm_process", "linear", model_dir=tmp_path) as predictor:
        answer = predictor.estimate({"text_length": 400, "token_count": 100})
        assert answer.source != "heuristic"
        assert 1.0 < answer.seconds < 9.0
        predictor.collect_data(4.0, {"text_length": 400, "token_count": 100})
    with file.open(newline="", encoding="utf-8") as lines:
        assert [float(row["execution_time"]) for row in csv.DictReader(lines)][-2:] == [7.5, 4.0]


def test_predictions_give_criticality_and_urgency_their_values() -> None:
    critical = daps.criticality(predicted_seconds=30.0, expected_dag_seconds=60.0)
    urgent = daps.urgency(remaining_inferences=1, max_known_inferences=4)
    assert daps.score(urgent, critical) > daps.score(urgent, critical / 2)


# A new kind of task, in three steps.


@pytest.mark.parametrize("first", ["features", "functions"])
def test_a_new_tool_type_takes_three_steps_and_their_order_is_free(
    first: str,
    video_process: str,
    scheduler: Callable[..., DAGTaskPredictor],
    redis_client: redis.Redis,
    tmp_path: Path,
) -> None:
    if first == "functions":
        DAGTaskPredictor.func_name_to_tool_type["cut_clip"] = video_process
    ExecTimePredictor.tool_types[video_process] = ["duration", "frame_count"]
    DAGTaskPredictor.func_name_to_tool_type["cut_clip"] = video_process
    predictor = scheduler()
    assert predictor.func_name_to_tool_type["cut_clip"] == video_process

    record = {"start_time": 10.0, "end_time": 52.0, "curr_task_feat": {"duration": 12}}
    redis_client.set(f"result:{RUN}-task3_cut_clip", json.dumps(record))
    predictor.collect_data_for_task(f"{RUN}-task3_cut_clip", "task3_cut_clip")
    wait_for(lambda: predictor.predict("task3_cut_clip", "gpu", []) == pytest.approx(42.0))
    predictor.close(60)
    assert (tmp_path / "models" / video_process / "data" / f"{video_process}_data.csv").is_file()


def test_what_is_set_on_one_predictor_stays_with_it() -> None:
    with DAGTaskPredictor("redis://127.0.0.1:1/0") as one:
        one.func_name_to_tool_type["cut_clip"] = "vlm_process"
        assert "cut_clip" not in DAGTaskPredictor.func_name_to_tool_type


def test_models_come_from_one_place() -> None:
    with pytest.raises(InputError, match="models come from it or from tracking_uri: give one"):
        DAGTaskPredictor(model_dir="models", tracking_uri="http://127.0.0.1:1")
    with pytest.raises(InputError, match="is another name of home: give one of them"):
        ExecTimePredictor("llm_process", home="a", model_dir="b")
