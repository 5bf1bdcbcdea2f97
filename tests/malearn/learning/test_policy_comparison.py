"""What a comparison of policies says is what can be worked out by hand on traces of a few tasks."""

from __future__ import annotations

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
