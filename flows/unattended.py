"""The flows as deployments run them: with retries, and with a time limit.

A person who calls a flow sees it fail, and decides. A scheduled run may meet a server that is
being restarted or a full disk that is being cleaned while nobody watches, so it is retried.
Names, parameters and code are the same.
"""

from __future__ import annotations

from typing import ParamSpec, TypeVar

from prefect import Flow

from malearn.flows.ingest import ingest as _ingest
from malearn.flows.lifecycle import lifecycle as _lifecycle
from malearn.flows.maintain import maintain as _maintain
from malearn.flows.monitor import monitor as _monitor
from malearn.flows.promote import promote as _promote
from malearn.flows.retrain import retrain as _retrain
from malearn.flows.train import train as _train

__all__ = ["ingest", "lifecycle", "maintain", "monitor", "promote", "retrain", "train"]

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds between two attempts: a server of ours that was killed answers again by then.
_AGAIN = 30
_MINUTE, _HOUR = 60, 3600


def _unattended(flow: Flow[P, R], retries: int, seconds: int) -> Flow[P, R]:
    """`flow` with `retries` retries, each attempt limited to so many seconds."""
    return flow.with_options(
        retries=retries,
        retry_delay_seconds=_AGAIN,
        timeout_seconds=seconds,
        validate_parameters=False,
    )


ingest = _unattended(_ingest, 2, 30 * _MINUTE)
train = _unattended(_train, 1, 2 * _HOUR)
promote = _unattended(_promote, 1, 10 * _MINUTE)
retrain = _unattended(_retrain, 1, 2 * _HOUR)
lifecycle = _unattended(_lifecycle, 1, 6 * _HOUR)
monitor = _unattended(_monitor, 1, 2 * _HOUR)
maintain = _unattended(_maintain, 1, 2 * _HOUR)
