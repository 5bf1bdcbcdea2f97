"""Task ids: a run's id, a hyphen and the name of the function that the task runs."""

from __future__ import annotations

__all__ = ["RUN_ID_LENGTH", "function_of", "run_of"]


#: A task id is a run's UUID, a hyphen and the function's name.
RUN_ID_LENGTH = 36


def function_of(task_id: str) -> str:
    """The function's name within a task id.

    >>> function_of("19725120-6620-445b-9f40-7ceccb20bae2-task1_speech_process")
    'task1_speech_process'
    """
    return task_id[RUN_ID_LENGTH + 1 :]


def run_of(task_id: str) -> str:
    """The run's UUID within a task id."""
    return task_id[:RUN_ID_LENGTH]
