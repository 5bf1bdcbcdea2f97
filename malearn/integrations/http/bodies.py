"""The bodies of requests: what each may hold, and the sentence for one that does not."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from malearn.integrations.http.refused import RequestRefused

__all__ = [
    "AppendedBody",
    "BatchBody",
    "FinishedBatchBody",
    "FinishedBody",
    "ProgressBody",
    "QueueBody",
    "TaskBody",
    "WorkflowBody",
    "WorkflowTaskBody",
    "decode",
]

#: Tasks of one batch and of one workflow, workflows of one queue.
MOST_TASKS, MOST_WORKFLOWS = 4_096, 1_024
_LONGEST_NAME = 1_024

Name = Annotated[str, Meta(min_length=1, max_length=_LONGEST_NAME)]
Names = Annotated[list[Name], Meta(max_length=MOST_TASKS)]
Resource = Literal["gpu", "cpu", "io"]
#: A feature is a number, a context value a text; null means that it is not known.
Features = Annotated[dict[str, float | str | bool | None], Meta(max_length=1_000)]
#: The upper bound is `believable.LONGEST`: a longer task would be rejected at ingestion.
Seconds = Annotated[float, Meta(gt=0.0, lt=30 * 86_400.0)]
Epoch = Annotated[float, Meta(ge=0.0)]

_Body = TypeVar("_Body")


# gc=False: decoded JSON has no cycles, so the garbage collector need not track it.
class _Strict(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An unknown key is a typing error, so it is rejected."""


class TaskBody(_Strict, frozen=True):
    """A task to be predicted: `task_name` is its function.

    `predecessors` are ids of finished tasks, whose records are read from Redis unless they were
    reported here. With a `task_id` its outcome is matched with the prediction.
    """

    task_name: Name
    features: Features | None = None
    task_type: Resource | None = None
    predecessors: Names = []
    task_id: Name | None = None


class BatchBody(_Strict, frozen=True):
    """Tasks to be predicted together."""

    tasks: Annotated[list[TaskBody], Meta(max_length=MOST_TASKS)]


class FinishedBody(_Strict, frozen=True):
    """A finished task: `execution_time` in seconds, `end_time` since the epoch, now unless given.

    `successors` are features of tasks that follow it, by function.
    """

    task_name: Name
    execution_time: Seconds
    features: Features | None = None
    task_id: Name | None = None
    end_time: Epoch | None = None
    successors: Annotated[dict[str, Features], Meta(max_length=MOST_TASKS)] | None = None


class FinishedBatchBody(_Strict, frozen=True):
    """FinishedBody tasks that are reported together."""

    tasks: Annotated[list[FinishedBody], Meta(max_length=MOST_TASKS)]


class WorkflowTaskBody(_Strict, frozen=True):
    """A task of a workflow, and the ids of those it waits for."""

    task_name: Name
    task_type: Resource = "gpu"
    predecessors: Names = []


Tasks = Annotated[dict[Name, WorkflowTaskBody], Meta(max_length=MOST_TASKS)]
Context = Annotated[dict[str, float | str | bool | None], Meta(max_length=100)]


class WorkflowBody(_Strict, frozen=True):
    """A workflow; times are seconds since the epoch."""

    tasks: Tasks = {}
    arrived: Epoch | None = None
    deadline: Epoch | None = None
    context: Context = {}


class AppendedBody(_Strict, frozen=True):
    """Tasks discovered while a workflow runs, each after its predecessors."""

    tasks: Tasks


class ProgressBody(_Strict, frozen=True):
    """How far a workflow is: when its running tasks started, and which finished unreported."""

    running: Annotated[dict[Name, Epoch], Meta(max_length=MOST_TASKS)] = {}
    done: Names = []
    now: Epoch | None = None


class QueuedBody(_Strict, frozen=True):
    """A workflow of a queue, by its run id."""

    run_id: Name
    running: Annotated[dict[Name, Epoch], Meta(max_length=MOST_TASKS)] = {}
    done: Names = []


class QueueBody(_Strict, frozen=True):
    """Workflows to be predicted together; `policy` orders them, `now` is the caller's clock."""

    workflows: Annotated[list[QueuedBody], Meta(max_length=MOST_WORKFLOWS)]
    policy: (
        Literal[
            "arrival",
            "fewest_tasks",
            "shortest_remaining_work",
            "aged",
            "earliest_deadline",
            "triage",
        ]
        | None
    ) = None
    now: Epoch | None = None


_KINDS = (
    TaskBody,
    BatchBody,
    FinishedBody,
    FinishedBatchBody,
    WorkflowBody,
    AppendedBody,
    ProgressBody,
    QueueBody,
)
# Built once: a decoder compiles the checks of its type.
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in _KINDS
}


def decode(kind: type[_Body], body: bytes) -> _Body:
    """`body` as a `kind`. Raises `RequestRefused`, saying where it is not one."""
    if not body:
        raise RequestRefused(400, "The body is empty; it must be a JSON object.")
    try:
        decoded: _Body = _DECODERS[kind].decode(body)
    except msgspec.ValidationError as error:
        raise RequestRefused(422, f"The body is not what is expected: {_phrase(error)}.") from None
    # RecursionError: arrays nested thousands deep are valid JSON.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = " (NaN and Infinity are not JSON: send null)" if _has_nan(body) else ""
        raise RequestRefused(400, f"The body is not JSON: {_phrase(error)}{hint}.") from None
    return decoded


def _phrase(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    # In lower case as the rest of a sentence, unless it begins with a word such as JSON.
    if text[1:2].isupper():
        return text
    return text[:1].lower() + text[1:] if text else type(error).__name__


def _has_nan(body: bytes) -> bool:
    return b"NaN" in body or b"Infinity" in body
