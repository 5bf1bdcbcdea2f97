"""A simulation replays logged workflows under a policy; its predictors know only what has ended."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest

from malearn import DAGTaskPredictor
from malearn.flows.evaluate import evaluate
from malearn.kernel.errors import InputError
from malearn.kernel.estimation.estimator import Estimator
from malearn.kernel.tool_types import declared
from malearn.kernel.workflow import WorkflowPrediction
from malearn.kernel.workflows.workflow_calibration import WorkflowCalibration
from malearn.learning import knowledge, policy_comparison, scheduling_plots, simulation, traces
from malearn.learning.policy_comparison import Settings
from malearn.learning.simulated_predictors import Constants, Malearn, Noisy, SimulatedWorkflow
from malearn.learning.traces import TaskTrace, Traces

DEFINITIONS = {
    "short": {
        "tasks": {"task1_read": {"resource": "io"}, "task2_llm_process_short": {}},
        "edges": [["task1_read", "task2_llm_process_short"]],
    },
    "long": {
        "tasks": {
            "task1_read": {"resource": "io"},
            "task2a_llm_process_long": {},
            "task2b_vlm_process_long": {},
            "task3_llm_fuse_answer": {},
        },
        "edges": [
            ["task1_read", "task2a_llm_process_long"],
            ["task1_read", "task2b_vlm_process_long"],
            ["task2a_llm_process_long", "task3_llm_fuse_answer"],
            ["task2b_vlm_process_long", "task3_llm_fuse_answer"],
        ],
    },
}
USUAL = {
    "task1_read": 0.1,
    "task2_llm_process_short": 8.0,
    "task2a_llm_process_long": 90.0,
    "task2b_vlm_process_long": 60.0,
    "task3_llm_fuse_answer": 40.0,
}


def write_log(folder: Path, number: int, workflows: int = 14) -> Path:
    """A run log in which tasks take about what is usual for their function."""
    draw = random.Random(number)
    lines = []
    for _ in range(workflows):
        run = str(UUID(int=draw.getrandbits(128), version=4))
        clock = 1.7e9 + 10_000.0 * number + draw.uniform(0.0, 300.0)
        kind = DEFINITIONS[draw.choice(["short", "long"])]
        for function in kind["tasks"]:
            length = draw.randrange(100, 1_000)
            seconds = USUAL[function] * draw.lognormvariate(0.0, 0.1)
            after = {b: {"text_length": length, "token_count": 9} for a, b in kind["edges"]
                     if a == function}  # fmt: skip
            data = {"start_time": clock, "end_time": clock + seconds, "succ_task_feat": after}
            lines.append({"task_id": f"{run}-{function}", "func_name": function, "data": data})
            clock += seconds
    file = folder / f"run{number}.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return file


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Traces:
    """Three runs."""
    folder = tmp_path_factory.mktemp("logs")
    definitions = folder / "workflows.json"
    definitions.write_text(json.dumps(DEFINITIONS))
    return traces.read([write_log(folder, number) for number in (1, 2, 3)], definitions)


def settings(**given: object) -> Settings:
    return Settings(**{"slots": {"gpu": 2}, "seeds": 2, "workers": 1, **given})


def test_every_task_runs_once_after_its_predecessors_and_within_the_slots(logged: Traces) -> None:
    run = logged.runs[0]
    arrivals = knowledge.poisson(run, 1.2, 2, "gpu", seed=0)
    for policy in simulation.POLICIES:
        done = simulation.simulate(arrivals, policy, Noisy(0.0), {"gpu": 2}, deadline=2.0)
        assert sorted(one.trace.run_id for one in done) == sorted(w.run_id for w in run.workflows)
        held = []
        for one in done:
            for task_id, (start, end) in one.tasks.items():
                _, resource, before = one.trace.shape[task_id]
                assert end - start == pytest.approx(one.trace.tasks[task_id].seconds)
                assert all(one.tasks[other][1] <= start for other in before)
                if resource == "gpu":
                    held += [(start, 1), (end, -1)]
        at_once = 0
        for _, change in sorted(held):
            at_once += change
            assert at_once <= 2


def test_shortest_remaining_work_with_true_seconds_beats_arrival_order(logged: Traces) -> None:
    arrivals = knowledge.poisson(logged.runs[0], 1.2, 2, "gpu", seed=1)

    def mean(policy: str) -> float:
        done = simulation.simulate(arrivals, policy, Noisy(0.0), {"gpu": 2})
        return sum(one.seconds for one in done) / len(done)

    assert mean("srw") < mean("arrival")


class _Spy(Constants):
    """Notes what a predictor is shown of tasks that have not ended."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.leaked: set[str] = set()

    def expect(self, workflows: list[SimulatedWorkflow], now: float) -> None:
        for live in workflows:
            self.leaked |= {task_id for task_id in live.done if task_id not in self.known}
        super().expect(workflows, now)

    def ended(
        self, live: SimulatedWorkflow, task: traces.TaskTrace, start: float, end: float
    ) -> None:
        self.known.add(task.task_id)


