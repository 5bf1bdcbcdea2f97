"""A chronological replay of run logs: every predictor scored on the same tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from malearn.data import run_logs, short_paths
from malearn.data.maze import reader
from malearn.kernel import text
from malearn.kernel.errors import InputError
from malearn.kernel.reading import joining
from malearn.kernel.records import Execution
from malearn.learning import evaluation, maze_traces
from malearn.learning.evaluation import Evaluation

__all__ = ["evaluate"]


def evaluate(
    files: Sequence[Path],
    *,
    maze: Sequence[Path] = (),
    include_other: bool = False,
    score_from: int = 0,
    cadence: int | None = evaluation.CADENCE,
    production: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Replay the executions in `files` and in the Maze stores `maze`, each a run of its own.

    With `production` models are promoted as there: see `evaluation.replay`. With `include_other`,
    tasks of the generic tool type count in the order of all tasks.
    Of a task that is in several files the one that ended last counts. Raises
    `InputError` where there is nothing to score.
    """
    types = reader.with_announced(maze)
    latest: dict[str, tuple[Execution, str]] = {}
    files, maze = short_paths.distinct(files), short_paths.distinct(maze)
    # Two days' logs often have the same file name; pairs of tasks count within a run.
    names = short_paths.names([*files, *maze])
    for file in files:
        for batch in run_logs.read([file]):
            read = (record for record in batch if not isinstance(record, Execution))
            executions, _ = joining.join(read, types)
            for execution in executions:
                # A retried task is in the log twice; the later end is the one that counts.
                known = latest.get(execution.task_id)
                if known is None or execution.end > known[0].end:
                    latest[execution.task_id] = execution, names[file]
    latest |= maze_traces.executions(maze, types, names)
    if len(latest) <= score_from:
        raise InputError(
            ", ".join(names.values()),
            f"{text.counted(len(latest), 'execution')} can be replayed, "
            f"none is left to score from {score_from} on",
        )
    return evaluation.evaluate(
        [execution for execution, _ in latest.values()],
        types,
        {task_id: name for task_id, (_, name) in latest.items()},
        score_from=score_from,
        cadence=cadence,
        production=production,
        progress=progress,
        order_all=include_other,
    )
