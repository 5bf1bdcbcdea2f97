"""A pause is a time in which nothing ran, longer than a log's usual gaps."""

from __future__ import annotations

from malearn.kernel.estimation.pauses import Pauses


def found(*times: tuple[float, float]) -> list[bool]:
    pauses = Pauses()
    return [pauses.ended_by(start, end) for start, end in times]


def test_an_hour_without_a_task_is_a_pause() -> None:
    assert found((0, 10), (12, 20), (3620, 3640), (3641, 3700)) == [False, False, True, False]


def test_while_anything_runs_there_is_no_pause() -> None:
    # The long one was running all the time; what ends after it began before it ended.
    assert found((0, 10), (5, 4000), (3990, 4010)) == [False, False, False]


def test_a_log_whose_tasks_are_always_far_apart_has_no_pauses() -> None:
    hourly = [(3600.0 * i, 3600.0 * i + 10) for i in range(100)]
    assert not any(found(*hourly)[10:])
