"""Nothing serves that is not proven, on real rows, against a real MLflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import mlflow
import numpy as np
import pytest

from malearn.kernel.errors import RegistryError
from malearn.kernel.onnx import onnx_model
from malearn.learning import export
from malearn.learning.gate import Decision, GateCheck
from malearn.learning.matrix import Matrix
from malearn.lifecycle import logged_models, promotion, registry
from malearn.lifecycle.registry import CANDIDATE, PREVIOUS, PRODUCTION

YES = Decision(True, "linear", 40, (GateCheck("rows", True, "40 test rows"),))
NO = YES.with_check("error against heuristic", False, "linear does not beat heuristic")

Register = Callable[..., int]


@pytest.fixture
def rows(fit) -> Matrix:
    """Of a tool type whose registered model is not there yet."""
    known = fit("linear", "llm_process").rows
    return replace(known, tool_type=replace(known.tool_type, name=f"toy_{uuid4().hex[:8]}"))


@pytest.fixture(scope="module")
def native(connected: str, fit) -> str:
    """The trainer's own model of the linear family."""
    one = fit("linear", "llm_process")
    mlflow.set_experiment("promotion tests")
    with mlflow.start_run():
        return logged_models.log_native(one.regressor, one.rows)


@pytest.fixture
def register(rows: Matrix, native: str, fit) -> Register:
    """Registers a version as training does; `family` is that of its ONNX file."""

    def as_training_does(
        decision: Decision | None = YES, family: str = "linear", **tags: str
    ) -> int:
        one = fit(family, "llm_process")
        model = export.to_onnx(one.regressor, replace(one.metadata, tool_type=rows.tool_type.name))
        mlflow.set_experiment("promotion tests")
        with mlflow.start_run() as run:
            uri = logged_models.log_onnx(model, rows)
        tags = {"malearn.family": "linear", "malearn.native": native, **tags}
        number = registry.register(rows.tool_type, uri, run.info.run_id, tags)
        if decision is not None:
            registry.decide(rows.tool_type, number, decision, "a summary")
        return number

    return as_training_does


def aliases(rows: Matrix) -> dict[str, int]:
    names = (PRODUCTION, PREVIOUS, CANDIDATE)
    found = {alias: registry.by_alias(rows.tool_type, alias) for alias in names}
    return {alias: version.number for alias, version in found.items() if version is not None}


def test_a_version_that_passed_the_gate_and_is_faithful_serves(rows, register) -> None:
    promoted = promotion.promote(rows, register())
    assert promoted.promoted
    assert aliases(rows) == {PRODUCTION: 1}
    assert f"its ONNX file equals the trainer's model on {len(rows)} real rows" in promoted.why


def test_the_proof_is_kept_with_the_decision_on_the_version(rows, register) -> None:
    promotion.promote(rows, register())
    kept = registry.version(rows.tool_type, 1).decision
    assert [reason.check for reason in kept.reasons] == ["rows", "onnx"]


def test_what_served_before_is_kept_and_a_rollback_brings_it_back(rows, register) -> None:
    for _ in range(2):
        promotion.promote(rows, register())
    assert aliases(rows) == {PRODUCTION: 2, PREVIOUS: 1}
    registry.rollback(rows.tool_type)
    assert aliases(rows) == {PRODUCTION: 1, PREVIOUS: 2}


def test_a_version_that_the_gate_stopped_stays_visible_as_candidate(rows, register) -> None:
    promotion.promote(rows, register())
    promoted = promotion.promote(rows, register(NO))
    assert not promoted.promoted
    assert promoted.why == "linear does not beat heuristic"
    assert aliases(rows) == {PRODUCTION: 1, CANDIDATE: 2}


def test_by_hand_the_gate_is_overruled_and_that_is_on_record(rows, register) -> None:
    promoted = promotion.promote(rows, register(NO), bypass_gate=True)
    assert promoted.promoted
    assert "a person promoted it over the gate" in promoted.why
    assert aliases(rows) == {PRODUCTION: 1}


def test_a_gate_that_agreed_is_not_said_to_be_overruled(rows, register) -> None:
    promoted = promotion.promote(rows, register(), bypass_gate=True)
    assert promoted.promoted
    assert [reason.check for reason in promoted.reasons] == ["rows", "onnx"]


def test_without_a_number_the_newest_version_that_passed_the_gate_is_meant(rows, register) -> None:
    for decision in (YES, YES, NO):
        register(decision)
    promotion.promote(rows, 3, bypass_gate=True)  # by a person, over the gate
    assert promotion.newest_passed(rows.tool_type).number == 2


def test_where_no_version_passed_the_gate_the_error_says_what_can_be_done(rows, register) -> None:
    with pytest.raises(RegistryError, match="no version has passed the promotion gate"):
        promotion.newest_passed(rows.tool_type)
    register(NO)
    with pytest.raises(RegistryError, match=f"promote {rows.tool_type.name} 1` bypasses the gate"):
        promotion.newest_passed(rows.tool_type)


