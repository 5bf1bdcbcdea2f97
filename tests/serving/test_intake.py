"""What was reported is known at once and learnt exactly once, whoever comes by to learn it."""

from __future__ import annotations

import math
import threading

from malearn.kernel.history import FEATURES
from malearn.kernel.records import Reason, Record, Rejected
from malearn.kernel.tool_types import Feature, ToolType, ToolTypes
from malearn.serving.collector import Collector
from malearn.serving.intake import Intake
from malearn.serving.memory import Memory
from malearn.serving.recent import Recent
from malearn.serving.shared_history import SharedHistory
from malearn.serving.stats import Tally

COUNT = FEATURES.index("same_count")
TYPES = ToolTypes([ToolType("toy", ("toy",), "gpu", (Feature("size"),))])


class Bench:
    """An intake and what stands around it."""

    def __init__(self) -> None:
        self.memory, self.history = Memory(TYPES, 100), SharedHistory()
        self.collector, self.tally = Collector(), Tally()
        self.blamed: list[str] = []
        self.intake = Intake(
            self.memory,
            self.history,
            Recent(100),
            self.collector,
            self.tally,
            self.blamed.append,
        )

    @property
    def learnt(self) -> int:
        """How many executions the history counts."""
        snapshot, _ = self.history.snapshot("toy", "toy", (1.0,), ())
        return round(math.expm1(snapshot[COUNT])) if snapshot[COUNT] == snapshot[COUNT] else 0


def ran(number: int) -> Record:
    features = {"size": 1}
    return Record(str(number), "toy", float(number), number + 5.0, features, {"toy": features})


def test_what_a_task_said_is_known_before_it_is_learnt() -> None:
    bench = Bench()
    bench.intake.take(ran(1))
    (said,) = bench.memory.of(["1"])
    assert bench.memory.recall("toy", bench.memory.columns["toy"], [said]).values == (1.0,)
    assert (bench.learnt, len(bench.intake), bench.tally.collected) == (0, 1, 1)
    bench.intake.settle()
    assert (bench.learnt, len(bench.intake), len(bench.collector)) == (1, 0, 1)


def test_a_rejected_one_is_reported_in_its_turn_and_teaches_nothing() -> None:
    bench = Bench()
    bench.intake.take(Rejected("0", "toy", Reason.SKIPPED, ""))
    bench.intake.take(ran(1))
    bench.intake.settle()
    assert (bench.learnt, len(bench.collector)) == (1, 2)
    assert bench.tally.rejected == {"skipped": 1}


def test_whoever_reports_without_asking_learns_in_between() -> None:
    bench = Bench()
    for number in range(1000):
        bench.intake.take(ran(number))
        assert len(bench.intake) < 100
    assert bench.learnt > 900


def test_what_cannot_be_learnt_is_blamed_and_reported_all_the_same() -> None:
    bench = Bench()
    bench.intake.take(Record("1", "toy", 1.0, "late"))  # type: ignore[arg-type]
    bench.intake.settle()
    assert (len(bench.blamed), len(bench.collector), len(bench.intake)) == (1, 1, 0)


def test_threads_report_and_settle_at_once() -> None:
    bench = Bench()

    def report(first: int) -> None:
        for number in range(first, first + 500):
            bench.intake.take(ran(number))
            if number % 7 == 0:
                bench.intake.settle()
            if number % 11 == 0:
                bench.intake.settle_politely()

    threads = [threading.Thread(target=report, args=(n * 500,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.intake.settle()
    assert (bench.learnt, len(bench.collector)) == (2000, 2000)
