from __future__ import annotations

import json
import logging
import math
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from malearn import ExecTimePredictor
from malearn.data.dataset import Dataset
from malearn.data.rejections import Rejections
from malearn.kernel import tool_types
from malearn.kernel.errors import (
    DatasetError,
    DeclarationError,
    InputError,
    TrainingError,
    UnknownToolType,
)
from malearn.kernel.records import RejectReason
from malearn.learning.families import FAMILIES

Task = tuple[dict[str, float], float]
NAME = "llm_process"
FEATURES = {"text_length": 1200, "token_count": 300}


def drawn(count: int, seed: int = 0) -> list[Task]:
    """Tasks whose seconds follow from their features, but for a tenth of noise."""
    source = random.Random(seed)
    tasks = []
    for _ in range(count):
        tokens, batch = source.randint(10, 3_000), source.randint(1, 8)
        seconds = (0.5 + tokens / 100 * math.sqrt(batch)) * math.exp(source.gauss(0, 0.1))
        features = {"text_length": 4.2 * tokens, "token_count": tokens, "batch_size": batch}
        tasks.append((features, seconds))
    return tasks


def collect(predictor: ExecTimePredictor, tasks: list[Task]) -> None:
    for features, seconds in tasks:
        assert predictor.collect_data(seconds, features)


def error(answer: Callable[[dict[str, float]], float], tasks: list[Task]) -> float:
    return sum(abs(answer(features) - seconds) for features, seconds in tasks) / len(tasks)


def dataset(home: Path, name: str = NAME) -> Dataset:
    return Dataset(home / name / "executions", ExecTimePredictor.tool_types.declared()[name])


def wait_for(done: Callable[[], bool], seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)


@pytest.fixture
def predictor(tmp_path: Path) -> Iterator[ExecTimePredictor]:
    """One that trains only when told to."""
    with ExecTimePredictor(NAME, "linear", tmp_path, retrain_after=0) as built:
        yield built


# The ladder.


def test_knowing_nothing_it_answers_with_the_assumption(predictor) -> None:
    prediction = predictor.estimate(FEATURES)
    assert (prediction.seconds, prediction.source, prediction.confidence) == (15, "heuristic", 0)
    assert prediction.model_version is None


def test_one_execution_teaches_the_next_prediction(predictor) -> None:
    predictor.collect_data(42.0, FEATURES)
    prediction = predictor.estimate(FEATURES)
    assert prediction.source == "function_history"
    assert prediction.seconds == pytest.approx(42.0)


