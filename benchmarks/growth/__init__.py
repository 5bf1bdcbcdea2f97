"""Growth: what costs more once there is more, as ratios within one run.

Rows of a table, tool types, functions and schedulers grow; the cost of what only needs the newest
must not. Several workers must give what one does. CPU seconds and memory are of a process of its
own each. `--part` chooses among the parts; curves are drawn into `benchmarks/growth-*.png`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module

from benchmarks.figure import Figure

__all__ = ["PARTS", "figures"]


def _measure(module: str, part: str) -> Iterable[Figure]:
    # Imported late: processes of one part's own would pay for the libraries of all.
    figures: Iterable[Figure] = getattr(import_module(f"benchmarks.growth.{module}"), part)()
    return figures


#: By name; those that take longest last.
PARTS: Mapping[str, Callable[[], Iterable[Figure]]] = {
    "names": partial(_measure, "tool_types", "names"),
    "flat": partial(_measure, "tool_types", "flat"),
    "ingestion": partial(_measure, "tool_types", "ingestion"),
    "status": partial(_measure, "tool_types", "status"),
    "functions": partial(_measure, "schedulers", "functions"),
    "schedulers": partial(_measure, "schedulers", "schedulers"),
    "cluster": partial(_measure, "redis_cluster", "redis_cluster"),
    "window": partial(_measure, "rows", "window"),
    "disk": partial(_measure, "ingesters", "on_disk"),
    "storage": partial(_measure, "ingesters", "on_object_storage"),
    "rows": partial(_measure, "rows", "rows"),
    "ten-million": partial(_measure, "rows", "ten_million"),
    "runners": partial(_measure, "task_runners", "task_runners"),
}


def figures() -> Iterator[Figure]:
    """All of them."""
    for part in PARTS.values():
        yield from part()
