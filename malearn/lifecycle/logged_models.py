"""Models as MLflow keeps them: the trainer's own form, and the ONNX file that serves."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from malearn.kernel.errors import DeclarationError, InputError, RegistryError
from malearn.kernel.onnx.model_metadata import INPUT, OUTPUT
from malearn.learning import families
from malearn.learning.families import TRUSTED_TYPES, Family
from malearn.learning.matrix import Matrix
from malearn.learning.regressor import SHRINKAGE, Regressor
from malearn.lifecycle import native_form, seconds_model

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "load_native",
    "log_native",
    "log_onnx",
    "model_info",
    "native_beside",
    "native_facts",
]

#: Where in a logged model the estimator's file may be, and the folder that ours are written to.
_OWN = "model"
_PLACES = ("", "data", f"data/{_OWN}")
_PACKAGES = ("mlflow", "numpy", "onnxruntime", "scikit-learn", "skops")


def log_native(regressor: Regressor, rows: Matrix, dataset_version: int = 0) -> str:
    """The estimator in its library's own form, with what surrounds it; returns its model URI.

    `rows` are those it was fitted on, of that version of the dataset.
    """
    import mlflow

    family = families.get(regressor.family)
    common: dict[str, Any] = {
        "name": "native",
        "signature": _signature(len(rows.columns)),
        "pip_requirements": _requirements(family.package),
        "metadata": {
            "malearn": {
                "family": regressor.family,
                "columns": list(rows.columns),
                "level_column": regressor.level_column,
                "level_default": regressor.level_default,
                "ratio_range": list(regressor.ratio_range),
                "log_range": list(regressor.log_range),
                "shrinkage": regressor.shrinkage,
                "trained_until": max(e.end for e in rows.executions),
                "dataset_version": dataset_version,
            }
        },
    }
    # By name, because each flavour of MLflow takes its form under an argument of its own.
    if family.flavor == "xgboost":
        info = mlflow.xgboost.log_model(regressor.estimator, model_format="ubj", **common)
    elif family.flavor == "lightgbm":
        info = mlflow.lightgbm.log_model(regressor.estimator, **common)
    elif family.flavor == "catboost":
        info = mlflow.catboost.log_model(regressor.estimator, format="cbm", **common)
    elif family.flavor == "sklearn":
        info = mlflow.sklearn.log_model(
            regressor.estimator,
            serialization_format="skops",  # no pickle, which runs what it is given
            skops_trusted_types=[*TRUSTED_TYPES, *family.trusted],
            **common,
        )
    else:
        info = _log_own(regressor.estimator, family, common)
    return str(info.model_uri)


def _log_own(estimator: Any, family: Family, common: Mapping[str, Any]) -> Any:
    """In the form that the family itself writes, where MLflow has none for it."""
    import mlflow

    assert family.save is not None  # or it has a flavor
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, _OWN)  # MLflow keeps its name
        folder.mkdir()
        (folder / family.files[0]).write_bytes(family.save(estimator))
        (folder / native_form.FAMILY).write_text(family.name, "utf-8")
        return mlflow.pyfunc.log_model(
            loader_module=native_form.__name__, data_path=str(folder), **common
        )


def log_onnx(model: bytes, rows: Matrix) -> str:
    """The exported model, which `mlflow.pyfunc` calls by the names of columns; returns its URI.

    Its metadata names the columns of the ONNX file's input.
    """
    from mlflow.models import Model

    info = Model.log(
        None,
        seconds_model,
        name="model",
        metadata={"malearn": {"tool_type": rows.tool_type.name, "columns": list(rows.columns)}},
        model=model,
        tool_type=rows.tool_type,
        input_example=_example(rows),
        pip_requirements=[*_requirements(), f"malearn=={version('malearn')}"],
        validate_serving_input=False,  # a test does; here it would load every model once more
    )
    return str(info.model_uri)


def _example(rows: Matrix) -> pd.DataFrame:
    """The newest three rows, as a person would write them down."""
    import pandas as pd

    names, newest = rows.tool_type.feature_names, range(max(0, len(rows) - 3), len(rows))
    return pd.DataFrame(
        {
            seconds_model.FUNCTION: [rows.executions[i].function for i in newest],
            **{name: [float(rows.inputs[i, at]) for i in newest] for at, name in enumerate(names)},
        }
    )


def load_native(model_uri: str) -> Regressor:
    """What `log_native` kept, as a `Regressor` again.

    Only the files of our own families are read, in forms that hold numbers and no code;
    the loader that an MLmodel file names is not run. Raises `RegistryError`
    when there is none, or it is not what it should be.
    """
    with _downloaded(model_uri) as folder:
        kept = _facts(model_uri, folder)
        try:
            family = families.get(str(kept["family"]))
        except (InputError, DeclarationError) as error:
            raise RegistryError(model_uri, f"its family cannot be loaded ({error})") from error
        file = _native_file(model_uri, folder, family)
    try:
        return Regressor(
            family.name,
            tuple(kept["columns"]),
            family.read(file),
            int(kept["level_column"]),
            float(kept["level_default"]),
            (float(kept["ratio_range"][0]), float(kept["ratio_range"][1])),
            (float(kept["log_range"][0]), float(kept["log_range"][1])),
            # `trust` is what earlier versions of malearn called it.
            float(kept.get("shrinkage", kept.get("trust", SHRINKAGE))),
        )
    except Exception as error:  # whatever a damaged file makes a library raise
        raise _unreadable(model_uri, error) from error


def _native_file(model_uri: str, folder: Path, family: Family) -> bytes:
    """The estimator's file, by the name that its family gives it."""
    for file in (folder / at / name for at in _PLACES for name in family.files):
        if file.is_file():
            return file.read_bytes()
    others = sorted(p.name for p in folder.iterdir() if p.name.startswith("model."))
    raise RegistryError(
        model_uri,
        f"its {family.name} model is not in {' or '.join(family.files)} but in "
        f"{', '.join(others) or 'no known file'}; other forms may run code and are not loaded",
    )