def test_a_predictor_is_shown_only_what_has_ended(logged: Traces) -> None:
    spy = _Spy()
    simulation.simulate(knowledge.poisson(logged.runs[0], 1.0, 2, "gpu", 0), "srw", spy, {"gpu": 2})
    assert spy.leaked == set()
    assert len(spy.known) == sum(len(w.tasks) for w in logged.runs[0].workflows)


class _Scheduler(Constants):
    """Asks a scheduler's predictor, and reports to it what workers wrote."""

    learns = True

    def __init__(self, predictor: DAGTaskPredictor, written: dict[str, dict[str, object]]) -> None:
        self._predictor, self._written = predictor, written
        self.said: list[WorkflowPrediction] = []

    def expect(self, workflows: Sequence[SimulatedWorkflow], now: float) -> None:
        queue = [(live.workflow, live.running, live.done) for live in workflows]
        answers = self._predictor.estimate_workflows(queue, now)
        self.said += answers
        for live, answer in zip(workflows, answers, strict=True):
            live.left = answer

    def ended(
        self, live: SimulatedWorkflow, task: traces.TaskTrace, start: float, end: float
    ) -> None:
        record = {**self._written[task.task_id], "start_time": start, "end_time": end}
        self._predictor.collect_data_for_task(task.task_id, task.function, record)


class _Simulated(Malearn):
    def __init__(self) -> None:
        super().__init__(declared(), Estimator(), WorkflowCalibration(), {})
        self.said: list[WorkflowPrediction] = []

    def expect(self, workflows: Sequence[SimulatedWorkflow], now: float) -> None:
        super().expect(workflows, now)
        self.said += [live.left for live in workflows if live.left is not None]


def test_a_simulation_predicts_what_a_scheduler_would_be_told(tmp_path: Path) -> None:
    definitions, files = tmp_path / "workflows.json", []
    definitions.write_text(json.dumps(DEFINITIONS))
    written: dict[str, dict[str, object]] = {}
    for number in (1, 2):
        files.append(write_log(tmp_path, number, workflows=20))
        lines = [json.loads(line) for line in files[-1].read_text().splitlines()]
        for line in lines[::7]:
            line["data"]["status"] = "failed"  # which workflows wait for all the same
        written |= {line["task_id"]: line["data"] for line in lines}
        files[-1].write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    ours, clock = _Simulated(), 1.7e9
    with DAGTaskPredictor("redis://127.0.0.1:1", "http://127.0.0.1:1", cache_dir=tmp_path) as real:
        theirs = _Scheduler(real, written)
        for run in traces.read(files, definitions).runs:
            arrivals = knowledge.poisson(run, 1.0, 2, "gpu", 0, clock)
            for predictor in (ours, theirs):
                done = simulation.simulate(arrivals, "fcfs", predictor, {"gpu": 2}, 2.0)
            clock = max(one.ended for one in done) + 3600.0
    assert len(ours.said) == len(theirs.said) > 100
    for simulated, served in zip(ours.said, theirs.said, strict=True):
        assert simulated.critical == served.critical
        assert (simulated.seconds, simulated.low, simulated.high, simulated.late) == pytest.approx(
            (served.seconds, served.low, served.high, served.late)
        )
        assert simulated.work == pytest.approx(served.work)


def test_a_comparison_is_the_same_again_and_in_more_processes(logged: Traces) -> None:
    chosen = settings(policies=("fewest_tasks", "srw"), predictors=("default", "malearn"))
    once, again, spread = (
        policy_comparison.compare(logged.runs, declared(), one).as_json()
        for one in (chosen, chosen, settings(
            policies=("fewest_tasks", "srw"), predictors=("default", "malearn"), workers=2
        ))
    )  # fmt: skip
    assert once == again == spread
    assert once["workflows"] == len(logged)


def test_what_malearn_learns_brings_it_near_the_oracle(logged: Traces) -> None:
    done = policy_comparison.compare(
        logged.runs, declared(), settings(loads=(1.2,), policies=("fewest_tasks", "srw", "triage"))
    )
    means = {name: done.seconds("srw", name).mean() for name in policy_comparison.PREDICTORS}
    assert means["oracle"] <= means["malearn"] * 1.02
    assert means["malearn"] < means["default"]
    assert done.gain("fewest_tasks", "malearn").mean == 0.0  # it uses no seconds
    late = [done.late("triage", "malearn", factor) for factor in done.settings.deadlines]
    assert all(0.0 <= share <= 1.0 for share in late)
    for figure in scheduling_plots.of_comparison(done).values():
        figure.canvas.draw()


