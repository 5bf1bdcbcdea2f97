"""What was observed counts for whoever asks next, and only once."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

from malearn.kernel.estimation.history import FEATURES
from malearn.kernel.estimation.observation import Observation
from malearn.serving import shared_history
from malearn.serving.shared_history import SharedHistory

COUNT = FEATURES.index("same_count")


def ran(number: int) -> Observation:
    return Observation("f", "t", float(number), number + 5.0, (1.0,))


def counted(history: SharedHistory) -> int:
    snapshot = history.look_up("f", "t", (1.0,), ()).snapshot
    return round(math.expm1(snapshot[COUNT])) if snapshot[COUNT] == snapshot[COUNT] else 0


def test_an_observation_counts_in_the_next_answer_and_only_once() -> None:
    history = SharedHistory()
    for number in range(10):
        assert history.observe(str(number), ran(number))
        assert not history.observe(str(number), ran(number))
        assert counted(history) == number + 1


def test_what_is_restored_neither_loses_nor_doubles_anything() -> None:
    history = SharedHistory()
    history.observe("9", ran(9))
    assert history.restore([ran(1), ran(9), ran(2)]) == 2
    history.observe("10", ran(10))
    assert counted(history) == 4
    assert round(history.look_up("f", "t", (1.0,), ()).seconds) == 5


def test_what_comes_while_a_full_history_is_restored_is_not_lost() -> None:
    history = SharedHistory()
    for number in range(shared_history._KEPT + 10):
        history.observe(str(number), ran(number))

    def earlier() -> Iterator[Observation]:
        """Read from Redis, while the scheduler goes on."""
        yield ran(-1)
        history.observe("late", Observation("late", "t", 0.0, 1e6, (1.0,)))

    assert history.restore(earlier()) == 1
    assert history.count("late") == 1
    assert history.count("f") == shared_history._KEPT + 1
    assert history.restore([Observation("late", "t", 0.0, 1e6, (1.0,))]) == 0


def test_threads_observe_and_ask_at_once() -> None:
    history = SharedHistory()

    def report(first: int) -> None:
        for number in range(first, first + 500):
            history.observe(str(number), ran(number))
            if number % 7 == 0:
                counted(history)

    threads = [threading.Thread(target=report, args=(n * 500,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted(history) == 2000
