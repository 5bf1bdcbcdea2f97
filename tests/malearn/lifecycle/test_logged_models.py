"""A model of every family comes back from MLflow as it went in."""

from __future__ import annotations

import io
import json
import os
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from malearn.kernel.errors import RegistryError
from malearn.learning import regressor
from malearn.learning.families import FAMILIES
from malearn.lifecycle import logged_models


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_comes_back_as_it_was_logged(
    family: str, connected: str, fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    one = fit(family, "speech_process")
    mlflow.set_experiment("logged models tests")
    with mlflow.start_run():
        uri = logged_models.log_native(one.regressor, one.rows)
    again = logged_models.load_native(uri)
    assert list(tmp_path.iterdir()) == []  # nothing is left behind, in a process that lives on
    inputs = one.rows.inputs
    assert again.seconds(inputs) == pytest.approx(one.regressor.seconds(inputs), rel=1e-6)
    assert (again.family, again.columns) == (family, one.rows.columns)


#: A family that MLflow has no form for: it writes its model itself.
CONSTANT = """
import json
import numpy as np
from malearn.learning.families import Family

class Constant:
    def __init__(self, value):
        self.value = value
    def predict(self, inputs):
        return np.full(len(inputs), self.value)

def convert(estimator, columns, name):
    raise NotImplementedError

CONSTANT = Family(
    "constant",
    fewest_rows=2,
    fit=lambda inputs, target, parameters: Constant(float(np.median(target))),
    importance=lambda estimator, columns: np.ones(columns),
    to_onnx=convert,
    files=("constant.json",),
    read=lambda file: Constant(json.loads(file)),
    save=lambda estimator: json.dumps(estimator.value).encode(),
)
"""


@pytest.fixture
def constant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "constant_models.py").write_text(CONSTANT)
    types = tmp_path / "types.toml"
    types.write_text('families = ["constant_models:CONSTANT"]\n')
    monkeypatch.setenv("MALEARN_TOOL_TYPES", str(types))
    return "constant"


@pytest.mark.filterwarnings("ignore")  # MLflow's, of a signature without names
def test_a_model_that_its_family_writes_itself_comes_back_too(
    constant: str, connected: str, fit, tmp_path: Path
) -> None:
    rows = fit("linear", "speech_process").rows
    fitted = regressor.fit(constant, rows)
    mlflow.set_experiment("logged models tests")
    with mlflow.start_run():
        uri = logged_models.log_native(fitted, rows)
    again = logged_models.load_native(uri)
    assert again.family == constant
    assert again.seconds(rows.inputs) == pytest.approx(fitted.seconds(rows.inputs))
    # MLflow's own way, by the module that the MLmodel file names.
    called = mlflow.pyfunc.load_model(uri).predict(rows.inputs)
    assert called == pytest.approx(fitted.estimator.predict(rows.inputs))
    folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "model")))
    assert not list(folder.rglob("*.pkl"))


def test_a_model_that_is_gone_says_so(connected: str) -> None:
    with pytest.raises(RegistryError, match="the trainer's model cannot be loaded"):
        logged_models.load_native("models:/m-00000000000000000000000000000000")


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def _hostile_pickle(marker: Path) -> bytes:
    return pickle.dumps(Hostile(marker))


def _hostile_skops(marker: Path) -> bytes:
    """skops' form of a pipeline whose first step calls a function of the operating system's."""
    schema = {
        "__class__": "FunctionTransformer",
        "__module__": "sklearn.preprocessing._function_transformer",
        "__loader__": "ObjectNode",
        "content": {"__class__": "function", "__module__": "os", "__loader__": "FunctionNode",
                    "content": "system"},
        "protocol": 2, "_skops_version": "0.11",
    }  # fmt: skip
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("schema.json", json.dumps(schema))
    return buffer.getvalue()


def _harmless_but_foreign(marker: Path) -> bytes:
    from sklearn.dummy import DummyRegressor
    from skops.io import dumps

    return dumps(DummyRegressor().fit([[0]], [1]))


FORMS = {
    "pickle": ("model.pkl", {"serialization_format": "pickle"}, _hostile_pickle),
    "cloudpickle": ("model.pkl", {"serialization_format": "cloudpickle"}, _hostile_pickle),
    "a pickle named skops": ("model.skops", {"serialization_format": "pickle"}, _hostile_pickle),
    "skops": ("model.skops", {"skops_trusted_types": ["os.system"]}, _hostile_skops),
    "another estimator": ("model.skops", {}, _harmless_but_foreign),
    "no file": ("README.md", {}, lambda _: b""),
}


@pytest.mark.parametrize("form", FORMS)
def test_no_code_of_a_registered_model_is_run(
    form: str, connected: str, fit, tmp_path: Path
) -> None:
    """Whatever its MLmodel file says of how it is to be loaded."""
    name, flavor, make = FORMS[form]
    one = fit("linear", "speech_process")
    mlflow.set_experiment("logged models tests")
    with mlflow.start_run():
        uri = logged_models.log_native(one.regressor, one.rows)
    folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path / "model")))
    (folder / "model.skops").unlink()
    (folder / name).write_bytes(make(tmp_path / "marker"))
    (folder / "code").mkdir()
    (folder / "code" / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    facts = yaml.safe_load((folder / "MLmodel").read_text())
    facts["flavors"]["sklearn"] |= {"pickled_model": name, "code": "code", **flavor}
    facts["flavors"]["python_function"] |= {"loader_module": "evil", "code": "code"}
    (folder / "MLmodel").write_text(yaml.safe_dump(facts))
    with pytest.raises(RegistryError, match=r"cannot be loaded|not loaded"):
        logged_models.load_native(str(folder))
    assert not (tmp_path / "marker").exists()
