"""What a comparison of policies says is what can be worked out by hand on traces of a few tasks."""

from __future__ import annotations

import math

import msgspec
import pytest

from malearn.kernel.prediction import Prediction
from malearn.kernel.records import Record
from malearn.kernel.tool_types import declared
from malearn.kernel.workflows.remaining import Z80
from malearn.learning import knowledge, policy_comparison, simulation
from malearn.learning.knowledge import Probed
from malearn.learning.policy_comparison import Comparison, Settings
from malearn.learning.simulated_predictors import (
    Constants,
    MovingAverage,
    Noisy,
    Predictor,
    SimulatedWorkflow,
    late_if_independent,
)
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


def test_triage_is_simulated_with_the_deadlines_that_it_is_measured_by() -> None:
    """After ten seconds of the first, one slot serves the second (12 s) or the third (13 s).

    At 1.5 times its path the second is lost by then and waits for the third. At twice its path it
    is not: shorter, it goes first, and both are in time.
    """
    first, second = workflow("w1", ("a", 10.0)), workflow("w2", ("b", 12.0))
    three = RunTrace("run", (first, second, workflow("w3", ("c", 13.0), at=9.5)))
    for factors, seconds in (((1.5, 2.0), [10.0, 35.0, 13.5]), ((2.0, 1.5), [10.0, 22.0, 25.5])):
        done = compare(three, policies=("triage",), predictors=("oracle",), deadlines=factors)
        assert done.late("triage", "oracle", 1.5) == pytest.approx(1 / 3)
        assert done.late("triage", "oracle", 2.0) == 0.0
        assert done.late("triage", "oracle") == done.late("triage", "oracle", factors[0])
        assert done.seconds("triage", "oracle") == pytest.approx(seconds)


def test_hacs_measures_waiting_by_what_workflows_took() -> None:
    """After a workflow of 10 s, ten seconds of waiting outweigh half a second of work."""
    first, second = workflow("w1", ("a", 10.0)), workflow("w2", ("b", 12.0))
    three = RunTrace("run", (first, second, workflow("w3", ("c", 11.5), at=9.5)))
    done = compare(three, policies=("hacs",), predictors=("oracle",))
    assert done.seconds("hacs", "oracle") == pytest.approx([10.0, 22.0, 24.0])


def test_a_run_is_fast_whose_vision_model_takes_less_than_half() -> None:
    usual = [run(f"slow{n}", *[("vlm_process", 10.0)] * 3, ("llm_process", 40.0)) for n in (1, 2)]
    fast = run("fast", *[("vlm_process", 3.0)] * 3, ("llm_process", 12.0))
    # Without any: what its other tasks are nearest to.
    others = [run("near", ("llm_process", 13.0)), run("far", ("llm_process", 39.0))]
    found = policy_comparison.noise([*usual, fast, *others], declared())
    assert found == {"slow1": 0.09, "slow2": 0.09, "fast": 0.21, "near": 0.21, "far": 0.09}


def test_a_load_is_the_share_of_the_slots_that_is_asked_for() -> None:
    """Work of 20 s a workflow on 4 slots at load 0.5: one arrives every 10 s in the mean."""
    many = RunTrace("run", tuple(workflow(f"w{n}", ("a", 5.0), ("b", 15.0)) for n in range(3_000)))
    half = [at for at, _ in knowledge.poisson(many, 0.5, 4, "gpu", 0, 100.0)]
    assert (half[-1] - 100.0) / len(half) == pytest.approx(10.0, rel=0.05)
    twice = [at for at, _ in knowledge.poisson(many, 1.0, 4, "gpu", 0, 100.0)]
    assert twice[-1] - 100.0 == pytest.approx((half[-1] - 100.0) / 2.0)
    other = [at for at, _ in knowledge.poisson(many, 0.5, 4, "gpu", 1, 100.0)]
    assert other[0] != half[0]


