"""What a comparison of policies says is what can be worked out by hand on traces of a few tasks."""

from __future__ import annotations

import math

import pytest

from malearn.kernel.records import Record
from malearn.kernel.tool_types import declared
from malearn.learning import policy_comparison
from malearn.learning.policy_comparison import Comparison, Settings
from malearn.learning.traces import RunTrace, TaskTrace, WorkflowTrace

_BEGAN = 1.7e9


def workflow(name: str, *tasks: tuple[str, float], at: float = 0.0) -> WorkflowTrace:
    """Tasks by function and seconds, each of which waits for the one before it, on a GPU."""
    shape: dict[str, tuple[str, str, list[str]]] = {}
    traced: dict[str, TaskTrace] = {}
    clock = _BEGAN + at
    for function, seconds in tasks:
        task_id = f"{name}-{function}"
        record = Record(task_id, function, clock, clock + seconds, {}, {}, "")
        shape[task_id] = function, "gpu", list(shape)[-1:]
        traced[task_id] = TaskTrace(task_id, function, seconds, record)
        clock += seconds
    return WorkflowTrace(name, "made by hand", shape, traced, _BEGAN + at)


def run(name: str, *tasks: tuple[str, float], at: float = 0.0) -> RunTrace:
    """Workflows of one task each, which arrive together in this order."""
    return RunTrace(name, tuple(workflow(f"{name}{n}", t, at=at) for n, t in enumerate(tasks)))


def compare(*runs: RunTrace, **given: object) -> Comparison:
    """Arrivals as recorded, on one slot."""
    chosen: dict[str, object] = {"slots": {"gpu": 1}, "loads": (None,), "seeds": 1, "workers": 1}
    return policy_comparison.compare(runs, declared(), Settings(**chosen | given))  # type: ignore[arg-type]


SLOW, QUICK = ("slow", 100.0), ("quick", 1.0)


@pytest.fixture(scope="module")
def learnt() -> Comparison:
    """Two runs with unequal numbers of workflows; the second is the first whose seconds malearn
    can know.

    Constants serve them as they came, and so does malearn in the first run, where no function
    has run before; who knows the seconds serves the second slow one last. A quick one is in time
    where it has not waited for both: its deadline is 150 s.
    """
    return compare(
        run("first", ("other", 100.0), SLOW, QUICK),
        run("second", SLOW, SLOW, *[QUICK] * 7, at=1_000.0),
        policies=("srw",),
        predictors=("default", "malearn", "noise_limited"),
        deadlines=(150.0,),
        seeds=2,
    )


def test_missed_deadlines_are_a_share_of_workflows_not_of_runs() -> None:
    """Of 8 that wait for each other all but the first are late, of the run with one none is."""
    eight, one = run("eight", *[SLOW] * 8), run("one", SLOW, at=10_000.0)
    done = compare(eight, one, policies=("fcfs",), predictors=("default",), deadlines=(1.5, 3.5))
    assert done.late("fcfs", "default") == pytest.approx(7 / 9)
    assert done.late("fcfs", "default", 3.5) == pytest.approx(5 / 9)
    assert done.as_json()["policies"]["fcfs"]["default"]["late"] == pytest.approx(7 / 9)


def test_gains_in_missed_deadlines_are_in_workflows(learnt: Comparison) -> None:
    late = {name: learnt.late("srw", name) for name in learnt.settings.predictors}
    assert late == pytest.approx({"default": 8 / 12, "malearn": 1 / 12, "noise_limited": 0.0})
    fewer = learnt.fewer_late("srw", "malearn", ("srw", "default"))
    assert fewer.mean == pytest.approx(7 / 8)
    assert learnt.share_of_gain("srw", late=True).mean == pytest.approx(7 / 8)
    assert learnt.share_of_gain("srw", late=True, runs=["first"]).mean == 0.0
    assert learnt.share_by_seed("srw", late=True) == pytest.approx((7 / 8, 7 / 8))


def test_gains_in_seconds_are_what_constants_take_more(learnt: Comparison) -> None:
    """Of the first run constants make 501 s and the bar 402, of the second 1,728 and 1,035."""
    assert learnt.seconds("srw", "default").sum() == pytest.approx(2 * (501.0 + 1_728.0))
    gain = learnt.gain("srw", "malearn")
    assert gain.mean == pytest.approx(693.0 / (501.0 + 1_728.0))
    assert learnt.gain("srw", "default", "malearn").mean == pytest.approx(-693.0 / 1_536.0)
    assert learnt.share_of_gain("srw").mean == pytest.approx(693.0 / (99.0 + 693.0))
    assert learnt.share_by_seed("srw") == pytest.approx([693.0 / 792.0] * 2)
    assert math.isnan(gain.low), "of two runs there is no interval"


def test_more_seeds_make_no_interval_narrower() -> None:
    """Recorded arrivals are the same with each seed: nothing is known that was not before."""
    tasks = [SLOW, SLOW, QUICK, QUICK, ("slow", 50.0)]
    once, thrice = (
        compare(run("one", *tasks), policies=("srw",), predictors=("default", "oracle"), seeds=n)
        .gain("srw", "oracle")
        for n in (1, 3)
    )  # fmt: skip
    assert once.low < once.mean < once.high
    assert (once.low, once.mean, once.high) == pytest.approx((thrice.low, thrice.mean, thrice.high))


@pytest.mark.parametrize("count", [1, 4])
def test_of_few_workflows_there_is_no_interval(count: int) -> None:
    given = {"policies": ("srw",), "predictors": ("default", "oracle"), "seeds": 3}
    done = compare(run("one", *[SLOW] * count), **given)
    gain = done.gain("srw", "oracle")
    assert gain.mean == 0.0
    assert math.isnan(gain.low)
    assert math.isnan(gain.high)
    (row,) = (done.as_json()["policies"]["srw"]["oracle"]["gain"],)
    assert row == {"mean": 0.0, "low": None, "high": None}


def test_an_interval_lies_between_the_gains_of_its_runs() -> None:
    """Of five runs one gains nothing; the others gain 99 s of 501 each."""
    runs = [run(f"run{n}", SLOW, SLOW, QUICK, at=1e4 * n) for n in range(4)]
    runs.append(run("alone", SLOW, at=1e5))
    done = compare(*runs, policies=("srw",), predictors=("default", "oracle"))
    gain = done.gain("srw", "oracle")
    assert gain.mean == pytest.approx(4 * 99.0 / (4 * 501.0 + 100.0))
    assert 0.1 < gain.low < gain.mean < gain.high <= 99.0 / 501.0 + 1e-9


def test_nobody_gains_against_no_missed_deadline() -> None:
    runs = [run(f"run{n}", SLOW, at=1e4 * n) for n in range(5)]
    done = compare(*runs, policies=("fcfs",), predictors=("default",))
    assert done.late("fcfs", "default") == 0.0
    fewer = done.fewer_late("fcfs", "default", ("fcfs", "default"))
    assert all(math.isnan(one) for one in (fewer.mean, fewer.low, fewer.high))
