"""The flows as deployments run them: with retries, and with a time limit.

A person who calls a flow sees it fail, and decides. A scheduled run may meet a server that is
being restarted or a full disk that is being cleaned while nobody watches, so it is retried.
Names, parameters and code are the same. Each flow is imported when it is asked for: a run that
ingests, every five minutes, need not wait for what trains and plots.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect import Flow

    from malearn.flows.ingest import ingest
    from malearn.flows.lifecycle import lifecycle
    from malearn.flows.maintain import maintain
    from malearn.flows.monitor import monitor
    from malearn.flows.promote import promote
    from malearn.flows.retrain import retrain
    from malearn.flows.train import train

__all__ = ["ingest", "lifecycle", "maintain", "monitor", "promote", "retrain", "train"]

#: Seconds between two attempts: a server of ours that was killed answers again by then.
_AGAIN = 30
_MINUTE, _HOUR = 60, 3600
#: How often each flow is tried again, and the seconds within which an attempt must end.
_LIMITS = {
    "ingest": (2, 30 * _MINUTE),
    "train": (1, 2 * _HOUR),
    "promote": (1, 10 * _MINUTE),
    "retrain": (1, 2 * _HOUR),
    "lifecycle": (1, 6 * _HOUR),
    "monitor": (1, 2 * _HOUR),
    "maintain": (1, 2 * _HOUR),
}


def __getattr__(name: str) -> Flow[..., Any]:
    """The flow of that name, with its retries and its time limit."""
    if name not in _LIMITS:
        raise AttributeError(f"{__name__} has no flow {name!r}")
    retries, seconds = _LIMITS[name]
    flow: Flow[..., Any] = getattr(import_module(f"malearn.flows.{name}"), name)
    return flow.with_options(
        retries=retries,
        retry_delay_seconds=_AGAIN,
        timeout_seconds=seconds,
        validate_parameters=False,
    )
