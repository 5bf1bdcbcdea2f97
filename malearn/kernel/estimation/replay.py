"""Point-in-time replay: each task with what was known when it started.

Known is what `kernel.causality` says was known: what had ended at or before the start.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Protocol

from malearn.kernel import causality
from malearn.kernel.estimation.history import History
from malearn.kernel.estimation.observation import Observation

__all__ = ["Timed", "replay", "timeline"]


class Timed(Protocol):
    """What ran from `start` to `end`, seconds since the epoch."""

    @property
    def start(self) -> float: ...

    @property
    def end(self) -> float: ...


def replay(
    observations: Sequence[Observation],
    contexts: Sequence[tuple[str, ...]] | None = None,
    before: Sequence[Observation] = (),
) -> Iterator[tuple[float, ...]]:
    """A snapshot per observation, in the order given, each of what had ended when it started.

    `contexts` are those known before the tasks ran, where they are not what they ran with. What
    is `before` them is observed too, at its end.
    """
    history = History()
    snapshots: list[tuple[float, ...]] = [()] * len(observations)
    together = [*observations, *before]
    for i, ended in timeline(together):
        for j in ended:
            history.observe(together[j])
        # Those of `before` are only learnt from, not predicted.
        if i >= len(observations):
            continue
        task = observations[i]
        snapshots[i] = history.snapshot(
            task.function,
            task.tool_type,
            task.features,
            task.context if contexts is None else contexts[i],
        )
    return iter(snapshots)


def timeline(tasks: Sequence[Timed]) -> Iterator[tuple[int, list[int]]]:
    """Every task in order of start, with those that have ended since the one before it started.

    Both are positions in `tasks`; the ended ones come in order of their ends. Whoever learns
    from them before predicting the task knows what was known, and nothing more.
    """
    running: list[tuple[float, int]] = []
    for i in sorted(range(len(tasks)), key=lambda i: tasks[i].start):
        ended = []
        while running and causality.was_known(running[0][0], tasks[i].start):
            ended.append(heapq.heappop(running)[1])
        yield i, ended
        # After the yield: a task's own end is not known when it starts.
        heapq.heappush(running, (tasks[i].end, i))
