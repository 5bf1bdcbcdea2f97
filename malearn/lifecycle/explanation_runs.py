"""Explanations in MLflow: a few typical tasks of the test window, and the worst, term by term."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from malearn.learning import explanation, explanation_plots
from malearn.learning.explanation import RowExplanation
from malearn.learning.matrix import Matrix
from malearn.learning.regressor import Regressor
from malearn.lifecycle import runs

__all__ = ["TABLE", "log"]

#: The artifact that holds all of them, a row a term, and the folder of their waterfalls.
TABLE, _PLOTS = "explanations.json", "explanations"


def log(fitted: Regressor, before_test: Matrix, test: Matrix) -> None:
    """Explain what `fitted`, which was fitted on `before_test`, predicts of some tasks of `test`.

    Each is a waterfall among the artifacts of the run in progress, and rows of one table.
    """
    predicted = fitted.seconds(test.inputs_for(fitted.columns))
    chosen = explanation.typical_and_worst(test.seconds, predicted)
    # Of the model that the test window was hidden from: on rows it knows, none would look bad.
    found = explanation.explain_rows(fitted, test, chosen, lambda: before_test.inputs)
    columns: dict[str, list[Any]] = {name: [] for name in _row(found[0], 0)}
    for one in found:
        for number in range(len(one.terms)):
            for name, value in _row(one, number).items():
                columns[name].append(value)
        title = f"{one.name.capitalize()}: {one.execution.function}, {one.predicted:.3g} s"
        figure = explanation_plots.waterfall(one.terms, title, one.execution.seconds)
        runs.log_figures({one.name.replace(" ", "_"): figure}, folder=_PLOTS)
    runs.log_table(columns, TABLE)


def _row(one: RowExplanation, number: int) -> dict[str, Any]:
    """One term of an explanation, as a row of the table."""
    term, execution = one.terms[number], one.execution
    return {
        "which": one.name,
        "task": execution.task_id,
        "function": execution.function,
        "started": f"{datetime.fromtimestamp(execution.start, UTC):%Y-%m-%d %H:%M:%S}",
        "took, s": round(execution.seconds, 4),
        "predicted, s": round(one.predicted, 4),
        "group": term.group,
        "term": term.name,
        "value": None if term.value is None or term.value != term.value else term.value,
        "log-seconds": round(term.log_seconds, 6),
        "factor": round(term.factor, 4),
    }
