"""A model of every family comes back from MLflow as it went in."""

from __future__ import annotations

import mlflow
import pytest

from malearn.kernel.errors import RegistryError
from malearn.learning.families import FAMILIES
from malearn.lifecycle import logged_models


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_comes_back_as_it_was_logged(family: str, connected: str, fit) -> None:
    one = fit(family, "speech_process")
    mlflow.set_experiment("logged models tests")
    with mlflow.start_run():
        uri = logged_models.log_native(one.regressor, one.rows)
    again = logged_models.load_native(uri)
    inputs = one.rows.inputs
    assert again.seconds(inputs) == pytest.approx(one.regressor.seconds(inputs), rel=1e-6)
    assert (again.family, again.columns) == (family, one.rows.columns)


def test_a_model_that_is_gone_says_so(connected: str) -> None:
    with pytest.raises(RegistryError, match="the trainer's model cannot be loaded"):
        logged_models.load_native("models:/m-00000000000000000000000000000000")
