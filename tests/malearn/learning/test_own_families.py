"""A family of a user's own: the documents' code as it stands, and what is wrong with others."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from malearn.kernel.errors import DeclarationError, ExportError, InputError, TrainingError
from malearn.kernel.tool_types import ToolType, ToolTypes, declared
from malearn.learning import export, families, matrix, regressor, selection
from malearn.learning.matrix import Matrix
from malearn.learning.selection import Selection

PAGE = Path(__file__).parents[3] / "docs" / "adding-a-family.md"
Declare = Callable[..., None]

NEIGHBOURS = """
from sklearn.neighbors import KNeighborsRegressor
from malearn.learning.families import pipelines

NEIGHBOURS = pipelines.family("neighbours", lambda: pipelines.scaled(KNeighborsRegressor()))
"""
FAILING = """
from malearn.learning.families import pipelines

class Failing:
    def fit(self, inputs, target):
        raise MemoryError("no room\\nfor this")

FAILING = pipelines.family("failing", Failing)
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Declare]:
    """Writes modules, and a `malearn.toml` that names families, into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MALEARN_TOOL_TYPES", raising=False)
    before = set(sys.modules)

    def write(references: str, **modules: str) -> None:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text, "utf-8")
        (tmp_path / "malearn.toml").write_text(references, "utf-8")

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture(scope="module")
def rows(own_tool_type: ToolType, synthetic) -> Matrix:
    return matrix.build(own_tool_type, synthetic(own_tool_type, 120))


@pytest.fixture
def documented(declare: Declare) -> None:
    """The module and the declaration of docs/adding-a-family.md."""
    (module,) = blocks("python")
    declare(blocks("toml")[1], own_models=module)


@pytest.mark.usefixtures("documented")
def test_the_documented_family_is_trained_exported_and_compared(rows: Matrix) -> None:
    assert families.tried(rows.tool_type) == ("xgboost", "mlp", "linear", "ridge")
    types = ToolTypes([rows.tool_type])
    found = selection.select(rows, types, families=["ridge", "linear"])
    assert isinstance(found, Selection)
    assert found.failed == {}
    assert {c.recipe.family for c in found.candidates} == {"ridge", "linear"}
    ridge = regressor.fit("ridge", rows)
    export.prove(ridge, rows)
    assert sum(ridge.importance.values()) == pytest.approx(1.0)


@pytest.mark.usefixtures("documented")
def test_its_hyper_parameters_are_declared_like_those_of_others(tmp_path: Path) -> None:
    with (tmp_path / "malearn.toml").open("a") as file:
        file.write("[llm_process.hyperparameters.ridge]\nalpha = 4\n")
    llm = declared()["llm_process"]
    families.check(llm)
    assert llm.hyperparameters == {"ridge": {"alpha": 4}}
    assert llm.features == ToolTypes(declared().values())["llm_process"].features
    with (tmp_path / "malearn.toml").open("a") as file:
        file.write("beta = 1\n")
    with pytest.raises(DeclarationError, match=r"unknown keys: beta; ridge takes alpha"):
        families.check(declared()["llm_process"])


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("ridge", "family 'ridge' is neither shipped nor of the form package.module:NAME"),
        ("nowhere:RIDGE", "no module nowhere is installed or in "),
        ("mine:RIDGE", "is not there: module mine has no RIDGE"),
        ("mine:NUMBER", "is of type int, not a malearn.learning.families.Family"),
        ("broken:RIDGE", r"cannot be loaded: module broken raises ValueError \(first second\)"),
        ("json:RIDGE", "is ambiguous: there is a module json in .* rename yours"),
        ("malearn:RIDGE", "is ambiguous: there is a module malearn in .* rename yours"),
        ("clash:RIDGE", "is called xgboost, as a shipped one is"),
        ("wrong:RIDGE", r"raises ValueError \(a family's name is small letters"),
    ],
)
def test_what_is_wrong_with_a_family_is_said_in_one_sentence(
    declare: Declare, reference: str, sentence: str
) -> None:
    clash = NEIGHBOURS.replace('"neighbours"', '"xgboost"').replace("NEIGHBOURS =", "RIDGE =")
    declare(
        f'families = ["{reference}"]',
        mine="NUMBER = 7\n",
        broken="raise ValueError('first\\nsecond')\n",
        json="RIDGE = 1\n",
        malearn="RIDGE = 1\n",
        clash=clash,
        wrong=clash.replace('"xgboost"', '"No Name"'),
    )
    with pytest.raises(DeclarationError, match=sentence) as error:
        families.known()
    assert "\n" not in str(error.value)


def test_a_users_module_never_stands_for_one_that_is_installed(declare: Declare) -> None:
    """The directory of the declaration is no place that modules are looked for in."""
    declare('families = ["mine:NEIGHBOURS"]', mine=NEIGHBOURS, colorsys="raise SystemExit\n")
    sys.modules.pop("colorsys", None)
    assert "neighbours" in families.known()
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)


def test_one_that_no_scheduler_would_run_fails_in_training_by_name(
    declare: Declare, rows: Matrix
) -> None:
    declare('families = ["mine:NEIGHBOURS"]', mine=NEIGHBOURS)
    types = ToolTypes([rows.tool_type])
    with pytest.raises(ExportError, match=r"The neighbours model of .* it uses the operator"):
        selection.select(rows, types, families=["neighbours"])
    found = selection.select(rows, types, families=["linear", "neighbours"])
    assert isinstance(found, Selection)
    assert found.chosen.recipe.family == "linear"
    assert "it uses the operator" in found.failed["neighbours"]


def test_one_that_fails_does_not_stop_the_others(declare: Declare, rows: Matrix) -> None:
    declare('families = ["mine:FAILING"]', mine=FAILING)
    types = ToolTypes([rows.tool_type])
    found = selection.select(rows, types, families=["failing", "linear"])
    assert isinstance(found, Selection)
    assert found.failed["failing"].endswith("failing fails (MemoryError: no room for this).")
    with pytest.raises(TrainingError, match="failing fails"):
        selection.select(rows, types, families=["failing"])


def test_a_family_that_nobody_knows_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InputError, match="choose from xgboost, mlp, linear"):
        families.get("magic")


def test_declared_hyper_parameters_are_what_is_fitted(rows: Matrix) -> None:
    own = replace(rows.tool_type, hyperparameters={"xgboost": {"n_estimators": 9}})
    fitted = regressor.fit("xgboost", replace(rows, tool_type=own))
    assert fitted.estimator.get_booster().num_boosted_rounds() == 9
    assert np.all(np.isfinite(fitted.seconds(rows.inputs)))