class _Waits(Malearn):
    """Notes what was expected of each task when it ended."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)
        self.waited: dict[str, float] = {}

    def ended(self, live: SimulatedWorkflow, task: TaskTrace, start: float, end: float) -> None:
        self.waited[task.task_id] = live.expected[task.task_id].seconds
        super().ended(live, task, start, end)


def test_a_simulated_scheduler_learns_what_tasks_that_fail_take(tmp_path: Path) -> None:
    """Questions of one length fail after 130 s, those of another are answered in 60."""
    lines = []
    for number in range(40):
        run, fails = str(UUID(int=number, version=4)), number % 2 == 1
        clock = 1.7e9 + 1_000.0 * number
        said = {"text_length": 900 if fails else 100, "token_count": 9}
        took = {"task1_read": 1.0, "task2_llm_process": 130.0 if fails else 60.0}
        for function, seconds in took.items():
            data = {"start_time": clock, "end_time": clock + seconds}
            if function == "task1_read":
                data["succ_task_feat"] = {"task2_llm_process": said}
            elif fails:
                data["status"] = "failed"
            lines.append({"task_id": f"{run}-{function}", "func_name": function, "data": data})
            clock += seconds
    log = tmp_path / "run.jsonl"
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (run,) = traces.read([log]).runs
    known = _Waits(declared(), Estimator(), WorkflowCalibration(), {})
    arrivals = [(1_000.0 * number, one) for number, one in enumerate(run.workflows)]
    simulation.simulate(arrivals, "fcfs", known, {"gpu": 2})
    last = {
        task.seconds: known.waited[i] for w in run.workflows[-2:] for i, task in w.tasks.items()
    }
    assert last[130.0] == pytest.approx(130.0, rel=0.15)
    assert last[60.0] == pytest.approx(60.0, rel=0.1)


def test_workflows_that_cannot_be_replayed_are_counted_with_the_reason(tmp_path: Path) -> None:
    definitions = tmp_path / "workflows.json"
    definitions.write_text(json.dumps(DEFINITIONS))
    log = write_log(tmp_path, 1, workflows=4)
    other, untimed = (str(UUID(int=number, version=4)) for number in (1, 2))
    times = {"start_time": 1.0, "end_time": 2.0}
    with log.open("a") as file:
        for task_id, data in (
            (f"{other}-task9_unknown", times),
            (f"{untimed}-task1_read", {}),
            (f"{untimed}-task2_llm_process_short", times),
        ):
            file.write(json.dumps({"task_id": task_id, "data": data}) + "\n")
    found = traces.read([log], definitions)
    assert len(found) == 4
    assert found.skipped == {
        "its functions match no definition": 1,
        "a task has no plausible times": 1,
    }


@pytest.mark.parametrize(
    ("start", "end"),
    [(1.7e9, float("inf")), (1.7e9, 1e300), (1e300, 1e300), (-1e300, -1e300), (1.7e12, 1.7e12)],
)
@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_one_broken_record_leaves_out_its_workflow_alone(
    tmp_path: Path, start: float, end: float, status: str
) -> None:
    log = write_log(tmp_path, 1, workflows=4)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[-1]["data"] |= {"start_time": start, "end_time": end, "status": status}
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = traces.read([log])
    assert len(found) == 3
    assert found.skipped == {"a task has no plausible times": 1}
    assert all(workflow.critical_path < 1e3 for workflow in found.runs[0].workflows)


def test_a_run_that_repeats_a_function_is_left_out_and_counted(tmp_path: Path) -> None:
    """Maze numbers the steps of a map: the same function, each with an id of its own."""
    log, run = write_log(tmp_path, 1, workflows=4), UUID(int=1, version=4)
    with log.open("a") as file:
        for number, function in enumerate(("task1_read", "step", "step")):
            data = {"start_time": 10.0 * number + 1.0, "end_time": 10.0 * number + 9.0}
            line = {"task_id": f"{run}-task_{number}", "func_name": function, "data": data}
            file.write(json.dumps(line) + "\n")
    found = traces.read([log])
    assert len(found) == 4
    assert found.skipped == {
        "it ran a function more than once, and no graph tells in which order": 1
    }


def test_runs_are_replayed_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    """As a shell sorts them, run10 comes before run3, and would teach it what came after it."""
    logs = sorted(write_log(tmp_path, number, workflows=3) for number in (3, 4, 10))
    assert logs[0].name == "run10.jsonl"
    found = traces.read(logs)
    assert [run.name for run in found.runs] == ["run3.jsonl", "run4.jsonl", "run10.jsonl"]


def test_a_copy_of_a_log_does_not_count_again(tmp_path: Path) -> None:
    log, copy = write_log(tmp_path, 1, workflows=4), tmp_path / "a_copy.jsonl"
    other = write_log(tmp_path, 2, workflows=3)
    copy.write_text(log.read_text() + other.read_text())
    found = traces.read([log, copy])
    assert [(run.name, len(run.workflows)) for run in found.runs] == [
        ("run1.jsonl", 4), ("a_copy.jsonl", 3),
    ]  # fmt: skip
    assert found.skipped == {"the same run was read before": 4}


@pytest.mark.parametrize("begin", ["", "task-", "r-"])
def test_runs_that_number_their_tasks_alike_are_told_apart_by_their_lines(
    tmp_path: Path, begin: str
) -> None:
    """As are those of another log that numbers its runs from the beginning again."""
    logs = []
    for day in (0, 1):
        lines = []
        for number in range(8):
            clock = 1.7e9 + 86_400.0 * day + 1_000.0 * number
            for task, function in enumerate(("read", "answer", "write")):
                data = {"start_time": clock, "end_time": clock + 1.0 + task}
                clock += 1.0 + task
                line = {"dag_id": f"{number}", "task_id": f"{begin}{task}", "func_name": function}
                lines.append({**line, "data": data})
        logs.append(tmp_path / f"day{day}.jsonl")
        logs[-1].write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = traces.read(logs)
    assert [len(run.workflows) for run in found.runs] == [8, 8]
    assert not found.skipped
    for run in found.runs:
        ids = [task_id for workflow in run.workflows for task_id in workflow.tasks]
        assert len(set(ids)) == 24
        assert all(workflow.critical_path == 6.0 for workflow in run.workflows)
        records = [t.record for w in run.workflows for t in w.tasks.values() if t.record]
        assert len({record.run for record in records}) == 8


def test_logs_of_the_same_name_are_runs_of_their_own(tmp_path: Path) -> None:
    logs = []
    for number in (1, 2):
        (tmp_path / f"day{number}").mkdir()
        written = write_log(tmp_path / f"day{number}", number, workflows=3)
        logs.append(written.rename(written.with_name("task_exec_result.jsonl")))
    found = traces.read([*logs, logs[0]])
    names = ["day1/task_exec_result.jsonl", "day2/task_exec_result.jsonl"]
    assert [run.name for run in found.runs] == names
    done = policy_comparison.compare(
        found.runs, declared(), settings(policies=("srw",), predictors=("default", "oracle"))
    )
    assert list(done.runs) == names
    assert set(evaluate(logs, cadence=None).groups) == set(names)


@pytest.mark.parametrize(
    ("resource", "problem"),
    [(" GPU", ""), (None, ""), (7, "not 7"), ("", "not ''"), (["gpu"], "not ['gpu']")],
)
def test_what_a_task_runs_on_is_a_name_in_any_letters(
    tmp_path: Path, resource: object, problem: str
) -> None:
    given = json.loads(json.dumps(DEFINITIONS))
    given["short"]["tasks"]["task2_llm_process_short"]["resource"] = resource
    definitions, log = tmp_path / "workflows.json", write_log(tmp_path, 1)
    definitions.write_text(json.dumps(given))
    if problem:
        with pytest.raises(InputError, match="must be a name such as gpu") as raised:
            traces.read([log], definitions)
        assert problem in str(raised.value)
        return
    short = [w for w in traces.read([log], definitions).runs[0].workflows if w.kind == "short"]
    # What a load is measured by: without it all workflows would arrive at once.
    assert all(workflow.seconds_on("gpu") > 1.0 for workflow in short)


@pytest.mark.parametrize(
    ("definitions", "problem"),
    [
        ("[]", "must be an object of workflow definitions by name"),
        ("{", "cannot be read as JSON"),
        ('{"w": {}}', "workflow w must be given as"),
        ('{"w": {"tasks": {"a": {}}, "edges": [["a", "b"]]}}', "an edge to b"),
        (
            '{"w": {"tasks": {"a": {}, "b": {}}, "edges": [["a", "b"], ["b", "a"]]}}',
            "tasks wait for each other",
        ),
        ('{"w": {"tasks": {"a": {}}}}', "no workflow in it matches a definition"),
    ],
)
def test_definitions_that_do_not_hold_together_are_refused(
    tmp_path: Path, definitions: str, problem: str
) -> None:
    file = tmp_path / "workflows.json"
    file.write_text(definitions)
    with pytest.raises(InputError, match=problem):
        traces.read([write_log(tmp_path, 1, workflows=2)], file)
