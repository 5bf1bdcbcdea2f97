"""What a flow says of itself to whoever watches: steps, and what is finished."""

from __future__ import annotations

import logging

from prefect.logging import get_run_logger

__all__ = ["finished", "is_finished"]

_MARK = "malearn_finished"


def finished(text: str) -> None:
    """Log, in the run in progress, that something is done and what came of it."""
    get_run_logger().info("%s", text, extra={_MARK: True})


def is_finished(record: logging.LogRecord) -> bool:
    """Whether `record` was written by `finished`."""
    return bool(getattr(record, _MARK, False))