def test_runs_keep_the_pauses_between_them() -> None:
    """The first task ends 100 s after the beginning; the second run begins at 1,000 or 5,000."""
    begins = []
    for at in (1_000.0, 5_000.0):
        runs = [run("first", SLOW), run("second", SLOW, at=at)]
        probed: list[Probed] = []
        known = [*knowledge.at_each_run(runs, declared(), 1, probed=probed)]
        assert [one.run.name for one in known] == ["first", "second"]
        begins.append(known[1].begins)
    ((arrived, _),) = knowledge.poisson(run("first", SLOW), 1.0, 1, "gpu", 0)
    assert begins == pytest.approx([arrived + 100.0 + 900.0, arrived + 100.0 + 4_900.0])


def test_models_are_fitted_to_the_runs_before() -> None:
    taught = []
    for number in range(45):
        one = workflow(f"w{number}", ("llm_process", 5.0 + number))
        (task,) = one.tasks.values()
        assert task.record is not None
        features = {"text_length": 100 * number, "token_count": 25 * number}
        record = msgspec.structs.replace(task.record, features=features)
        (task_id,) = one.tasks
        tasks = {task_id: TaskTrace(task_id, task.function, task.seconds, record)}
        taught.append(WorkflowTrace(one.run_id, one.kind, one.shape, tasks, one.arrived))
    runs = [RunTrace("first", tuple(taught)), run("second", SLOW, at=1e4)]
    first, second = knowledge.at_each_run(runs, declared(), 1)
    assert not first.models
    assert second.models.keys() == {"llm_process"}


def test_a_workflow_is_probed_at_arrival_and_half_way() -> None:
    runs = [run("first", SLOW), run("second", SLOW, at=1_000.0)]
    probed: list[Probed] = []
    list(knowledge.at_each_run(runs, declared(), 1, probed=probed))
    taught = [one for one in probed if one.run == "second"]
    assert [(one.passed, one.actual) for one in taught] == [(0.0, 100.0), (0.5, 50.0)]
    # Its function took 100 s before.
    assert taught[0].seconds == pytest.approx(100.0, rel=0.2)
    assert taught[1].seconds == pytest.approx(50.0, rel=0.4)
    for one in taught:
        late = {
            missed: [share for share, m in one.lateness if m is missed] for missed in (False, True)
        }
        assert len(one.lateness) == 10
        assert min(late[True]) > max(late[False])


def seen(predictor: Predictor, *tasks: float) -> list[tuple[float, float]]:
    """What is said of each task at its arrival and half way; they follow each other."""
    said: list[tuple[float, float]] = []
    at_arrival = 0.0

    def probe(live: SimulatedWorkflow, passed: float) -> None:
        nonlocal at_arrival
        assert live.left is not None
        if passed:
            said.append((at_arrival, live.left.seconds))
        at_arrival = live.left.seconds

    arrivals = [(1e3 * n, workflow(f"w{n}", ("step", s))) for n, s in enumerate(tasks)]
    simulation.simulate(arrivals, "fcfs", predictor, {}, probe=probe)
    return said


def test_errors_of_independent_tasks_add_up_by_their_squares() -> None:
    """Deviations of 3 and 4 s make 5; one of them is missed by 16 % of outcomes, two by 2."""
    path = [Prediction(40.0, 0.0, 40.0 + Z80 * sigma, "model") for sigma in (3.0, 4.0)]
    late = [late_if_independent(path, room) for room in (0.0, 5.0, 10.0, -5.0)]
    assert late == pytest.approx([0.5, 0.1587, 0.0228, 0.8413], abs=1e-4)
    certain = [Prediction(40.0, 40.0, 40.0, "model")]
    assert [late_if_independent(certain, room) for room in (-0.1, 0.0, 0.1)] == [1.0, 0.0, 0.0]


def test_what_baselines_expect_of_a_running_task_shrinks_to_nothing() -> None:
    assert seen(Noisy(0.0), 100.0) == [(100.0, 50.0)]
    assert seen(Constants(), 20.0, 100.0) == [(15.0, 5.0), (15.0, 0.0)]


def test_a_moving_average_moves_by_three_tenths_in_log_seconds() -> None:
    said = seen(MovingAverage(declared()), 1.0, 100.0, 100.0, 1.0)
    expected = [15.0, 1.0, 100.0**0.3, 100.0**0.51]
    assert [at_arrival for at_arrival, _ in said] == pytest.approx(expected)
