"""A chronological replay of run logs: every predictor scored on the same tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from malearn.data import run_logs
from malearn.kernel import joining, tool_types
from malearn.kernel.errors import InputError
from malearn.kernel.records import Execution
from malearn.learning import evaluation
from malearn.learning.evaluation import Evaluation

__all__ = ["evaluate"]


def evaluate(
    files: Sequence[Path],
    *,
    score_from: int = 0,
    cadence: int | None = evaluation.CADENCE,
    production: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Replay the executions in `files`, each of which is a run of its own.

    With `production` models are promoted as there: see `evaluation.replay`.
    Of a task that is in several files the one that ended last counts. Raises
    `InputError` where there is nothing to score.
    """
    types = tool_types.declared()
    latest: dict[str, tuple[Execution, str]] = {}
    for file in files:
        for batch in run_logs.read([file]):
            read = (record for record in batch if not isinstance(record, Execution))
            executions, _ = joining.join(read, types)
            for execution in executions:
                # A retried task is in the log twice; the later end is the one that counts.
                known = latest.get(execution.task_id)
                if known is None or execution.end > known[0].end:
                    latest[execution.task_id] = execution, file.name
    if len(latest) <= score_from:
        raise InputError(
            ", ".join(file.name for file in files),
            f"{len(latest)} executions can be replayed, none is left to score from {score_from} on",
        )
    return evaluation.evaluate(
        [execution for execution, _ in latest.values()],
        types,
        {task_id: name for task_id, (_, name) in latest.items()},
        score_from=score_from,
        cadence=cadence,
        production=production,
        progress=progress,
    )
