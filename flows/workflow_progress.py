"""Workflows in progress, as schedulers' predictors publish them in Redis."""

from __future__ import annotations

from collections.abc import Iterable

from malearn.data import redis_client
from malearn.kernel.errors import InputError
from malearn.kernel.estimation.intervals import COVERAGE
from malearn.kernel.names import Names
from malearn.kernel.workflows import workflow_calibration, workflow_status
from malearn.kernel.workflows.workflow_calibration import Coverage
from malearn.kernel.workflows.workflow_status import WorkflowStatus
from malearn.serving import workflow_publisher

__all__ = ["coverage", "described", "find", "in_progress", "ordered", "published"]

_PAGE = 256  # workflows per round trip


def in_progress(redis_url: str) -> list[WorkflowStatus]:
    """Those with tasks left, as `ordered`.

    Raises `Unreachable` where Redis does not answer.
    """
    found = []
    with redis_client.connected(redis_url) as client:
        # SCAN, not KEYS, which would block Redis for its schedulers.
        keys = sorted(client.scan_iter(match=f"{Names.find().workflow}*", count=5_000))
        for start in range(0, len(keys), _PAGE):
            for raw in redis_client.get_many(client, keys[start : start + _PAGE]):
                # None: it expired between SCAN and MGET.
                status = workflow_status.read(raw) if raw is not None else None
                if status is not None and status.ended is None:
                    found.append(status)
    return ordered(found)


def ordered(found: Iterable[WorkflowStatus]) -> list[WorkflowStatus]:
    """The likeliest to be late first, then by arrival."""
    return sorted(found, key=lambda one: (-(one.late or 0.0), one.arrived or 0.0, one.run_id))


def published(redis_url: str, run_id: str) -> WorkflowStatus | None:
    """One of them, finished or not; None where nothing is known of it."""
    with redis_client.connected(redis_url) as client:
        raw = client.get(Names.find().workflow + run_id)
    return workflow_status.read(raw) if raw is not None else None


def find(redis_url: str, run_id: str) -> WorkflowStatus:
    """One of them, finished or not. Raises `InputError` where nothing is known of it."""
    status = published(redis_url, run_id)
    if status is None:
        raise InputError(
            run_id, "no scheduler asked about this workflow within the last hour; check the run id"
        )
    return status


def coverage(redis_url: str) -> Coverage | None:
    """The coverage of the latest intervals of whole workflows; None where too few have finished.

    Raises `Unreachable` where Redis does not answer.
    """
    with redis_client.connected(redis_url) as client:
        newest_first = client.lrange(Names.find().workflow_scores, 0, -1)
    # The calibration is updated from old to new; Redis has the newest first.
    return workflow_calibration.coverage(workflow_publisher.scores(reversed(newest_first)))


def described(found: Coverage | None) -> str:
    """The same in Markdown, for the monitor's report."""
    if found is None:
        text = "Too few workflows that a scheduler asked about have finished to judge intervals."
    else:
        side = "longer" if found.median > 0.0 else "shorter"
        text = (
            f"Of {found.outcomes} predictions of whole workflows {found.inside:.0%} ended within "
            f"the interval ({COVERAGE:.0%} wanted). The median path was {side} than expected by "
            f"{abs(found.median):.1f} standard deviations before calibration."
        )
    return f"## Whole workflows\n\n{text}"
