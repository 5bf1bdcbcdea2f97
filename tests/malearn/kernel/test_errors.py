"""Every error survives being copied: pickled between processes, or raised anew from its `args`."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from malearn.kernel import errors
from malearn.kernel.errors import MalearnError

EXAMPLES = [
    errors.MalearnError("Something is wrong."),
    errors.DeclarationError(Path("malearn.toml"), "is empty"),
    errors.UnknownToolType("llm", (name for name in ["vlm_process", "llm_process"])),
    errors.InputError(Path("run.jsonl"), "is empty"),
    errors.HomeTooNew(Path("home"), 9, "9.0", 2),
    errors.BackupError(Path("backup.tar"), "is cut short"),
    errors.IntegrationError("Maze", "has no run store"),
    errors.Unreachable("Redis", "redis://:secret@host", "MALEARN_REDIS_URL", cause=OSError("no")),
    errors.Unreachable("Redis", "redis://host", "MALEARN_REDIS_URL", remedy="wait for it"),
    errors.PlatformError("MLflow", "did not start", log=Path("mlflow.log")),
    errors.DatasetError("llm_process", "is missing"),
    errors.DatasetDamaged(Path("data/llm_process"), "a file is cut."),
    errors.BatchRefused("llm_process", 9, 10, "not null", 0.5),
    errors.TrainingError("llm_process", "too few rows"),
    errors.ExportError("llm_process", "mlp", "it differs"),
    errors.ArtifactRefused(Path("model.onnx"), ["it is empty", "it has no metadata"]),
    errors.RegistryError("malearn-llm_process", "has no version 7"),
    errors.WorkflowError("run-1", "tasks wait for each other"),
]


def test_no_error_is_left_out() -> None:
    known = {one for one in vars(errors).values() if isinstance(one, type)}
    assert {type(one) for one in EXAMPLES} == {o for o in known if issubclass(o, MalearnError)}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_when_it_is_raised_anew_or_comes_from_another_process(
    error: MalearnError,
) -> None:
    anew = type(error)(*error.args)  # as SimPy does
    back = pickle.loads(pickle.dumps(error))
    for copy in (anew, back):
        assert (str(copy), vars(copy), copy.args) == (str(error), vars(error), error.args)
    assert "secret" not in f"{error!r} {error}"
