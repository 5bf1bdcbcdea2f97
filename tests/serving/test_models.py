"""The alias is followed: real registry, real files, and whatever goes wrong on the way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from mlflow import MlflowClient

from malearn import DAGTaskPredictor
from malearn.kernel.onnx import onnx_model
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.serving.cache import ModelCache
from malearn.serving.models import Models
from malearn.serving.registry import Registry

Build = Callable[..., DAGTaskPredictor]
Publish = Callable[..., int]
GIVEN = {"size": 1, "words": 1}


def test_the_version_named_production_is_served(
    predictor: Build, publish: Publish, toy: Any, tracking_uri: str
) -> None:
    version = publish(toy(10.0))
    publish(toy(99.0), alias=None)
    p = predictor(tracking_uri=tracking_uri)
    assert p.refresh()
    answer = p.estimate("toy_process", "cpu", features=GIVEN)
    assert (answer.seconds, answer.model_version) == (12.0, version)


def test_an_alias_that_moves_is_followed_in_the_background(
    predictor: Build, publish: Publish, toy: Any, tracking_uri: str, eventually: Any
) -> None:
    publish(toy(10.0))
    p = predictor(tracking_uri=tracking_uri, refresh_interval=0.05)
    eventually(lambda: p.estimate("toy_process", "cpu", features=GIVEN).seconds == 12.0)
    publish(toy(20.0))
    eventually(lambda: p.estimate("toy_process", "cpu", features=GIVEN).seconds == 22.0)
    assert p.stats().swaps == 1


def test_swaps_fail_no_prediction(
    predictor: Build, publish: Publish, toy: Any, tracking_uri: str, tool_type: ToolType
) -> None:
    versions = [publish(toy(10.0)), publish(toy(20.0))]
    p = predictor(tracking_uri=tracking_uri, refresh_interval=60.0)
    p.refresh()
    answers: set[tuple[float, str]] = set()
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            answer = p.estimate("toy_process", "cpu", features=GIVEN)
            answers.add((answer.seconds, answer.source))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    client = MlflowClient(tracking_uri)
    for turn in range(10):
        name, version = tool_type.registered_model, str(versions[turn % 2])
        client.set_registered_model_alias(name, "Production", version)
        assert p.refresh()
    done.set()
    for thread in threads:
        thread.join()
    assert answers == {(12.0, "model"), (22.0, "model")}
    assert p.stats().swaps >= 9


def test_a_bad_version_is_refused_and_the_old_one_stays(
    predictor: Build,
    publish: Publish,
    toy: Any,
    tracking_uri: str,
    tool_type: ToolType,
    caplog: Any,
) -> None:
    good = publish(toy(10.0))
    p = predictor(tracking_uri=tracking_uri, refresh_interval=60.0)
    p.refresh()
    bad = publish(toy(metadata=None))
    with caplog.at_level(logging.WARNING, "malearn.serving"):
        assert p.refresh() and p.refresh()
    assert p.estimate("toy_process", "cpu", features=GIVEN).model_version == good
    refused = f"{tool_type.registered_model} version {bad} is refused: it has no malearn metadata."
    assert p.stats().refused == {tool_type.name: refused}
    assert caplog.messages.count(refused) == 1  # said once, not at every refresh
    publish(toy(30.0))
    p.refresh()
    assert p.estimate("toy_process", "cpu", features=GIVEN).seconds == 32.0
    assert not p.stats().refused


def test_a_version_without_a_model_file_is_refused(
    predictor: Build, publish: Publish, tracking_uri: str, tool_type: ToolType, toy: Any
) -> None:
    publish(toy())
    client = MlflowClient(tracking_uri)
    run = client.create_run("0")
    client.log_text(run.info.run_id, "nothing", "empty/README.md")
    source = f"{run.info.artifact_uri}/empty"
    created = client.create_model_version(tool_type.registered_model, source, run.info.run_id)
    client.set_registered_model_alias(tool_type.registered_model, "Production", created.version)
    p = predictor(tracking_uri=tracking_uri)
    assert p.refresh()
    assert "holds no model.onnx" in p.stats().refused[tool_type.name]


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")  # of MLflow, while it is imported
def test_a_model_logged_the_modern_way_is_found(
    predictor: Build, toy: Any, tracking_uri: str, tool_type: ToolType, monkeypatch: Any
) -> None:
    import mlflow
    import onnx

    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    with mlflow.start_run():
        info = mlflow.onnx.log_model(
            onnx.load_model_from_string(toy(50.0)), name="onnx", pip_requirements=["onnx"]
        )
    client = MlflowClient(tracking_uri)
    name = tool_type.registered_model
    client.create_registered_model(name)
    made = client.create_model_version(name, info.model_uri, info.run_id, model_id=info.model_id)
    client.set_registered_model_alias(name, "Production", made.version)
    p = predictor(tracking_uri=tracking_uri)
    assert p.refresh()
    assert p.estimate("toy_process", "cpu", features=GIVEN).seconds == 52.0


def test_an_alias_taken_away_takes_the_model_away(
    predictor: Build, publish: Publish, toy: Any, tracking_uri: str, tool_type: ToolType
) -> None:
    publish(toy())
    p = predictor(tracking_uri=tracking_uri, refresh_interval=60.0)
    p.refresh()
    client = MlflowClient(tracking_uri)
    client.delete_registered_model_alias(tool_type.registered_model, "Production")
    p.refresh()
    assert p.estimate("toy_process", "cpu", features=GIVEN).source == "heuristic"
    again = predictor(tracking_uri=tracking_uri, refresh_interval=60.0)
    assert again.estimate("toy_process", "cpu", features=GIVEN).source == "heuristic"


def test_a_restart_without_mlflow_serves_the_last_good_one(
    predictor: Build, publish: Publish, toy: Any, tracking_uri: str, monkeypatch: Any
) -> None:
    version = publish(toy(10.0))
    p = predictor(tracking_uri=tracking_uri)
    p.refresh()
    p.close()
    monkeypatch.setattr(Registry, "_get", _away)
    again = predictor(tracking_uri=tracking_uri)
    assert again.estimate("toy_process", "cpu", features=GIVEN).model_version == version
    assert not again.refresh()
    assert again.estimate("toy_process", "cpu", features=GIVEN).model_version == version


def test_another_alias_may_be_served(
    predictor: Build, publish: Publish, toy: Any, tracking_uri: str
) -> None:
    publish(toy(10.0))
    publish(toy(20.0), alias="Candidate")
    p = predictor(tracking_uri=tracking_uri, alias="Candidate")
    p.refresh()
    assert p.estimate("toy_process", "cpu", features=GIVEN).seconds == 22.0


def test_a_cache_that_cannot_be_written_hurts_nothing(
    predictor: Build, publish: Publish, toy: Any, tracking_uri: str, tmp_path: Any
) -> None:
    publish(toy())
    (tmp_path / "a file").write_text("no directory")
    p = predictor(tracking_uri=tracking_uri, cache_dir=tmp_path / "a file")
    assert p.refresh()
    assert p.estimate("toy_process", "cpu", features=GIVEN).source == "model"
    assert p.stats().cache_failures == 1


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "http://127.0.0.1:1", "mlruns", "http://["])
def test_a_registry_that_cannot_be_asked_is_no_error(predictor: Build, uri: str) -> None:
    p = predictor(tracking_uri=uri)
    assert not p.refresh()
    assert p.predict("toy_process", "cpu", []) == 3.0
    assert p.stats().refresh_failures >= 1


def _away(*_: object) -> bytes:
    raise Registry("http://127.0.0.1:1")._unreachable("gone")


# What heals, what was changed, what must not stop others.


@pytest.fixture
def models(tool_types: ToolTypes, tracking_uri: str, tmp_path: Any) -> Callable[..., Models]:
    """Models that follow the registry, without a pause before a refused version is tried again."""

    def build(types: ToolTypes = tool_types, first_pause: float = 0.0) -> Models:
        cache = ModelCache(tmp_path / "cache", tracking_uri, "Production")
        return Models(lambda: types, Registry(tracking_uri), cache, first_pause=first_pause)

    return build


def test_a_refused_version_that_heals_is_served_and_the_refusal_forgotten(
    models: Any, publish: Publish, toy: Any, tracking_uri: str, tool_type: ToolType, tmp_path: Any
) -> None:
    version = publish(b"<html>out of order</html>")
    following = models()
    following.refresh()
    assert following.refused[tool_type.name].startswith(f"{tool_type.registered_model} version")
    client = MlflowClient(tracking_uri)
    found = client.get_model_version(tool_type.registered_model, str(version))
    (tmp_path / "model.onnx").write_bytes(toy(10.0))
    client.log_artifact(found.run_id, str(tmp_path / "model.onnx"), "onnx")
    following.refresh()
    assert following.current[tool_type.name].version == version
    assert not following.refused


def test_the_refusal_of_a_version_that_the_alias_leaves_is_forgotten(
    models: Any, publish: Publish, toy: Any, tracking_uri: str, tool_type: ToolType
) -> None:
    """Also where it goes back to the version that was in use all the time."""
    good = publish(toy(10.0))
    following = models(first_pause=3600.0)
    following.refresh()
    publish(toy(metadata=None))
    following.refresh()
    assert following.refused
    client = MlflowClient(tracking_uri)
    client.set_registered_model_alias(tool_type.registered_model, "Production", str(good))
    following.refresh()
    assert not following.refused
    assert following.swaps == 0


def test_bytes_other_than_the_registered_ones_are_refused(
    models: Any, publish: Publish, toy: Any, tool_type: ToolType
) -> None:
    publish(toy(10.0), tags={onnx_model.DIGEST_TAG: onnx_model.digest(toy(20.0))})
    following = models()
    following.refresh()
    assert "its bytes are not those that were registered" in following.refused[tool_type.name]
    assert not following.current


def test_a_cached_file_that_was_changed_gives_way_to_the_registered_one(
    models: Any, publish: Publish, toy: Any, tool_type: ToolType
) -> None:
    """Even one whose name says that it is whole."""
    version = publish(toy(10.0), tags={onnx_model.DIGEST_TAG: onnx_model.digest(toy(10.0))})
    following = models()
    following._cache.write(tool_type.registered_model, version, toy(99.0))
    following.load_cached()
    assert following.refresh()
    expected = onnx_model.digest(toy(10.0))
    assert following.current[tool_type.name].digest == expected
    assert following._cache.digest(tool_type.registered_model, version) == expected


def test_one_damaged_file_stops_no_other_tool_type(
    models: Any, publish: Publish, toy: Any, tool_type: ToolType
) -> None:
    other = ToolType(f"z_{tool_type.name}", ("z",), "cpu", tool_type.features)
    publish(toy().replace(b'"family"', b'"fa\xffily"'))
    version = publish(toy(tool_type=other), named=other.registered_model)
    following = models(ToolTypes([tool_type, other]))
    assert following.refresh()
    assert "UnicodeDecodeError" in following.refused[tool_type.name]
    assert following.current[other.name].version == version


def test_what_learning_from_a_model_raises_refuses_that_model(
    publish: Publish, toy: Any, tool_types: ToolTypes, tool_type: ToolType, tracking_uri: str
) -> None:
    publish(toy())

    def choke(model: Any) -> None:
        raise OverflowError("of its executions")

    following = Models(lambda: tool_types, Registry(tracking_uri), None, choke)
    assert following.refresh()
    assert "OverflowError" in following.refused[tool_type.name]
    assert not following.current


def test_nothing_is_dropped_on_a_search_that_leaves_a_model_out(
    models: Any, publish: Publish, toy: Any, tool_type: ToolType, monkeypatch: Any
) -> None:
    publish(toy())
    following = models()
    following.refresh()
    monkeypatch.setattr(Registry, "versions", lambda *_: {})
    following.refresh()
    assert tool_type.name in following.current
