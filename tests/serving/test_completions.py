"""What was reported is known at once and learnt exactly once, whoever comes by to learn it."""

from __future__ import annotations

import math
import threading

from malearn.kernel.estimation.history import FEATURES
from malearn.kernel.records import Record, Rejected, RejectReason
from malearn.kernel.tool_types import Feature, ToolType, ToolTypes
from malearn.serving.collector import Collector
from malearn.serving.completions import CompletionHandler
from malearn.serving.generational_cache import GenerationalCache
from malearn.serving.predecessor_cache import PredecessorCache
from malearn.serving.refusals import Refusals
from malearn.serving.shared_history import SharedHistory
from malearn.serving.stats import CallCounters

COUNT = FEATURES.index("same_count")
TYPES = ToolTypes([ToolType("toy", ("toy",), "gpu", (Feature("size"),))])


class Bench:
    """A completion handler and what stands around it."""

    def __init__(self) -> None:
        self.memory, self.history = PredecessorCache(TYPES, 100), SharedHistory()
        self.collector, self.counters = Collector(Refusals("redis://nowhere")), CallCounters()
        self.blamed: list[str] = []
        self.completions = CompletionHandler(
            self.memory,
            self.history,
            GenerationalCache(100),
            self.collector,
            self.counters,
            self.blamed.append,
        )

    @property
    def learnt(self) -> int:
        """How many executions the history counts."""
        snapshot = self.history.look_up("toy", "toy", (1.0,), ()).snapshot
        return round(math.expm1(snapshot[COUNT])) if snapshot[COUNT] == snapshot[COUNT] else 0


def ran(number: int) -> Record:
    features = {"size": 1}
    return Record(str(number), "toy", float(number), number + 5.0, features, {"toy": features})


def test_what_a_task_said_is_known_before_it_is_learnt() -> None:
    bench = Bench()
    bench.completions.submit(ran(1))
    (said,) = bench.memory.get_many(["1"])
    assert bench.memory.features_for("toy", bench.memory.schemas["toy"], [said]).values == (1.0,)
    assert (bench.learnt, len(bench.completions), bench.counters.collected) == (0, 1, 1)
    bench.completions.drain()
    assert (bench.learnt, len(bench.completions), len(bench.collector)) == (1, 0, 1)


def test_a_rejected_one_is_reported_in_its_turn_and_teaches_nothing() -> None:
    bench = Bench()
    bench.completions.submit(Rejected("0", "toy", RejectReason.SKIPPED, ""))
    bench.completions.submit(ran(1))
    bench.completions.drain()
    assert (bench.learnt, len(bench.collector)) == (1, 2)
    assert bench.counters.rejected == {"skipped": 1}


def test_whoever_reports_without_asking_learns_in_between() -> None:
    bench = Bench()
    for number in range(1000):
        bench.completions.submit(ran(number))
        assert len(bench.completions) < 100
    assert bench.learnt > 900


def test_what_cannot_be_learnt_is_blamed_and_reported_all_the_same() -> None:
    bench = Bench()
    bench.completions.submit(Record("1", "toy", 1.0, "late"))  # type: ignore[arg-type]
    bench.completions.drain()
    assert (len(bench.blamed), len(bench.collector), len(bench.completions)) == (1, 1, 0)


def test_threads_report_and_settle_at_once() -> None:
    bench = Bench()

    def report(first: int) -> None:
        for number in range(first, first + 500):
            bench.completions.submit(ran(number))
            if number % 7 == 0:
                bench.completions.drain()
            if number % 11 == 0:
                bench.completions.drain_yielding()

    threads = [threading.Thread(target=report, args=(n * 500,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.completions.drain()
    assert (bench.learnt, len(bench.collector)) == (2000, 2000)
