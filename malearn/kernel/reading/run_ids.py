"""Run ids: the run within a task id, `<run id>-<function>`.

Maze's run ids are UUIDs. Others are 32 hexadecimal digits, a name, a date: a function is a
Python name, which holds no hyphen, so that the last hyphen is where it begins. Where the
function is given, because a log or a scheduler names it, nothing has to be guessed.
"""

from __future__ import annotations

import string

__all__ = ["UUID_LENGTH", "function_of", "is_unmistakable", "of_task", "run_of"]

#: Characters of a UUID with its hyphens.
UUID_LENGTH = 36
#: Characters of one without.
_BARE_LENGTH = 32

_HEXADECIMAL = frozenset(string.hexdigits)


def function_of(task_id: str) -> str:
    """The function's name within a task id; empty where there is none.

    >>> function_of("19725120-6620-445b-9f40-7ceccb20bae2-task1_speech_process")
    'task1_speech_process'
    >>> function_of("run7-task1_speech_process")
    'task1_speech_process'
    """
    return task_id[_length(task_id) + 1 :]


def run_of(task_id: str, function: str | None = None) -> str:
    """The run's id within a task id, whose `function` may be given.

    >>> run_of("19725120-6620-445b-9f40-7ceccb20bae2-task1_speech_process")
    '19725120-6620-445b-9f40-7ceccb20bae2'
    >>> run_of("nightly-2025-08-01-fuse-answers", "fuse-answers")
    'nightly-2025-08-01'
    """
    # The given name may hold hyphens itself, which the rule by shape below cannot know.
    if function and task_id.endswith(function):
        end = len(task_id) - len(function) - 1
        if end > 0 and task_id[end] == "-":
            return task_id[:end]
    return task_id[: _length(task_id)]


def is_unmistakable(task_id: str, run: str) -> bool:
    """Whether no task of another run than `run` can have this id.

    It begins with the run's id, or with one that nobody gives twice.

    >>> is_unmistakable("run7-read", "run7"), is_unmistakable("run7-read", "run")
    (True, False)
    >>> is_unmistakable("19725120-6620-445b-9f40-7ceccb20bae2-read", "tonight's")
    True
    """
    if run and task_id.startswith(run) and not task_id[len(run) : len(run) + 1].isalnum():
        return True
    return _length(task_id) in (UUID_LENGTH, _BARE_LENGTH)


def of_task(run: str, task: str) -> str:
    """The id of a task that its scheduler numbers within a run, as Maze does.

    Such an id says nothing of the function; `run_of` finds the run in it again.

    >>> of_task("19725120-6620-445b-9f40-7ceccb20bae2", "task_8999a3e9")
    '19725120-6620-445b-9f40-7ceccb20bae2-task_8999a3e9'
    >>> run_of(of_task("nightly-7", "46047da3-af5e-42d2-b299-aee383c82918"))
    'nightly-7'
    """
    # A hyphen within the task's part would be taken for the end of the run's id.
    return f"{run}-{task.replace('-', '_')}"


def _length(task_id: str) -> int:
    """Characters of the run's id."""
    # Nearly always a UUID, whose hyphens stand five apart. Slices rather than indices: they never
    # raise for a short id.
    if task_id[8:24:5] == "----" and task_id[36:37] in ("-", ""):
        return UUID_LENGTH
    if task_id[_BARE_LENGTH : _BARE_LENGTH + 1] == "-" and _HEXADECIMAL.issuperset(
        task_id[:_BARE_LENGTH]
    ):
        return _BARE_LENGTH
    end = task_id.rfind("-")
    return end if end > 0 else len(task_id)
