"""A workflow: tasks that hold together, what is left of them, and in which order to run them."""

from __future__ import annotations

import gc
import math
import random
import statistics
from collections.abc import Iterator

import pytest

from malearn.kernel import policies
from malearn.kernel.errors import WorkflowError
from malearn.kernel.prediction import Prediction
from malearn.kernel.workflow import Task, Workflow, WorkflowPrediction
from malearn.kernel.workflows import remaining, workflow_estimate
from malearn.kernel.workflows.workflow_calibration import (
    Stage,
    State,
    WorkflowCalibration,
    coverage,
    score,
)
from malearn.kernel.workflows.workflow_checkpoints import Checkpoints, actual_path

DIAMOND = {
    "d": ("fuse", "gpu", ["b", "c"]),
    "b": ("left", "gpu", ["a"]),
    "c": ("right", "gpu", ["a"]),
    "a": ("read", "io", []),
}


def certain(seconds: float) -> Prediction:
    return Prediction(seconds, seconds * 0.999, seconds * 1.001, "model")


def uncertain(seconds: float, factor: float = 1.3) -> Prediction:
    return Prediction(seconds, seconds / factor, seconds * factor, "model")


def test_tasks_may_be_given_in_any_order_and_are_kept_after_their_predecessors() -> None:
    workflow = Workflow("run", DIAMOND)
    assert workflow.order == ("a", "b", "c", "d")
    assert workflow.ready([]) == ["a"]
    assert workflow.ready(["a"], running={"b": 0.0}) == ["c"]
    assert [workflow.descendants(task) for task in "abcd"] == [3, 1, 1, 0]


@pytest.mark.parametrize("name", ["arrived", "deadline"])
def test_a_time_in_milliseconds_is_refused(name: str) -> None:
    with pytest.raises(WorkflowError, match=rf"'{name}' is 1754.* must be in seconds since the"):
        Workflow("run", DIAMOND, **{name: 1.754e12})


@pytest.mark.parametrize(
    ("tasks", "problem"),
    [
        ({"a": ("f", "gpu", ["b"])}, "task a waits for b, not a task"),
        ({"a": ("f", "gpu", ["b"]), "b": ("f", "gpu", ["a"])}, "tasks wait for each other: a, b"),
        ({"a": ("f", "gpu")}, "task a must be given as (function, task type, [predecessor ids])"),
    ],
)
def test_tasks_that_do_not_hold_together_are_refused(tasks: dict, problem: str) -> None:
    with pytest.raises(WorkflowError, match=r"^Workflow run: ") as caught:
        Workflow("run", tasks)
    assert str(caught.value) == f"Workflow run: {problem}."


def test_tasks_of_one_function_and_the_same_predecessors_are_alike_appended_ones_too() -> None:
    workflow = Workflow("r", {"a": ("read", "io", []), "b": ("page", "gpu", ["a"])})
    read, page = ("read", "io", ()), ("page", "gpu", ("a",))
    assert workflow.alike == {read: ["a"], page: ["b"]}
    workflow.append("c", "page", "gpu", ["a"])
    workflow.append("d", "page", "cpu", ["a"])
    assert workflow.alike == {read: ["a"], page: ["b", "c"], ("page", "cpu", ("a",)): ["d"]}


class _Appending(dict[str, Prediction]):
    """Predictions during whose look-ups another thread appends tasks."""

    def __init__(self, workflow: Workflow, known: dict[str, Prediction]) -> None:
        super().__init__(known)
        self.workflow = workflow

    def get(self, task_id: str, default: object = None) -> object:
        self.workflow.append(f"more{len(self.workflow)}", "page", "gpu")
        return super().get(task_id, default)


def test_tasks_may_be_appended_while_a_workflow_is_added_up() -> None:
    workflow = Workflow("run", {"a": ("read", "io", []), "b": ("page", "gpu", ["a"])})
    open_tasks = _Appending(workflow, {"a": certain(2.0), "b": certain(3.0)})
    assert remaining.longest_path(workflow.tasks, open_tasks).tasks == ("a", "b")
    work, left = workflow_estimate.totals(workflow, open_tasks)
    assert (work["gpu"], left["gpu"]) == (3.0, 1)


def test_tasks_may_be_appended_while_garbage_is_collected() -> None:
    """Which lets other threads in, wherever something is made."""
    workflow = Workflow("run", {str(n): ("page", "gpu", []) for n in range(1_000)})
    open_tasks = dict.fromkeys(workflow.order, certain(1.0))

    def interrupt(*_: object) -> None:
        workflow.append(f"more{len(workflow)}", "page", "gpu")

    known, before = len(workflow), gc.get_threshold()
    gc.callbacks.append(interrupt)
    gc.set_threshold(50)
    try:
        remaining.longest_path(workflow.tasks, open_tasks)
        workflow_estimate.totals(workflow, open_tasks)
        assert len(workflow.alike["page", "gpu", ()]) >= known
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(interrupt)