def test_a_version_that_was_rolled_back_is_promoted_again_only_by_its_number(
    rows, register
) -> None:
    for _ in range(2):
        promotion.promote(rows, register())
    assert promotion.newest_passed(rows.tool_type).number == 2
    registry.rollback(rows.tool_type)
    with pytest.raises(RegistryError, match=r"version 2, .* was in Production before"):
        promotion.newest_passed(rows.tool_type)
    assert promotion.promote(rows, 2, bypass_gate=True).promoted


@pytest.mark.parametrize("bypass_gate", [False, True])
def test_another_model_in_its_place_does_not_serve(rows, register, bypass_gate: bool) -> None:
    promotion.promote(rows, register())
    promoted = promotion.promote(rows, register(family="mlp"), bypass_gate=bypass_gate)
    assert not promoted.promoted
    assert promoted.why.startswith("its ONNX file differs from the trainer's model on ")
    assert aliases(rows) == {PRODUCTION: 1, CANDIDATE: 2}


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (b"no model at all", "it is not an ONNX file that malearn exported"),
        ("speech_process", "it predicts speech_process, not"),
    ],
)
def test_a_file_replaced_on_the_server_does_not_serve(
    rows, register, fit, tmp_path, file: bytes | str, why: str
) -> None:
    number = register()
    other = tmp_path / "model.onnx"
    other.write_bytes(file if isinstance(file, bytes) else fit("linear", file).model)
    uri = f"models:/{rows.tool_type.registered_model}/{number}"
    client = mlflow.MlflowClient()
    client.log_model_artifact(mlflow.models.get_model_info(uri).model_id, str(other))
    promoted = promotion.promote(rows, number)
    assert not promoted.promoted
    assert promoted.why.startswith("its ONNX file cannot be proven: ")
    assert why in promoted.why


def test_without_the_trainers_model_nothing_can_be_proven(rows, register) -> None:
    gone = {"malearn.native": "models:/m-00000000000000000000000000000000"}
    promoted = promotion.promote(rows, register(**gone))
    assert not promoted.promoted
    assert "the trainer's model cannot be loaded" in promoted.why


def test_without_rows_nothing_can_be_proven(rows, register) -> None:
    promoted = promotion.promote(rows.rows(np.arange(0)), register())
    assert not promoted.promoted
    assert promoted.why == "there are no rows to prove its ONNX file on"


def test_what_could_not_be_proven_once_can_be_another_day(rows, register) -> None:
    number = register()
    promotion.promote(rows.rows(np.arange(0)), number)
    assert promotion.promote(rows, number).promoted
    assert aliases(rows) == {PRODUCTION: 1}


def test_what_serves_can_be_promoted_again_and_keeps_serving(rows, register) -> None:
    number = register()
    first, second = promotion.promote(rows, number), promotion.promote(rows, number)
    assert first == second
    assert aliases(rows) == {PRODUCTION: 1}


def test_a_version_that_is_not_there_is_an_error(rows, register) -> None:
    register()
    with pytest.raises(RegistryError, match="there is no version 7"):
        promotion.promote(rows, 7)


def test_a_version_nobody_judged_is_an_error(rows, register) -> None:
    with pytest.raises(RegistryError, match="version 1 was not registered by malearn's training"):
        promotion.promote(rows, register(decision=None))


def test_what_serves_answers_through_mlflows_own_loader(rows, register) -> None:
    promotion.promote(rows, register())
    loaded = mlflow.pyfunc.load_model(f"models:/{rows.tool_type.registered_model}@Production")
    answers = loaded.predict(loaded.input_example)
    assert (answers["seconds"] > 0).all()
    assert set(answers["source"]) == {"model"}


# An alias that a person moved in MLflow.


def give_production(rows: Matrix, number: int) -> None:
    """As its UI does: the alias alone, and nothing else."""
    client = mlflow.MlflowClient()
    client.set_registered_model_alias(rows.tool_type.registered_model, PRODUCTION, str(number))


@pytest.fixture
def serving(rows: Matrix, register: Register) -> int:
    """A version that was proven and serves."""
    return promotion.promote(rows, register()).version


@pytest.fixture
def trainers_alone(rows: Matrix, native: str) -> int:
    """A version somebody registered from the trainer's model: it holds no ONNX file."""
    return registry.register(rows.tool_type, native, native_run(native), {})


def native_run(uri: str) -> str:
    return str(mlflow.models.get_model_info(uri).run_id)


def test_where_nobody_moved_it_there_is_nothing_to_follow(rows, register) -> None:
    assert promotion.verify_manual_promotion(rows) is None
    promotion.promote(rows, register())
    assert promotion.verify_manual_promotion(rows) is None


