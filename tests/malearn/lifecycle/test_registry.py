"""Versions and aliases in a real MLflow registry."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import mlflow
import numpy as np
import pytest

from malearn.kernel.errors import RegistryError
from malearn.kernel.onnx import onnx_model
from malearn.kernel.tool_types import ToolType
from malearn.learning import export
from malearn.learning.gate import Decision, GateCheck
from malearn.lifecycle import logged_models, registry
from malearn.lifecycle.registry import CANDIDATE, PREVIOUS, PRODUCTION

pytestmark = pytest.mark.usefixtures("connected")

YES = Decision(True, "linear", 40, (GateCheck("rows", True, "40 test rows"),))


@pytest.fixture(scope="module")
def logged(connected: str, fit) -> tuple[str, str]:
    """One small model in MLflow, not registered yet: its run and its address."""
    small = fit("linear", "speech_process")
    mlflow.set_experiment("registry tests")
    with mlflow.start_run() as run:
        return run.info.run_id, logged_models.log_onnx(small.model, small.rows)


@pytest.fixture
def tool_type(fit) -> ToolType:
    """One whose registered model is not there yet."""
    return replace(fit("linear", "speech_process").rows.tool_type, name=f"toy_{uuid4().hex[:8]}")


@pytest.fixture
def registered(tool_type: ToolType, logged: tuple[str, str]) -> ToolType:
    """With two versions and no alias."""
    for family in ("linear", "mlp"):
        registry.register(tool_type, logged[1], logged[0], {"malearn.family": family})
    return tool_type


def aliases(tool_type: ToolType) -> dict[str, int]:
    found = {
        alias: registry.by_alias(tool_type, alias) for alias in (PRODUCTION, PREVIOUS, CANDIDATE)
    }
    return {alias: version.number for alias, version in found.items() if version is not None}


def test_where_nothing_is_registered_there_is_nothing(tool_type: ToolType) -> None:
    assert aliases(tool_type) == {}
    assert registry.versions(tool_type) == []
    with pytest.raises(RegistryError, match=f"^malearn-{tool_type.name}: there is no version 1"):
        registry.version(tool_type, 1)


def test_versions_count_up_and_come_newest_first(registered: ToolType, logged) -> None:
    assert [v.number for v in registry.versions(registered)] == [2, 1]
    newest = registry.version(registered, 2)
    assert (newest.family, newest.run_id, newest.aliases) == ("mlp", logged[0], ())
    assert newest.decision is None
    assert newest.created > 1.7e9


def test_the_registered_model_says_what_it_is(registered: ToolType) -> None:
    model = mlflow.MlflowClient().get_registered_model(f"malearn-{registered.name}")
    assert model.tags["malearn.tool_type"] == registered.name
    assert "from duration, audio_entropy, audio_energy" in model.description


def test_a_decision_on_a_version_comes_back_as_it_was(registered: ToolType) -> None:
    registry.decide(registered, 1, YES, "a summary")
    found = registry.version(registered, 1)
    assert found.decision == YES
    assert found.tags["malearn.promote"] == "true"


def test_the_description_is_the_summary_and_the_reasons_as_they_stand(
    registered: ToolType,
) -> None:
    registry.decide(registered, 1, YES, "a summary")
    registry.decide(registered, 1, YES.with_check("onnx", False, "it differs"))
    text = mlflow.MlflowClient().get_model_version(registered.registered_model, "1").description
    reasons = "- ✓ 40 test rows\n- ✗ it differs"
    assert text == f"a summary\n\n**It may not serve:**\n\n{reasons}"


def test_production_moves_and_what_served_before_is_kept(registered: ToolType) -> None:
    registry.move(registered, PRODUCTION, 1)
    assert aliases(registered) == {PRODUCTION: 1}
    registry.move(registered, PRODUCTION, 2)
    assert aliases(registered) == {PRODUCTION: 2, PREVIOUS: 1}


def test_moving_production_to_where_it_is_changes_nothing(registered: ToolType) -> None:
    registry.move(registered, PRODUCTION, 1)
    registry.move(registered, PRODUCTION, 2)
    registry.move(registered, PRODUCTION, 2)
    assert aliases(registered) == {PRODUCTION: 2, PREVIOUS: 1}


def test_a_candidate_that_serves_is_no_candidate_any_more(registered: ToolType) -> None:
    registry.move(registered, CANDIDATE, 2)
    registry.move(registered, PRODUCTION, 2)
    assert aliases(registered) == {PRODUCTION: 2}


def test_another_candidate_stays_one(registered: ToolType) -> None:
    registry.move(registered, CANDIDATE, 2)
    registry.move(registered, PRODUCTION, 1)
    assert aliases(registered) == {PRODUCTION: 1, CANDIDATE: 2}


def test_a_rollback_swaps_and_a_second_one_swaps_back(registered: ToolType) -> None:
    registry.move(registered, PRODUCTION, 1)
    registry.move(registered, PRODUCTION, 2)
    assert registry.rollback(registered) == (2, 1)
    assert aliases(registered) == {PRODUCTION: 1, PREVIOUS: 2}
    assert registry.rollback(registered) == (1, 2)


def test_without_a_previous_version_there_is_nothing_to_roll_back_to(
    registered: ToolType,
) -> None:
    registry.move(registered, PRODUCTION, 1)
    sentence = f"^malearn-{registered.name}: there is no previous version to roll back to.$"
    with pytest.raises(RegistryError, match=sentence):
        registry.rollback(registered)
    assert aliases(registered) == {PRODUCTION: 1}


def test_an_alias_moves_to_no_version_that_is_not_there(registered: ToolType) -> None:
    registry.move(registered, PRODUCTION, 1)
    with pytest.raises(RegistryError, match="there is no version 9"):
        registry.move(registered, PRODUCTION, 9)
    assert aliases(registered) == {PRODUCTION: 1}


def test_the_file_of_a_version_is_the_model_that_was_logged(registered: ToolType, fit, capfd):
    """And no progress bar of MLflow's is drawn on the way."""
    small = fit("linear", "speech_process")
    file = registry.model_file(registered, 1)
    assert onnx_model.load(file, small.rows.tool_type, "it").metadata == small.metadata
    expected = export.seconds(small.model, small.rows)
    assert np.array_equal(export.seconds(file, small.rows), expected)
    assert capfd.readouterr().err == ""


def test_a_file_that_was_changed_since_it_was_registered_is_not_read(registered: ToolType) -> None:
    registry.tag(registered, 1, onnx_model.DIGEST_TAG, onnx_model.digest(b"another file"))
    with pytest.raises(RegistryError, match="of version 1 was changed since it was registered"):
        registry.model_file(registered, 1)


def test_a_version_without_a_file_says_so(tool_type: ToolType, logged) -> None:
    client, name = mlflow.MlflowClient(), tool_type.registered_model
    client.create_registered_model(name)
    client.create_model_version(name, f"runs:/{logged[0]}/nothing", run_id=logged[0])
    with pytest.raises(RegistryError, match="version 1 holds no model"):
        registry.model_file(tool_type, 1)