def test_a_function_of_its_own_starts_from_its_tool_type(predictor) -> None:
    predictor.collect_data(42.0, FEATURES, function="one")
    assert predictor.estimate(FEATURES, "two").source == "tool_history"
    predictor.collect_data(3.0, FEATURES, function="two")
    assert predictor.predict(FEATURES, "two") == pytest.approx(3.0)
    assert predictor.predict(FEATURES, "one") == pytest.approx(42.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_what_the_features_say(family: str, tmp_path: Path) -> None:
    with ExecTimePredictor(NAME, family, tmp_path, retrain_after=0) as predictor:
        collect(predictor, drawn(300))
        assert predictor.train_model() is True
        unseen = drawn(100, seed=1)
        assert predictor.estimate(unseen[0][0]).source == "model"
        assert error(predictor.predict, unseen) < 0.5 * error(lambda _: 15.0, unseen)
        importance = predictor.get_feature_importance()
    assert sum(importance.values()) == pytest.approx(1.0)
    assert importance["token_count"] + importance["text_length"] > importance["reason"]


@pytest.mark.parametrize("shape", ["nothing", "none", "wild", "words", "unknown"])
def test_whatever_is_asked_the_answer_is_a_time(shape: str, predictor) -> None:
    collect(predictor, drawn(60))
    predictor.train_model()
    features = {
        "nothing": {},
        "none": {"token_count": None},
        "wild": {"token_count": 1e300, "text_length": -math.inf, "batch_size": 10**400},
        "words": {"token_count": "many", "text_length": math.nan},
        "unknown": {"colour": 3.0},
    }[shape]
    prediction = predictor.estimate(features)
    assert 0.0 < prediction.low < prediction.seconds < prediction.high < math.inf


def test_intervals_enclose_most_outcomes(predictor) -> None:
    collect(predictor, drawn(100))
    predictor.train_model()
    inside = 0
    tasks = drawn(200, seed=1)
    for features, seconds in tasks:
        prediction = predictor.estimate(features)
        inside += prediction.low <= seconds <= prediction.high
        predictor.collect_data(seconds, features)
    assert 0.7 < inside / len(tasks) < 0.9


# What is collected.


def test_numpy_numbers_are_numbers(predictor, tmp_path: Path) -> None:
    assert predictor.collect_data(np.float32(2.5), {"token_count": np.int64(7)}, task_id="a")
    predictor.close()
    (execution,) = dataset(tmp_path).read()
    assert (execution.task_id, round(execution.seconds, 3)) == ("a", 2.5)
    assert execution.serve[1] == 7.0


def test_what_nobody_declared_is_ignored_and_defaults_complete_the_rest(
    predictor, tmp_path: Path
) -> None:
    assert predictor.collect_data(2.0, {"token_count": 7, "colour": "red", "text_length": None})
    predictor.close()
    (execution,) = dataset(tmp_path).read()
    assert execution.ran == pytest.approx((math.nan, 7.0, 1.0, 0.0), nan_ok=True)


@pytest.mark.parametrize("seconds", [0, -1.0, math.nan, math.inf, 3e6, 10**400])
def test_a_time_that_is_none_is_an_input_error(seconds: float, predictor) -> None:
    with pytest.raises(
        InputError, match="actual_time: must be greater than 0 and less than 30 days"
    ):
        predictor.collect_data(seconds, FEATURES)


@pytest.mark.parametrize("seconds", ["12", None, True])
def test_a_time_that_is_no_number_is_an_input_error(seconds: object, predictor) -> None:
    with pytest.raises(InputError, match=f"^actual_time: must be seconds, not {seconds!r}"):
        predictor.collect_data(seconds, FEATURES)


def test_features_without_names_are_an_input_error(predictor) -> None:
    with pytest.raises(InputError, match=r"^features: must be numbers by name, not a list\.$"):
        predictor.collect_data(1.0, [1, 2, 3])


@pytest.mark.parametrize(
    ("features", "reason", "detail"),
    [
        ({"token_count": "many"}, "invalid_feature", "token_count is 'many', not a finite number"),
        ({"token_count": math.nan}, "invalid_feature", "token_count is nan, not a finite number"),
        ({"token_count": -1}, "invalid_feature", "token_count is -1, not between 0 and 200000"),
        ({"colour": 3}, "no_features", "it has none of its tool type's features"),
    ],
)
def test_features_that_are_not_believed_are_kept_apart_and_do_not_teach(
    features: dict[str, object], reason: str, detail: str, predictor, tmp_path: Path
) -> None:
    assert predictor.collect_data(7.0, features, task_id="bad") is False
    assert predictor.estimate(FEATURES).source == "heuristic"
    predictor.close()
    (refusal,) = Rejections(tmp_path / "_rejected").read(NAME)
    assert refusal.rejected.task_id == "bad"
    assert (refusal.rejected.reason, refusal.rejected.detail) == (RejectReason(reason), detail)
    assert refusal.seconds == 7.0
    assert dataset(tmp_path).rows == 0


def test_four_threads_collect_and_ask_and_nothing_is_lost(tmp_path: Path) -> None:
    with ExecTimePredictor(NAME, "linear", tmp_path) as predictor:

        def report(number: int) -> None:
            for i, (features, seconds) in enumerate(drawn(150, seed=number)):
                predictor.collect_data(seconds, features, task_id=f"{number}-{i}")
                assert 0.0 < predictor.predict(features) < math.inf

        threads = [threading.Thread(target=report, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    ids = {execution.task_id for execution in dataset(tmp_path).read()}
    assert ids == {f"{number}-{i}" for number in range(4) for i in range(150)}


def test_single_calls_share_a_commit(predictor, tmp_path: Path) -> None:
    tasks = drawn(500)
    collect(predictor, tasks)
    predictor.close()
    assert len(dataset(tmp_path).history()) < 10, "many rows share a commit"


@pytest.mark.parametrize("count", [5, 60], ids=["before a model", "while one is fitted"])
def test_a_program_that_just_ends_loses_nothing(count: int, tmp_path: Path) -> None:
    script = (
        "from malearn import ExecTimePredictor\n"
        f"p = ExecTimePredictor('{NAME}', home={str(tmp_path)!r})\n"
        f"for i in range({count}): p.collect_data(1.0 + i, {{'token_count': i}})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert dataset(tmp_path).rows == count


def test_what_cannot_be_written_waits_until_it_can(tmp_path: Path) -> None:
    obstacle = tmp_path / NAME / "executions"
    obstacle.parent.mkdir()
    obstacle.write_text("a file where the table should be")
    predictor = ExecTimePredictor(NAME, home=tmp_path)
    assert predictor.collect_data(2.0, FEATURES)
    assert predictor.predict(FEATURES) == pytest.approx(2.0)
    with pytest.raises((DatasetError, OSError)):
        predictor.close()
    obstacle.unlink()
    predictor.close()
    assert dataset(tmp_path).rows == 1


def test_a_closed_one_still_predicts_and_takes_in_nothing(predictor) -> None:
    predictor.collect_data(42.0, FEATURES)
    predictor.close()
    predictor.close()
    assert predictor.predict(FEATURES) == pytest.approx(42.0)
    with pytest.raises(InputError, match="is closed and takes in nothing more"):
        predictor.collect_data(42.0, FEATURES)


# Training.


def test_too_few_executions_are_a_training_error(predictor) -> None:
    collect(predictor, drawn(3))
    with pytest.raises(TrainingError) as refused:
        predictor.train_model()
    assert str(refused.value) == (
        "llm_process cannot be trained: linear needs 30 rows, there are 3."
    )


def test_importance_without_a_model_says_what_to_do(predictor) -> None:
    with pytest.raises(TrainingError, match=r"there is no model to ask yet; call train_model\(\)"):
        predictor.get_feature_importance()


def test_incremental_training_waits_for_something_new(predictor) -> None:
    collect(predictor, drawn(40))
    assert predictor.train_model(incremental=True) is True
    assert predictor.train_model(incremental=True) is False
    first = predictor.estimate(FEATURES).model_version
    predictor.collect_data(9.0, FEATURES)
    assert predictor.train_model(incremental=True) is True
    assert predictor.estimate(FEATURES).model_version > first


def test_a_model_arrives_by_itself_once_enough_is_new(tmp_path: Path) -> None:
    with ExecTimePredictor(NAME, "linear", tmp_path, retrain_after=40) as predictor:
        tasks = drawn(80)
        collect(predictor, tasks[:39])
        time.sleep(0.1)
        assert not (tmp_path / NAME / "model.onnx").exists()
        collect(predictor, tasks[39:40])
        wait_for(lambda: predictor.estimate(FEATURES).source == "model")
        first = predictor.estimate(FEATURES).model_version
        collect(predictor, tasks[40:])
        wait_for(lambda: predictor.estimate(FEATURES).model_version != first)


def test_a_failure_in_the_background_reaches_the_log_and_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / NAME / "model.onnx" / "in the way").mkdir(parents=True)
    with ExecTimePredictor(NAME, "linear", tmp_path, retrain_after=30) as predictor:
        caplog.set_level(logging.WARNING, "malearn")
        collect(predictor, drawn(30))
        wait_for(lambda: "could not train, will try again" in caplog.text)
        assert predictor.collect_data(2.0, FEATURES)
        assert predictor.estimate(FEATURES).source == "function_history"


# Another day.


def test_a_restart_keeps_data_model_importance_and_history(tmp_path: Path) -> None:
    with ExecTimePredictor(NAME, home=tmp_path, retrain_after=0) as before:
        collect(before, drawn(80))
        before.train_model()
        importance, prediction = before.get_feature_importance(), before.estimate(FEATURES)
    with ExecTimePredictor(NAME, home=tmp_path, retrain_after=0) as after:
        assert after.get_feature_importance() == importance
        again = after.estimate(FEATURES)
        assert (again.source, again.model_version) == ("model", prediction.model_version)
        assert again.seconds == pytest.approx(prediction.seconds, rel=1e-3)
        assert again.high == pytest.approx(prediction.high, rel=1e-2)
        assert after.train_model(incremental=True) is False
    assert dataset(tmp_path).rows == 80


def test_what_was_collected_before_a_restart_counts_towards_the_next_model(
    tmp_path: Path,
) -> None:
    with ExecTimePredictor(NAME, "linear", tmp_path, retrain_after=50) as before:
        collect(before, drawn(49))
    with ExecTimePredictor(NAME, "linear", tmp_path, retrain_after=50) as after:
        after.collect_data(9.0, FEATURES)
        wait_for(lambda: after.estimate(FEATURES).source == "model")


def test_a_damaged_model_is_not_used_and_does_not_stop_anyone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ExecTimePredictor(NAME, "linear", tmp_path, retrain_after=0) as before:
        collect(before, drawn(40))
        before.train_model()
    file = tmp_path / NAME / "model.onnx"
    file.write_bytes(file.read_bytes()[:200])
    with ExecTimePredictor(NAME, "linear", tmp_path, retrain_after=0) as after:
        assert after.estimate(FEATURES).source == "function_history"
        assert "is refused: it is not an ONNX file that malearn exported" in caplog.text
        after.train_model()
        assert after.estimate(FEATURES).source == "model"


def test_importance_of_another_model_is_not_shown(tmp_path: Path) -> None:
    with ExecTimePredictor(NAME, "linear", tmp_path, retrain_after=0) as before:
        collect(before, drawn(40))
        before.train_model()
    file = tmp_path / NAME / "importance.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model": "another"}))
    with (
        ExecTimePredictor(NAME, "linear", tmp_path, retrain_after=0) as after,
        pytest.raises(TrainingError, match="no model to ask"),
    ):
        after.get_feature_importance()


