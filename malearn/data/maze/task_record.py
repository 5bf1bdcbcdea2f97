"""A finished task of Maze in the form of the execution-log contract, from file and head alike."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["context", "record"]


def record(
    run_id: str,
    start: object,
    end: object,
    result: object,
    known: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """What `record_reader` reads: times of the attempt, what its `result` reports, and `known`.

    `known` is what the task ran with, for features that it does not report itself.
    """
    said = result if isinstance(result, Mapping) else {}
    own = said.get("curr_task_feat")
    if known:
        # What it reports itself wins: it was measured as the task ran.
        own = {**known, **own} if isinstance(own, Mapping) else dict(known)
    return {
        "start_time": start,
        "end_time": end,
        "status": said.get("status"),
        "dag_id": run_id,
        "curr_task_feat": own,
        "succ_task_feat": said.get("succ_task_feat"),
    }


def context(model: str, backend: str) -> dict[str, object]:
    """What a task runs with, as far as it is known.

    >>> context("Qwen3-8B", "")
    {'model': 'Qwen3-8B'}
    """
    words: dict[str, object] = {"model": model, "backend": backend}
    return {name: word for name, word in words.items() if word}
