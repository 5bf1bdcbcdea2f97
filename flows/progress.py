"""How a flow shows its progress: log lines, a progress bar, and tags on its run."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

__all__ = ["Steps", "finished", "is_finished", "tag"]

_MARK = "malearn_finished"


def finished(text: str) -> None:
    """Log the result of a finished step in the current run."""
    # A mark, for the console prints finished steps as lines that stay and others in passing.
    get_run_logger().info("%s", text, extra={_MARK: True})


def is_finished(record: logging.LogRecord) -> bool:
    """Whether `record` was written by `finished`."""
    return bool(getattr(record, _MARK, False))


def tag(*names: str) -> None:
    """Add tags to the current run, to filter the list of runs by."""
    if flow_run.id is None:  # called as a plain function, outside a run
        return
    with get_client(sync_client=True) as client:
        # An update replaces the tags: those of the deployment have to be named again.
        client.update_flow_run(UUID(flow_run.id), tags=sorted({*(flow_run.tags or ()), *names}))


class Steps:
    """A progress bar among the artifacts of the current run, one part per step."""

    def __init__(self, key: str, count: int, what: str) -> None:
        self._count, self._done, self._what = count, 0, what
        made: Any = create_progress_artifact(0.0, key=key, description=what)
        self._artifact: UUID = made

    def next(self, text: str) -> None:
        """Begin a step; those before it are done."""
        get_run_logger().info("%s", text)
        # Ingestion may find more tool types than were counted.
        share = 100.0 * min(self._done / self._count, 1.0)
        update_progress_artifact(self._artifact, share, description=f"{self._what}: {text}")
        self._done += 1

    def end(self) -> None:
        """Mark all steps as done."""
        update_progress_artifact(self._artifact, 100.0, description=f"{self._what}: done")
