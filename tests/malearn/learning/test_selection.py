"""Model selection never lets a row choose, weigh or test what was fitted on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.learning import baselines, matrix, regressor, selection, stack
from malearn.learning.families import FAMILIES, USUAL
from malearn.learning.matrix import Matrix
from malearn.learning.selection import NothingSelected, Selection


class Memory:
    """Knows by heart what it was fitted on, and is far off everywhere else."""

    def __init__(self, inputs: np.ndarray, target: np.ndarray) -> None:
        self.known = {row.tobytes(): value for row, value in zip(inputs, target, strict=True)}

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return np.array([self.known.get(row.tobytes(), 3.0) for row in inputs])


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a family that overfits as much as can be."""
    family = replace(
        FAMILIES["linear"],
        name="memory",
        fit=lambda x, y, _: Memory(x, y),
        importance=lambda _, n: np.ones(n),
    )
    monkeypatch.setitem(FAMILIES, family.name, family)  # type: ignore[attr-defined]
    return family.name


@pytest.fixture(scope="module")
def rows(own_tool_type: ToolType, synthetic) -> Matrix:
    return matrix.build(own_tool_type, synthetic(own_tool_type, 200))


def select(rows: Matrix, *families: str) -> Selection:
    found = selection.select(
        rows, ToolTypes([rows.tool_type]), families=families, prove=lambda *_: None
    )
    assert isinstance(found, Selection)
    return found


def test_no_family_is_chosen_on_rows_that_it_was_fitted_on(rows: Matrix, memory: str) -> None:
    """On its own rows the memory would be perfect."""
    found = select(rows, memory, "linear")
    assert found.chosen.recipe.family == "linear"
    scores = {c.recipe.family: c.validation.mae for c in found.candidates}
    assert scores[memory] > 2 * scores["linear"]


def test_none_is_tested_on_rows_that_it_was_fitted_on(rows: Matrix, memory: str) -> None:
    (candidate,) = select(rows, memory).candidates
    assert candidate.test.mae > 1.0
    assert not select(rows, memory).decision.promote


def test_how_far_an_estimator_is_believed_is_learnt_from_rows_it_has_not_seen(
    rows: Matrix, memory: str
) -> None:
    """On rows that it was fitted on, going all the way to the memory's answer would be best."""
    assert regressor.fit(memory, rows).shrinkage == pytest.approx(regressor.SHRINKAGE)


def test_windows_follow_each_other_in_time_and_share_no_row(rows: Matrix) -> None:
    cut = select(rows, "linear").windows
    for earlier, later in ((cut.train, cut.validation), (cut.before_test, cut.test)):
        starts = min(e.start for e in later.executions)
        assert max(e.end for e in earlier.executions) <= starts
    assert len(cut.test) == 40
    assert len(cut.validation) == round(len(cut.before_test) / 5)


def test_the_interval_is_that_of_errors_in_the_test_window(rows: Matrix) -> None:
    """80 % of the outcomes there lie within it, a tenth on either side: of errors of the model
    that had not seen them.
    """
    found = select(rows, "linear")
    ratio = found.windows.test.seconds / found.chosen.seconds
    low, high = found.calibration["low"], found.calibration["high"]
    assert np.mean(ratio < low) == pytest.approx(0.1, abs=0.03)
    assert np.mean(ratio > high) == pytest.approx(0.1, abs=0.03)
    fitted = regressor.fit("linear", found.windows.before_test)
    assert np.allclose(found.chosen.seconds, fitted.seconds(found.windows.test.inputs))


def test_what_is_selected_is_fitted_on_all_rows(rows: Matrix) -> None:
    found = select(rows, "linear")
    everything = regressor.fit("linear", rows).seconds(rows.inputs)
    assert np.array_equal(found.fitted.seconds(rows.inputs), everything)


def test_a_selection_can_be_repeated_exactly(rows: Matrix) -> None:
    one, other = select(rows, "linear"), select(rows, "linear")
    assert one.decision == other.decision
    assert one.calibration == other.calibration
    assert one.learning_curve == other.learning_curve


def test_too_few_rows_select_nothing_and_say_how_many_are_required(rows: Matrix) -> None:
    few = rows.rows(np.arange(20))
    found = selection.select(few, ToolTypes([rows.tool_type]))
    assert isinstance(found, NothingSelected)
    need = min(FAMILIES[name].fewest_rows for name in USUAL)
    assert found.why.endswith(f"in the train window; at least {need} are required there")


def test_the_default_family_is_kept_unless_another_is_clearly_better(rows: Matrix) -> None:
    found = select(rows, "xgboost", "linear")
    errors = {c.recipe.family: c.validation.mae for c in found.candidates}
    clearly = errors["linear"] < 0.95 * errors["xgboost"]
    assert found.chosen.recipe.family == ("linear" if clearly else "xgboost")


def test_a_strong_learner_is_tested_beside_the_baselines(rows: Matrix) -> None:
    found = select(rows, "linear")
    assert set(found.scores) == {"linear", "stack", *baselines.BASELINES}
    # It knows the features, which no average does.
    assert found.scores["stack"].mae < found.scores["function_ema"].mae


def test_what_had_not_ended_when_the_test_window_began_teaches_nobody(rows: Matrix) -> None:
    """Nothing of the test window, nor what was running then, moves what is predicted of it."""
    executions, count = rows.executions, 40
    late = [
        replace(e, end=e.end + 1e6) if i >= len(executions) - count else e
        for i, e in enumerate(executions)
    ]
    predicted = {
        name: predict(executions, ToolTypes([rows.tool_type]))
        for name, predict in baselines.BASELINES.items()
    }
    one, other = (stack.of_newest(some, predicted, count) for some in (executions, late))
    assert one is not None and other is not None
    assert one.tolist() == other.tolist()
