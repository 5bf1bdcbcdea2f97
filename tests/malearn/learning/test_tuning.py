"""A search sees neither the test window nor anything later; it goes on, and it prunes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from malearn.kernel.errors import TrainingError
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.learning import matrix, regressor, selection, tuning, windows
from malearn.learning.matrix import Matrix
from malearn.learning.metrics import score
from malearn.learning.selection import Selection
from malearn.learning.tuning import Found, Trial


@pytest.fixture(scope="module")
def rows(own_tool_type: ToolType, synthetic) -> Matrix:
    return matrix.build(own_tool_type, synthetic(own_tool_type, 160))


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'tuning.db'}"


def without_the_test_window(rows: Matrix) -> Matrix:
    """The same rows, with outcomes in the test window that nobody could have foreseen."""
    seconds = rows.seconds.copy()
    seconds[-len(windows.cut(rows).test) :] = 1e6
    return replace(rows, seconds=seconds)


def test_the_test_window_has_no_part_in_a_search(rows: Matrix) -> None:
    found = tuning.search("linear", rows, trials=4)
    other = tuning.search("linear", without_the_test_window(rows), trials=4)
    assert (found.parameters, found.error) == (other.parameters, other.error)


def test_what_is_found_has_the_error_that_is_reported(rows: Matrix) -> None:
    cut, tried = windows.cut(rows), list[Trial]()
    found = tuning.search("linear", rows, trials=6, each=lambda trial, _: tried.append(trial))
    fitted = regressor.fit("linear", cut.train, found.parameters)
    again = score(cut.validation.seconds, fitted.seconds(cut.validation.inputs)).mae
    assert found.error == pytest.approx(again)
    assert found.error <= found.declared_error
    assert found.error == min(
        [found.declared_error, *(t.error for t in tried if t.state == "complete")]
    )
    assert [trial.number for trial in tried] == list(range(6))


def test_a_search_goes_on_where_it_was_interrupted(rows: Matrix, storage: str) -> None:
    def interrupted(trial: Trial, found: Found) -> None:
        if trial.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning.search("linear", rows, trials=5, storage=storage, each=interrupted)
    assert tuning.finished(storage, rows.tool_type.name) == []
    numbers: list[int] = []
    found = tuning.search(
        "linear",
        rows,
        trials=5,
        storage=storage,
        each=lambda trial, _: numbers.append(trial.number),
    )
    assert numbers == [3, 4]
    assert found.trials == 5
    again = tuning.search("linear", rows, trials=5, storage=storage, each=interrupted)
    assert again == found
    assert tuning.finished(storage, rows.tool_type.name) == [found]


def test_trials_that_do_worse_than_the_others_are_pruned(rows: Matrix) -> None:
    states: list[str] = []
    tuning.search("linear", rows, trials=25, each=lambda trial, _: states.append(trial.state))
    assert set(states) == {"complete", "pruned"}
    assert set(states[:8]) == {"complete"}


def test_a_search_needs_rows_and_something_to_search_for(rows: Matrix) -> None:
    few = rows.rows(np.arange(30))
    with pytest.raises(TrainingError, match="linear needs 30 rows, the train window has"):
        tuning.search("linear", few, trials=1)


def test_what_was_found_is_a_candidate_that_must_be_clearly_better(rows: Matrix) -> None:
    types = ToolTypes([rows.tool_type])
    found = selection.select(
        rows, types, families=["linear"], found={"linear": {"alpha": 10.0, "epsilon": 1.3501}}
    )
    assert isinstance(found, Selection)
    assert {c.recipe.name for c in found.candidates} == {"linear", "linear tuned"}
    assert found.chosen.recipe.name == "linear"
    tuned = {c.recipe.name: c.recipe.parameters for c in found.candidates}["linear tuned"]
    assert tuned["epsilon"] == 1.3501