def native_beside(run_id: str) -> str | None:
    """The address of the trainer's model that a candidate's run holds, if it does."""
    import mlflow

    if not run_id:
        return None
    client = mlflow.MlflowClient()
    found = client.search_logged_models(
        [client.get_run(run_id).info.experiment_id],
        filter_string=f"source_run_id = '{run_id}' AND name = 'native'",
    )
    return str(found[0].model_uri) if found else None


def model_info(model_uri: str) -> Any:
    """MLflow's `ModelInfo` of a logged or registered model. Raises what MLflow raises.

    `mlflow.models.get_model_info` leaves a directory behind at each call, in a process that may
    live for months.
    """
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        path = mlflow.artifacts.download_artifacts(model_uri, dst_path=folder)
        return mlflow.models.Model.load(path).get_model_info()


def native_facts(model_uri: str) -> Mapping[str, Any]:
    """What `log_native` noted beside the estimator. Raises `RegistryError` for any other model."""
    with _downloaded(model_uri) as folder:
        return _facts(model_uri, folder)


@contextmanager
def _downloaded(model_uri: str) -> Iterator[Path]:
    """A copy of a logged model, as long as the block lasts. Raises `RegistryError`."""
    import mlflow

    with tempfile.TemporaryDirectory() as folder:
        try:
            path = Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=folder))
        except (mlflow.exceptions.MlflowException, OSError) as error:
            raise _unreadable(model_uri, error) from error
        yield path


def _facts(model_uri: str, folder: Path) -> Mapping[str, Any]:
    """`native_facts` of the copy in `folder`."""
    import mlflow

    try:
        metadata = mlflow.models.Model.load(str(folder)).metadata or {}
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise _unreadable(model_uri, error) from error
    kept: Mapping[str, Any] | None = metadata.get("malearn")
    if kept is None or "family" not in kept:  # an ONNX file of ours notes its columns there
        raise RegistryError(
            model_uri, "malearn did not train it, and nothing says which numbers it reads"
        )
    return kept


def _unreadable(model_uri: str, error: Exception) -> RegistryError:
    return RegistryError(model_uri, f"the trainer's model cannot be loaded ({error})")


def _signature(width: int) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, width), INPUT)]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 1), OUTPUT)]),
    )


def _requirements(*packages: str) -> list[str]:
    """The versions in use, named here because MLflow would take xgboost for two packages."""
    names = dict.fromkeys((*_PACKAGES, *packages))
    return [f"{package}=={version(package)}" for package in names]
