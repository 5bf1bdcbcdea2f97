"""Workflows in progress, as schedulers' predictors publish them in Redis."""

from __future__ import annotations

from malearn.data import redis_client
from malearn.kernel import workflow_status
from malearn.kernel.errors import InputError
from malearn.kernel.workflow_status import WorkflowStatus

__all__ = ["find", "in_progress"]

_PAGE = 256


def in_progress(redis_url: str) -> list[WorkflowStatus]:
    """Those with tasks left, the likeliest to be late first, then by arrival.

    Raises `Unreachable` where Redis does not answer.
    """
    found = []
    with redis_client.connected(redis_url) as client:
        keys = sorted(client.scan_iter(match=f"{workflow_status.KEY}*", count=5_000))
        for start in range(0, len(keys), _PAGE):
            for raw in client.mget(keys[start : start + _PAGE]):
                status = workflow_status.read(raw) if raw is not None else None
                if status is not None and status.ended is None:
                    found.append(status)
    return sorted(found, key=lambda one: (-(one.late or 0.0), one.arrived or 0.0, one.run_id))


def find(redis_url: str, run_id: str) -> WorkflowStatus:
    """One of them, finished or not. Raises `InputError` where nothing is known of it."""
    with redis_client.connected(redis_url) as client:
        raw = client.get(workflow_status.KEY + run_id)
    status = workflow_status.read(raw) if raw is not None else None
    if status is None:
        raise InputError(
            run_id, "no scheduler asked about this workflow within the last hour; check the run id"
        )
    return status