# Tool types.


@pytest.fixture
def added() -> Iterator[str]:
    name = "video_process"
    ExecTimePredictor.tool_types[name] = ["duration", "frame_count", "batch_size"]
    yield name
    ExecTimePredictor.tool_types.pop(name, None)


def test_the_view_shows_the_declaration() -> None:
    shown = dict(ExecTimePredictor.tool_types)
    assert shown == {t.name: list(t.feature_names) for t in tool_types.declared().values()}
    assert shown["speech_process"] == ["duration", "audio_entropy", "audio_energy"]


def test_an_added_tool_type_works_and_survives_a_restart(added: str, tmp_path: Path) -> None:
    source = random.Random(3)
    with ExecTimePredictor(added, "linear", tmp_path, retrain_after=0) as predictor:
        for _ in range(60):
            duration = source.uniform(1, 100)
            features = {"duration": duration, "frame_count": 24 * duration, "batch_size": 1}
            predictor.collect_data(duration / 2, features)
        predictor.train_model()
    with ExecTimePredictor(added, "linear", tmp_path) as again:
        assert again.estimate({"duration": 50.0, "frame_count": 1200}).source == "model"
        assert "frame_count" in again.get_feature_importance()


def test_features_set_anew_keep_what_was_declared_of_them(tmp_path: Path) -> None:
    names = ExecTimePredictor.tool_types
    names["speech_process"] = ["duration", "speakers"]
    try:
        duration, speakers = names.declared()["speech_process"].features
        assert (duration.unit, duration.maximum, speakers.maximum) == ("s", 86_400, math.inf)
    finally:
        del names["speech_process"]
    assert names["speech_process"] == ["duration", "audio_entropy", "audio_energy"]


