"""The orders of `malearn.kernel.policies`, where a scheduler finds them beside `daps`."""

from malearn.kernel.policies import (
    Key,
    aged,
    arrival,
    daps,
    earliest_deadline,
    fewest_tasks,
    hacs,
    shortest_remaining_work,
    triage,
)

__all__ = [
    "Key",
    "aged",
    "arrival",
    "daps",
    "earliest_deadline",
    "fewest_tasks",
    "hacs",
    "shortest_remaining_work",
    "triage",
]