def test_without_rows_nobody_is_judged(rows, serving, register) -> None:
    give_production(rows, register())
    assert promotion.verify_manual_promotion(rows.rows(np.arange(0))) is None
    assert aliases(rows)[PRODUCTION] == 2


def test_what_can_be_proven_serves_and_what_served_is_kept(rows, serving, register) -> None:
    give_production(rows, register(NO))
    followed = promotion.verify_manual_promotion(rows)
    assert (followed.moved_to, followed.production) == (2, 2)
    assert aliases(rows) == {PRODUCTION: 2, PREVIOUS: 1}
    assert "a person promoted it over the gate" in registry.version(rows.tool_type, 2).decision.why
    assert promotion.verify_manual_promotion(rows) is None


def test_an_alias_moved_by_hand_can_be_rolled_back_at_once(rows, serving, register) -> None:
    give_production(rows, register())
    assert registry.rollback(rows.tool_type) == (2, 1)
    assert aliases(rows) == {PRODUCTION: 1, PREVIOUS: 2}


def test_a_version_without_an_onnx_file_is_converted_and_proven(
    rows, serving, trainers_alone
) -> None:
    give_production(rows, trainers_alone)
    scores = ((False, 0.5), (True, -1.25))
    followed = promotion.verify_manual_promotion(rows, lambda: scores)
    assert (followed.moved_to, followed.production) == (2, 3)
    assert aliases(rows) == {PRODUCTION: 3, PREVIOUS: 1}
    made = registry.version(rows.tool_type, 3)
    assert made.tags["malearn.converted_from"] == "2"
    assert registry.version(rows.tool_type, 2).tags["malearn.converted_to"] == "3"
    file = registry.model_file(rows.tool_type, 3)
    metadata = onnx_model.load(file, rows.tool_type, "it").metadata
    assert (metadata.tool_type, metadata.rows) == (rows.tool_type.name, len(rows))
    assert metadata.workflow_scores == scores
    loaded = mlflow.pyfunc.load_model(f"models:/{rows.tool_type.registered_model}@Production")
    assert (loaded.predict(loaded.input_example)["seconds"] > 0).all()
    expected = logged_models.load_native(made.tags["malearn.native"]).seconds(rows.inputs)
    assert export.seconds(file, rows) == pytest.approx(expected, rel=1e-4)


def test_by_hand_such_a_version_is_converted_too_and_only_once(rows, trainers_alone) -> None:
    first = promotion.promote(rows, trainers_alone, bypass_gate=True)
    assert (first.promoted, first.version) == (True, 2)
    assert promotion.promote(rows, trainers_alone, bypass_gate=True).version == 2


def test_a_file_somebody_registered_anew_is_proven_by_the_model_beside_it(rows, fit) -> None:
    one = fit("linear", "llm_process")
    model = export.to_onnx(one.regressor, replace(one.metadata, tool_type=rows.tool_type.name))
    mlflow.set_experiment("promotion tests")
    with mlflow.start_run() as run:
        logged_models.log_native(one.regressor, rows)
        uri = logged_models.log_onnx(model, rows)
    give_production(rows, registry.register(rows.tool_type, uri, run.info.run_id, {}))
    assert promotion.verify_manual_promotion(rows).production == 1
    assert "equals the trainer's model" in registry.version(rows.tool_type, 1).decision.why


def test_what_differs_from_the_trainers_model_is_refused_and_the_old_one_serves(
    rows, serving, register
) -> None:
    give_production(rows, register(family="mlp"))
    followed = promotion.verify_manual_promotion(rows)
    assert (followed.moved_to, followed.production) == (2, 1)
    assert aliases(rows) == {PRODUCTION: 1}
    refused = registry.version(rows.tool_type, 2).tags["malearn.refused"]
    assert refused.startswith("its ONNX file differs from the trainer's model")


def test_a_model_malearn_did_not_train_is_refused_and_says_why(rows, serving) -> None:
    from sklearn.dummy import DummyRegressor

    mlflow.set_experiment("promotion tests")
    with mlflow.start_run() as run:
        theirs = mlflow.sklearn.log_model(
            DummyRegressor().fit(rows.inputs, rows.seconds),
            name="theirs",
            serialization_format="skops",
            pip_requirements=[],
        )
    number = registry.register(rows.tool_type, theirs.model_uri, run.info.run_id, {})
    give_production(rows, number)
    followed = promotion.verify_manual_promotion(rows)
    assert followed.production == serving
    assert "nothing says which numbers it reads" in followed.promoted.why
    assert promotion.verify_manual_promotion(rows) is None


def test_where_nothing_was_proven_before_a_refused_version_leaves_no_alias(rows, register) -> None:
    give_production(rows, register(family="mlp"))
    assert promotion.verify_manual_promotion(rows).production is None
    assert PRODUCTION not in aliases(rows)