def test_the_view_refuses_what_does_not_hold_together() -> None:
    names = ExecTimePredictor.tool_types
    with pytest.raises(DeclarationError, match="needs a name of letters, digits and _"):
        names["video process"] = ["duration"]
    with pytest.raises(DeclarationError, match="declares no features"):
        names["video_process"] = []
    with pytest.raises(DeclarationError, match="must be a list of names"):
        names["video_process"] = "duration"
    with pytest.raises(DeclarationError, match="llm_process is declared in a file"):
        del names["llm_process"]
    with pytest.raises(KeyError):
        names["video_process"]
    assert "video_process" not in names


def test_a_declaration_can_be_handed_over(tmp_path: Path) -> None:
    own = tool_types.ToolTypes([tool_types.plain("toy", ["words"], "a test")])
    with ExecTimePredictor("toy", home=tmp_path, tool_types=own) as predictor:
        assert predictor.collect_data(2.0, {"words": 3})


def test_an_unknown_tool_type_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownToolType, match="There is no tool type 'llm'; declared are llm_fu"):
        ExecTimePredictor("llm", home=tmp_path)


def test_an_unknown_family_and_a_senseless_threshold_are_input_errors(tmp_path: Path) -> None:
    known = "xgboost, mlp, linear, lightgbm, catboost"
    with pytest.raises(InputError, match=rf"^model: 'forest' is none of {known}\.$"):
        ExecTimePredictor(NAME, "forest", tmp_path)
    with pytest.raises(InputError, match=r"^retrain_after: must be a whole number of executions"):
        ExecTimePredictor(NAME, home=tmp_path, retrain_after=-1)


def test_building_and_asking_writes_nothing_and_loads_nothing_heavy(tmp_path: Path) -> None:
    heavy = ["deltalake", "pyarrow", "onnx", "onnxruntime", "pandas", "sklearn", "xgboost"]
    script = (
        "import sys\n"
        "from malearn import ExecTimePredictor\n"
        f"p = ExecTimePredictor('{NAME}', home={str(tmp_path)!r})\n"
        "print(p.predict({'token_count': 3}))\n"
        f"print(*(name for name in {heavy} if name in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("15.0\n\n", "")
    assert list(tmp_path.iterdir()) == []