class _Interrupted(dict[str, Task]):
    """Tasks, once read through, to which another thread has appended one in the meantime."""

    def __iter__(self) -> Iterator[str]:
        known = list(super().__iter__())
        self.setdefault("late", Task("page", "gpu", ()))
        return iter(known)


def test_what_was_appended_while_the_order_was_found_out_is_in_it_the_next_time() -> None:
    workflow = Workflow("run")
    workflow.append("a", "read", "io")
    workflow.tasks = _Interrupted(workflow.tasks)
    assert workflow.order == ("a",)
    assert workflow.order == ("a", "late")


def test_a_task_is_appended_once_and_after_tasks_that_are_there() -> None:
    workflow = Workflow("run")
    workflow.append("a", "plan", "gpu")
    workflow.append("b", "act", "cpu", ["a"])
    assert (workflow.order, workflow.growing) == (("a", "b"), True)
    with pytest.raises(WorkflowError, match="task b was added before"):
        workflow.append("b", "act", "cpu", ["a"])
    with pytest.raises(WorkflowError, match="task c waits for x, not a task"):
        workflow.append("c", "act", "cpu", ["x"])


def test_a_running_task_has_its_median_among_longer_times_left_never_nothing() -> None:
    task = uncertain(10.0)
    left = [remaining.of_running(task, elapsed).seconds for elapsed in (0, 5, 9, 12, 20, 1e6)]
    assert left[0] == 10.0
    assert left[1] == pytest.approx(5.0, abs=0.1)
    assert 0.5 < left[3] < left[4] < left[5] < math.inf  # the longer it ran, the more is left
    for elapsed in (1.0, 10.0, 100.0):
        one = remaining.of_running(task, elapsed)
        assert 0.0 < one.low < one.seconds < one.high


def test_paths_of_equal_length_are_expected_to_end_later_than_each_of_them() -> None:
    workflow = Workflow("run", DIAMOND)
    one = {"a": certain(1.0), "b": uncertain(10.0), "c": certain(1.0), "d": certain(5.0)}
    two = one | {"c": uncertain(10.0)}
    single = remaining.longest_path(workflow.tasks, one)
    double = remaining.longest_path(workflow.tasks, two)
    assert single.seconds == pytest.approx(16.0)
    assert 16.5 < double.seconds < 18.0
    assert single.tasks == ("a", "b", "d")
    assert remaining.longest_path(workflow.tasks, {"d": certain(5.0)}).tasks == ("d",)


def test_the_longest_of_correlated_times_is_as_long_as_drawing_them_shows() -> None:
    draw, z = random.Random(1), remaining.Z80
    sigma = 10.0 * (1.3 - 1.0 / 1.3) / (2.0 * z)
    shared = math.sqrt(0.5)
    drawn = []
    for _ in range(20_000):
        common = shared * draw.gauss(0, 1)
        ends = [10.0 + sigma * (common + math.sqrt(0.5) * draw.gauss(0, 1)) for _ in range(4)]
        drawn.append(max(ends))
    workflow = Workflow("run", {name: ("f", "gpu", []) for name in "abcd"})
    path = remaining.longest_path(workflow.tasks, {name: uncertain(10.0) for name in "abcd"})
    assert path.seconds == pytest.approx(statistics.fmean(drawn), rel=0.02)
    assert path.deviation == pytest.approx(statistics.stdev(drawn), rel=0.15)


def test_work_and_tasks_left_are_summed_by_resource() -> None:
    workflow = Workflow("run", DIAMOND, deadline=100.0)
    tasks = {"b": certain(10.0), "c": certain(4.0), "d": certain(5.0)}
    found, state = workflow_estimate.combine(
        workflow, tasks, {"b": 90.0}, 94.0, WorkflowCalibration()
    )
    assert state is not None
    assert state.stage == Stage.RUNNING
    assert found.left == {"io": 0, "gpu": 3}
    assert found.work["gpu"] == pytest.approx(6.0 + 4.0 + 5.0, abs=0.05)
    assert found.critical == ("b", "d")
    assert found.tasks["b"].seconds == pytest.approx(6.0, abs=0.05)
    assert found.low <= found.seconds <= found.high
    assert found.late is not None
    assert found.late > 0.9  # 11 s of work, 6 s to the deadline


def test_nothing_is_left_of_a_workflow_that_is_done() -> None:
    workflow = Workflow("run", DIAMOND, deadline=100.0)
    for now, late in ((99.0, 0.0), (101.0, 1.0)):
        found, state = workflow_estimate.combine(workflow, {}, {}, now, WorkflowCalibration())
        assert (found.seconds, found.late, state) == (0.0, late, None)


def test_intervals_and_lateness_hold_what_they_promise_whatever_the_errors_are() -> None:
    """Errors twice as wide as expected, skewed, and off by a third: as dependence makes them."""
    draw, calibration = random.Random(5), WorkflowCalibration()
    inside, promised, late = [], [], []
    for number in range(1_500):
        state = State(draw.uniform(10.0, 200.0), 0.15, Stage.ARRIVED)
        actual = state.seconds * 1.3 * math.exp(0.3 * (draw.expovariate(1.0) - 1.0))
        if number >= 300:
            _, low, high = calibration.interval(state)
            inside.append(low <= actual <= high)
            deadline = state.seconds * draw.uniform(1.0, 2.0)
            promised.append(calibration.beyond(state, deadline))
            late.append(actual > deadline)
        calibration.learn(Stage.ARRIVED, score(state, actual))
    assert statistics.fmean(inside) == pytest.approx(0.8, abs=0.03)
    ordered = sorted(zip(promised, late, strict=True))
    for fifth in range(5):
        part = ordered[fifth * 240 : (fifth + 1) * 240]
        said, came = (statistics.fmean(values) for values in zip(*part, strict=True))
        assert said == pytest.approx(came, abs=0.06)


def test_outliers_among_sure_predictions_make_no_doubtful_one_boundless() -> None:
    calibration = WorkflowCalibration()
    for number in range(60):
        calibration.learn(Stage.ARRIVED, 8.0 if number % 2 else -8.0)
    seconds, low, high = calibration.interval(State(20.0, 1.5, Stage.ARRIVED))
    assert 1.0 < low <= seconds <= high < 300.0


def test_the_coverage_of_intervals_is_told_from_scores_alone() -> None:
    draw = random.Random(2)
    outcomes = [(n % 2, draw.gauss(0.5, 2.0)) for n in range(400)]
    found = coverage(outcomes)
    assert found is not None
    assert found.outcomes == 380
    assert found.inside == pytest.approx(0.8, abs=0.05)
    assert found.median == pytest.approx(0.5, abs=0.3)
    assert coverage(outcomes[:39]) is None


def test_a_few_predictions_of_a_workflow_are_kept_and_scored_when_it_has_finished() -> None:
    workflow, checkpoints = Workflow("run", DIAMOND), Checkpoints()
    checkpoints.add(State(20.0, 0.1, Stage.ARRIVED), "abcd", {}, now=0.0)
    checkpoints.add(State(19.0, 0.1, Stage.ARRIVED), "abcd", {}, now=1.0)  # says nothing new
    checkpoints.add(State(14.0, 0.1, Stage.WAITING), "bcd", {}, now=6.0)
    checkpoints.add(State(13.0, 0.1, Stage.WAITING), "bcd", {}, now=7.0)  # nor does this
    checkpoints.add(State(9.0, 0.1, Stage.RUNNING), "bd", {"b": 8.0}, now=12.0)
    seconds = {"a": 5.0, "b": 10.0, "c": 3.0, "d": 5.0}
    assert checkpoints.scores(workflow, seconds) == [
        (Stage.ARRIVED, 0.0),
        (Stage.WAITING, pytest.approx(math.log(15.0 / 14.0) / 0.1)),
        (Stage.RUNNING, pytest.approx(math.log(11.0 / 9.0) / 0.1)),
    ]
    assert checkpoints.scores(workflow, {"a": 5.0}) == []
    assert actual_path(workflow, seconds, "bcd", {"b": 8.0}, 12.0) == 11.0


def left(
    work: float = 10.0, late: float | None = None, tasks: int = 1, path: float = 10.0
) -> WorkflowPrediction:
    predictions = {"d": certain(5.0), "b": certain(2.0)}
    return WorkflowPrediction(
        path, path, path, {"gpu": work}, late, {"gpu": tasks}, ("d",), predictions
    )


def test_each_policy_puts_first_what_its_definition_says() -> None:
    workflow = Workflow("run", DIAMOND, arrived=0.0, deadline=50.0)
    later = Workflow("later", DIAMOND, arrived=20.0, deadline=40.0)
    now = 30.0
    assert policies.arrival(workflow, left(), now) < policies.arrival(later, left(), now)
    assert policies.earliest_deadline(later, left(), now) < policies.earliest_deadline(
        workflow, left(), now
    )
    assert policies.fewest_tasks(later, left(tasks=1), now) < policies.fewest_tasks(
        workflow, left(tasks=2), now
    )
    shorter = policies.shortest_remaining_work(later, left(work=5.0), now)
    assert shorter < policies.shortest_remaining_work(workflow, left(work=6.0), now)
    # 20 s more of waiting make up for 10 s of work
    aged = policies.aged(workflow, left(work=14.0), now)
    assert aged < policies.aged(later, left(work=5.0), now)
    assert policies.triage(workflow, left(work=90.0, late=0.8), now) < policies.triage(
        later, left(work=1.0, late=0.95), now
    )


def test_hacs_and_daps_rank_tasks_by_maze_s_formulas() -> None:
    workflow = Workflow("run", DIAMOND, arrived=0.0)
    prediction = left(tasks=2, path=20.0)
    (key,) = policies.hacs(workflow, prediction, 30.0, "b", average_completion=10.0)
    assert key == pytest.approx(-math.log2(2 + 2 * 1) * 1.1 ** (3.0 - 2.0) / 2.0)
    (rank,) = policies.daps(workflow, prediction, 30.0, "d", most_tasks=4)
    assert rank == pytest.approx(-(2.0 * (1 - 2 / 4) + 1.0 * 5.0 / 20.0))
