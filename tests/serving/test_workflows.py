"""Whole workflows: what is left of them, from what was reported; never an error."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from malearn import DAGTaskPredictor, Workflow, WorkflowPrediction
from malearn.kernel.prediction import Prediction
from malearn.kernel.records import Record
from malearn.kernel.tool_types import ToolType
from malearn.kernel.workflows import workflow_status
from malearn.kernel.workflows.workflow_calibration import Stage
from malearn.serving import policies
from malearn.serving.cache import ModelCache
from malearn.serving.workflow_tracker import WorkflowTracker

RUN = "19725120-6620-445b-9f40-7ceccb20bae2"
NOW = 1_754_000_000.0
Build = Callable[..., DAGTaskPredictor]


def ids(*names: str) -> list[str]:
    return [f"{RUN}-{name}" for name in names]


def workflow(deadline: float | None = None, run: str = RUN) -> Workflow:
    """read → (left, right) → fuse."""
    read, left, right, fuse = (f"{run}-{n}" for n in ("read", "left_toy_process", "right", "fuse"))
    return Workflow(
        run,
        {
            read: ("read", "io", []),
            left: ("left_toy_process", "cpu", [read]),
            right: ("right", "gpu", [read]),
            fuse: ("fuse", "gpu", [left, right]),
        },
        arrived=NOW,
        deadline=deadline,
    )


def report(p: DAGTaskPredictor, record: Any, run: str = RUN, **seconds: float) -> None:
    for function, took in seconds.items():
        p.collect_data_for_task(f"{run}-{function}", function, record(took, end=NOW - 100.0))


@pytest.fixture
def cached(predictor: Build, tool_type: ToolType, toy: Any, tmp_path: Any) -> Build:
    def build(*arguments: str, **options: Any) -> DAGTaskPredictor:
        uri = "http://127.0.0.1:1"
        ModelCache(tmp_path / "cache", uri, "Production").write(
            tool_type.registered_model, 3, toy()
        )
        return predictor(*arguments, tracking_uri=uri, **({"budget": 60.0} | options))

    return build


def test_before_anything_is_known_the_default_seconds_add_up(predictor: Build) -> None:
    found = predictor().estimate_workflow(workflow(deadline=NOW + 1e4), now=NOW)
    assert found.left == {"io": 1, "cpu": 1, "gpu": 2}
    assert found.work == {"io": 1.0, "cpu": 3.0, "gpu": 30.0}
    assert found.critical == tuple(ids("read", "right", "fuse"))
    assert found.seconds > 0.0
    assert found.low < found.seconds < found.high
    assert {one.source for one in found.tasks.values()} == {"heuristic"}
    assert found.late is not None
    assert found.late < 0.05
    assert predictor().estimate_workflow(workflow(), now=NOW).late is None


def test_reported_tasks_are_done_and_the_rest_stands_on_history(
    predictor: Build, record: Any
) -> None:
    p = predictor()
    for number in range(3):
        report(p, record, f"{number:036d}", read=1.0, right=20.0, fuse=10.0)
    report(p, record, read=1.0)
    found = p.estimate_workflow(workflow(), now=NOW)
    assert sorted(found.tasks) == sorted(ids("left_toy_process", "right", "fuse"))
    assert found.tasks[ids("right")[0]].source == "function_history"
    assert found.work["gpu"] == pytest.approx(30.0, rel=0.02)
    named = p.estimate_workflow(workflow(), done=ids("right"), now=NOW)
    assert named.work["gpu"] == pytest.approx(10.0, rel=0.02)


def test_a_task_whose_inputs_are_known_is_the_models(
    cached: Build, record: Any, tool_type: ToolType
) -> None:
    """The toy model answers 10 + size + words, where words default to 1."""
    p = cached()
    unknown = p.estimate_workflow(workflow(), now=NOW)
    said = {"left_toy_process": {"size": 5}}
    p.collect_data_for_task(*ids("read"), "read", record(1.0, said, end=NOW - 5.0))
    known = p.estimate_workflow(workflow(), now=NOW)
    left = ids("left_toy_process")[0]
    assert unknown.tasks[left].source == "heuristic"
    assert (known.tasks[left].source, known.tasks[left].seconds) == ("model", 16.0)
    assert known.tasks[left].model_version == 3


def test_tasks_that_share_their_inputs_get_one_answer_and_are_scored_each_by_its_own_id(
    cached: Build, record: Any, own_redis: Any
) -> None:
    p = cached(own_redis.url)
    assert p.wait_until_ready()
    read, *pages = ids("read", *(f"page{n}_toy_process" for n in range(3)))
    tasks = {page: ("toy_process", "cpu", [read]) for page in pages}
    spread = Workflow(RUN, {read: ("read", "io", []), **tasks}, arrived=NOW)
    said = {"toy_process": {"size": 5}}
    p.collect_data_for_task(read, "read", record(1.0, said, end=NOW - 5.0))
    found = p.estimate_workflow(spread, now=NOW)
    assert [found.tasks[page].seconds for page in pages] == [16.0] * 3
    assert (found.left["cpu"], found.work["cpu"]) == (3, 48.0)
    assert p.stats().sources == {"model": 3}
    for page in pages:
        p.collect_data_for_task(page, "toy_process", record(15.0, end=NOW - 2.0))
    p.close(10.0)
    with own_redis.client() as client:
        entries = [json.loads(e[b"e"]) for _, e in client.xrange("malearn:executions")]
    predicted = {e["task_id"]: e["predicted"] for e in entries if e["function"] == "toy_process"}
    assert predicted == dict.fromkeys(pages, 16.0)


def test_a_running_task_counts_what_is_left_of_it(predictor: Build, record: Any) -> None:
    p = predictor()
    for number in range(3):
        report(p, record, f"{number:036d}", right=20.0, fuse=10.0)
    report(p, record, read=1.0)
    right = ids("right")[0]
    first = p.estimate_workflow(workflow(), now=NOW)
    early = p.estimate_workflow(workflow(), running={right: NOW}, now=NOW + 5.0)
    overdue = p.estimate_workflow(workflow(), running={right: NOW}, now=NOW + 60.0)
    assert first.tasks[right].seconds == pytest.approx(20.0, rel=0.02)
    assert early.tasks[right].seconds == pytest.approx(15.0, abs=1.0)
    assert overdue.tasks[right].seconds > 1.0
    assert early.work["gpu"] < first.work["gpu"]


def test_what_is_told_of_a_task_before_it_starts_counts_though_nobody_asked_in_between(
    cached: Build, record: Any
) -> None:
    """The toy model answers 10 + size + words, where words default to 1."""
    p, left = cached(), ids("left_toy_process")[0]
    p.estimate_workflow(workflow(), now=NOW)
    said = {"left_toy_process": {"size": 189}}
    p.collect_data_for_task(*ids("read"), "read", record(1.0, said, end=NOW + 1.0))
    found = p.estimate_workflow(workflow(), running={left: NOW + 1.0}, now=NOW + 21.0)
    assert found.tasks[left].source == "model"
    assert found.tasks[left].seconds == pytest.approx(180.0, rel=0.1)


def test_how_sure_a_workflow_is_does_not_depend_on_who_asked_before_anything_was_known(
    predictor: Build, record: Any
) -> None:
    """The second task takes 20 or 200 s by its inputs, which the first one tells."""

    def widths(p: DAGTaskPredictor, *, at_arrival: bool) -> float:
        chance, found = random.Random(3), 1.0
        for number in range(120):
            run, long = f"{number:08d}{RUN[8:]}", chance.random() < 0.5
            arrived = NOW - 50_000.0 + 300.0 * number
            whole, end = pair(run, arrived), arrived + 1.0
            if at_arrival:
                p.estimate_workflow(whole, now=arrived)
            said = {"left_toy_process": {"size": 900.0 if long else 50.0}}
            p.collect_data_for_task(f"{run}-read", "read", record(1.0, said, end=end))
            told = p.estimate_workflow(whole, now=end)
            found = told.high / told.low
            took = (200.0 if long else 20.0) * math.exp(chance.gauss(0.0, 0.1))
            done = record(took, end=end + took)
            p.collect_data_for_task(f"{run}-left_toy_process", "left_toy_process", done)
        return found

    alone = widths(predictor(), at_arrival=False)
    assert widths(predictor(), at_arrival=True) < 1.5 * alone < 3.0


def test_a_replay_ahead_of_the_clock_learns_from_what_ended_by_its_own_time(
    predictor: Build, record: Any
) -> None:
    p, tomorrow = predictor(clock=lambda: NOW), NOW + 86_400.0
    assert p.estimate_workflow(workflow(), now=tomorrow).tasks[ids("right")[0]].seconds == 15.0
    for number, end in enumerate((tomorrow, tomorrow + 3_600.0)):
        took = 20.0 if end == tomorrow else 500.0
        p.collect_data_for_task(f"{number:036d}-right", "right", record(took, end=end))
    found = p.estimate_workflow(workflow(), now=tomorrow).tasks[ids("right")[0]]
    assert found.seconds == pytest.approx(20.0, rel=0.02)
    assert p.stats().rejected == {"future_times": 1}


def test_a_clock_in_milliseconds_is_not_gone_by(predictor: Build, record: Any) -> None:
    p = predictor(clock=lambda: NOW)
    p.estimate_workflow(workflow(), now=1e3 * NOW)
    p.collect_data_for_task(f"{0:036d}-right", "right", record(20_000.0, end=1e3 * NOW))
    p.estimate_workflow(workflow(), now=NOW)
    assert p.stats().rejected == {"future_times": 1}


def test_a_task_that_is_started_again_after_it_was_reported_is_open(
    predictor: Build, record: Any
) -> None:
    p, (read, right) = predictor(), ids("read", "right")
    report(p, record, read=1.0, right=20.0)
    again = p.estimate_workflow(workflow(), running={right: NOW}, now=NOW + 1.0)
    assert right in again.tasks
    # What is said to run since before it was reported has ended since.
    before = p.estimate_workflow(workflow(), running={read: NOW - 102.0}, now=NOW)
    assert read not in before.tasks


def test_records_of_predecessors_that_were_not_reported_are_read_for_all_of_a_queue(
    cached: Build, record: Any, redis_url: str
) -> None:
    runs = [f"{number:036d}" for number in range(100, 120)]
    with redis.Redis.from_url(redis_url) as client:
        for run in runs:
            said = {"left_toy_process": {"size": 7}}
            client.set(f"result:{run}-read", record(1.0, said), ex=60)
        p = cached(redis_url, budget=60.0)
        assert p.wait_until_ready()
        queue = [(workflow(run=run), {}, [f"{run}-read"]) for run in runs]
        found = p.estimate_workflows(queue, now=NOW)
    left = [f"{run}-left_toy_process" for run in runs]
    answers = [one.tasks[task_id].seconds for one, task_id in zip(found, left, strict=True)]
    assert answers == [18.0] * len(runs)


def test_what_workflows_became_narrows_the_next_ones(predictor: Build, record: Any) -> None:
    """The tasks take twice what their own history says when they run in one workflow."""
    p = predictor()
    report(p, record, "a" * 36, read=1.0, right=20.0, fuse=10.0)
    before = p.estimate_workflow(workflow(), now=NOW)
    for number in range(40):
        run = f"{number:036d}"
        p.estimate_workflow(workflow(run=run), now=NOW)
        report(p, record, run, read=1.0, left_toy_process=3.0, right=20.0, fuse=10.0)
    after = p.estimate_workflow(workflow(), now=NOW)
    assert after.high / after.low < before.high / before.low
    assert after.low <= 31.0 <= after.high


def test_an_appended_task_is_counted_from_then_on(predictor: Build) -> None:
    p, w = predictor(), Workflow(RUN, {"a": ("read", "io", [])})
    first = p.estimate_workflow(w, now=NOW)
    w.append("b", "act", "gpu", ["a"])
    assert (first.left, p.estimate_workflow(w, now=NOW).left) == (
        {"io": 1},
        {"io": 1, "gpu": 1},
    )


def test_the_policies_take_what_the_predictor_gives(predictor: Build) -> None:
    w = workflow(deadline=NOW + 10.0)
    found = predictor().estimate_workflow(w, now=NOW)
    assert policies.shortest_remaining_work(w, found, NOW) == (30.0,)
    assert policies.triage(w, found, NOW)[0] in (0.0, 1.0)


@pytest.mark.parametrize(
    "queued",
    [
        (),
        (None, {}, []),
        (Workflow(RUN), {}, []),
        (workflow(), {"nobody": NOW}, ["unknown"]),
        (workflow(), {f"{RUN}-right": "yesterday"}, []),
        (workflow(), None, None),
        ("a", "b", "c", "d"),
    ],
)
def test_whatever_is_asked_there_is_an_answer(predictor: Build, record: Any, queued: Any) -> None:
    p = predictor()
    report(p, record, "b" * 36, left_toy_process=9.0)
    first, second = p.estimate_workflows([queued, (workflow(), {}, [])], now=NOW)
    for one in (first, second):
        assert isinstance(one, WorkflowPrediction)
        assert 0.0 <= one.low <= one.seconds <= one.high < 1e9
    # What is wrong with one workflow costs the others nothing.
    assert second.work == pytest.approx({"io": 1.0, "cpu": 9.0, "gpu": 30.0})


def test_a_finished_workflow_is_published_as_ended_and_teaches_the_next_predictor(
    predictor: Build, record: Any, own_redis: Any, eventually: Callable[..., None]
) -> None:
    """As other tasks finish 3 times as late as their own history says, so will the next ones."""
    first = predictor(own_redis.url)
    assert first.wait_until_ready()
    with own_redis.client() as client:
        for number in range(30):
            run = f"{number:036d}"
            first.estimate_workflow(workflow(run=run), now=NOW)
            report(first, record, run, read=0.5, left_toy_process=1.0, right=9.0, fuse=9.0)
            assert first.stats().internal_errors == 0
        eventually(lambda: client.llen("malearn:workflow_scores") == 30)
        eventually(lambda: client.get(f"malearn:workflow:{0:036d}") is not None)
        ended = workflow_status.read(client.get(f"malearn:workflow:{0:036d}"))
        assert ended is not None
        assert (ended.done, ended.tasks, ended.progress) == (4, 4, 1.0)
        assert ended.ended is not None
        assert 0 < client.ttl("malearn:workflow_scores") <= 30 * 86_400
    second = predictor(own_redis.url)
    assert second.wait_until_ready()
    alone = predictor().estimate_workflow(workflow(), now=NOW)
    eventually(lambda: second.estimate_workflow(workflow(), now=NOW).high < alone.high / 1.5)


def test_statistics_list_the_workflows_in_progress(predictor: Build, record: Any) -> None:
    p = predictor()
    p.estimate_workflow(workflow(deadline=NOW + 5.0), now=NOW)
    (shown,) = p.stats().workflows
    assert (shown.run_id, shown.tasks, shown.done, shown.progress) == (RUN, 4, 0, 0.0)
    report(p, record, read=1.0, left_toy_process=1.0, right=9.0, fuse=9.0)
    assert p.stats().workflows == ()


def test_of_a_workflow_that_is_discovered_the_rest_is_what_others_became(
    predictor: Build, record: Any
) -> None:
    p = predictor()
    for number in range(3):
        run = f"{number:036d}"
        p.estimate_workflow(discovered(run, "plan", "search", "answer"), now=NOW)
        report(p, record, run, plan=2.0, search=30.0, answer=8.0)
    other = f"{9:036d}"
    p.estimate_workflow(discovered(other, "greet", "wave"), now=NOW)
    report(p, record, other, greet=100.0, wave=100.0)
    begun = p.estimate_workflow(discovered(RUN, "plan"), now=NOW)
    assert (begun.unseen, begun.left) == (2, {"gpu": 3})
    assert begun.work["gpu"] == pytest.approx(40.0, rel=0.02)
    assert list(begun.tasks) == list(begun.critical) == ids("plan")
    further = p.estimate_workflow(discovered(RUN, "plan", "search"), done=ids("plan"), now=NOW)
    assert (further.unseen, further.left) == (1, {"gpu": 2})
    another_way = p.estimate_workflow(discovered(RUN, "plan", "sleep"), now=NOW)
    assert another_way.unseen == 0


def test_what_was_announced_first_tells_what_tasks_of_unknown_inputs_take(
    predictor: Build, record: Any
) -> None:
    p = predictor()
    took = {0: 20.0, 1: 32.0}
    for number in range(24):
        run = f"{number:08d}{RUN[8:]}"
        p.estimate_workflow(workflow(run=run), now=NOW)
        length = {"length": 10.0 + 900.0 * (number % 2)}
        read = record(1.0, {"left_toy_process": length}, end=NOW - 100.0)
        p.collect_data_for_task(f"{run}-read", "read", read)
        if number < 22:
            report(p, record, run, left_toy_process=3.0, right=9.0, fuse=took[number % 2])
        else:
            left = p.estimate_workflow(workflow(run=run), now=NOW).tasks
            took[number % 2] = left[f"{run}-fuse"].seconds
    assert took[0] < 24.0 < 27.0 < took[1]


def test_what_was_announced_first_tells_of_tasks_that_fail_later(
    predictor: Build, record: Any, own_redis: Any, eventually: Callable[..., None]
) -> None:
    """As above, but those that take long have failed; after a restart it is known as well."""
    p = predictor(own_redis.url)
    assert p.wait_until_ready()
    for number in range(24):
        run = f"{number:08d}{RUN[8:]}"
        p.estimate_workflow(workflow(run=run), now=NOW)
        read = record(1.0, announced(number), end=NOW - 100.0)
        p.collect_data_for_task(f"{run}-read", "read", read)
        report(p, record, run, left_toy_process=3.0, right=9.0)
        status = {"status": "failed"} if number % 2 else {}
        fuse = record(40.0 if number % 2 else 20.0, end=NOW - 100.0, **status)
        p.collect_data_for_task(f"{run}-fuse", "fuse", fuse)
    p.close(10.0)
    run = f"{25:08d}{RUN[8:]}"
    read = record(1.0, announced(25), end=NOW - 100.0)

    def fuse_of(known: DAGTaskPredictor) -> float:
        known.estimate_workflow(workflow(run=run), now=NOW)
        known.collect_data_for_task(f"{run}-read", "read", read)
        return known.estimate_workflow(workflow(run=run), now=NOW).tasks[f"{run}-fuse"].seconds

    assert fuse_of(p) > 30.0
    assert p.estimate("fuse", "gpu", ()).seconds == pytest.approx(20.0, rel=0.02)
    second = predictor(own_redis.url)
    assert second.wait_until_ready()
    # Of each hint and function one a second is shared, hence less than before.
    eventually(lambda: fuse_of(second) > 21.0)


def test_what_was_learnt_last_is_shared_before_a_scheduler_ends(
    predictor: Build, record: Any, own_redis: Any
) -> None:
    p = predictor(own_redis.url)
    assert p.wait_until_ready()
    run = f"{77:036d}"
    p.estimate_workflow(workflow(run=run), now=NOW)
    report(p, record, run, read=0.5, left_toy_process=1.0, right=9.0, fuse=9.0)
    with own_redis.client() as client:
        before = client.llen("malearn:workflow_scores")
        p.close(10.0)
        ended = workflow_status.read(client.get(f"malearn:workflow:{run}"))
        assert ended is not None
        assert ended.progress == 1.0
        assert client.llen("malearn:workflow_scores") >= before


def test_a_function_takes_in_a_kind_of_workflow_what_it_took_there(
    predictor: Build, record: Any
) -> None:
    """Before anything of a new workflow is known but which functions it has."""
    p = predictor()

    def kind(number: int, other: str) -> Workflow:
        first, last = f"{number:036d}-{other}", f"{number:036d}-fuse"
        return Workflow(
            f"{number:036d}", {first: (other, "io", []), last: ("fuse", "gpu", [first])}
        )

    for number in range(20):
        other, took = ("read", 10.0) if number % 2 else ("search", 20.0)
        p.estimate_workflow(kind(number, other), now=NOW)
        report(p, record, f"{number:036d}", **{other: 1.0, "fuse": took})
    read = p.estimate_workflow(kind(98, "read"), now=NOW)
    search = p.estimate_workflow(kind(99, "search"), now=NOW)
    assert read.work["gpu"] < 13.0 < 16.0 < search.work["gpu"]


def test_what_hints_were_followed_by_is_known_after_a_restart(
    predictor: Build, record: Any, own_redis: Any, eventually: Callable[..., None]
) -> None:
    p, took = predictor(own_redis.url), {0: 20.0, 1: 32.0}
    assert p.wait_until_ready()
    for number in range(22):
        run = f"{number:08d}{RUN[8:]}"
        p.estimate_workflow(workflow(run=run), now=NOW)
        read = record(1.0, announced(number), end=NOW - 100.0)
        p.collect_data_for_task(f"{run}-read", "read", read)
        report(p, record, run, left_toy_process=3.0, right=9.0, fuse=took[number % 2])
    p.close(10.0)
    with own_redis.client() as client:
        assert client.llen("malearn:workflow_hints") > 0
        assert 0 < client.ttl("malearn:workflow_hints") <= 30 * 86_400
        client.rpush("malearn:workflow_hints", "nonsense", '{"announcer": "a"}')
    second = predictor(own_redis.url)
    assert second.wait_until_ready()
    for number in (22, 23):
        run = f"{number:08d}{RUN[8:]}"
        second.estimate_workflow(workflow(run=run), now=NOW)
        read = record(1.0, announced(number), end=NOW - 100.0)
        second.collect_data_for_task(f"{run}-read", "read", read)

    def fuse(number: int) -> float:
        run = f"{number:08d}{RUN[8:]}"
        left = second.estimate_workflow(workflow(run=run), now=NOW).tasks
        return left[f"{run}-fuse"].seconds

    eventually(lambda: fuse(22) < 24.0 < 27.0 < fuse(23))


def pair(run: str, arrived: float = NOW) -> Workflow:
    """read → left_toy_process, of which the first tells the inputs of the second."""
    read, left = f"{run}-read", f"{run}-left_toy_process"
    tasks = {read: ("read", "io", []), left: ("left_toy_process", "gpu", [read])}
    return Workflow(run, tasks, arrived=arrived)


def begin(p: DAGTaskPredictor, record: Any, number: int, size: float) -> tuple[str, Workflow]:
    """A workflow that waits for its second task, and that task's id."""
    run = f"{number:08d}{RUN[8:]}"
    p.estimate_workflow(pair(run), now=NOW)
    said = {"left_toy_process": {"size": size}}
    p.collect_data_for_task(f"{run}-read", "read", record(1.0, said, end=NOW - 200.0))
    p.estimate_workflow(pair(run), now=NOW)
    return f"{run}-left_toy_process", pair(run)


FAILS, SUCCEEDS = 900.0, 50.0  # inputs
TOOK = {FAILS: 130.0, SUCCEEDS: 60.0}


def fail_and_succeed(p: DAGTaskPredictor, record: Any, **failure: object) -> None:
    """Tasks of one input run into a limit, those of another do not."""
    for number in range(20):
        size = SUCCEEDS if number % 2 else FAILS
        task, _ = begin(p, record, number, size)
        status = {} if number % 2 else {"status": "failed", **failure}
        done = record(TOOK[size], end=NOW - 100.0 + number, **status)
        p.collect_data_for_task(task, "left_toy_process", done)


def waited_for(p: DAGTaskPredictor, record: Any, number: int, size: float) -> float:
    """The seconds of the second task of a workflow, as part of the whole."""
    task, whole = begin(p, record, number, size)
    found = p.estimate_workflow(whole, now=NOW)
    assert found.tasks[task].low < found.tasks[task].seconds < found.tasks[task].high
    assert found.work["gpu"] == found.tasks[task].seconds
    return found.tasks[task].seconds


def settled(p: DAGTaskPredictor, eventually: Callable[..., None]) -> None:
    """Wait until all that was reported is learnt, which another thread may be at."""
    eventually(lambda: single(p, SUCCEEDS) and p.observed("left_toy_process") == 10)


def single(p: DAGTaskPredictor, size: float) -> float:
    return p.estimate("left_toy_process", "gpu", (), {"size": size}).seconds


def test_a_workflow_waits_for_a_task_whose_inputs_fail_as_long_as_they_did(
    predictor: Build, record: Any
) -> None:
    p = predictor()
    fail_and_succeed(p, record)
    assert waited_for(p, record, 90, FAILS) == pytest.approx(130.0, rel=0.1)
    assert waited_for(p, record, 91, SUCCEEDS) == pytest.approx(60.0, rel=0.05)
    assert p.stats().internal_errors == 0


def test_one_failure_changes_little_for_inputs_that_have_succeeded_before(
    predictor: Build, record: Any
) -> None:
    p = predictor()
    for number in range(40):
        task, _ = begin(p, record, number, FAILS if number % 2 else SUCCEEDS)
        done = record(58.0 + number % 5, end=NOW - 100.0 + number)
        p.collect_data_for_task(task, "left_toy_process", done)
    task, _ = begin(p, record, 40, FAILS)
    failed = record(1.0, end=NOW - 50.0, status="failed")
    p.collect_data_for_task(task, "left_toy_process", failed)
    assert waited_for(p, record, 90, FAILS) == pytest.approx(60.0, rel=0.1)
    assert waited_for(p, record, 91, SUCCEEDS) == pytest.approx(60.0, rel=0.1)


def test_what_fails_changes_nothing_for_a_single_task(
    predictor: Build, record: Any, eventually: Callable[..., None]
) -> None:
    p, never_failed = predictor(), predictor()
    fail_and_succeed(p, record)
    for number in range(1, 20, 2):
        task, _ = begin(never_failed, record, number, SUCCEEDS)
        done = record(TOOK[SUCCEEDS], end=NOW - 100.0 + number)
        never_failed.collect_data_for_task(task, "left_toy_process", done)
    settled(p, eventually)
    settled(never_failed, eventually)
    for size in (FAILS, SUCCEEDS, 100.0):
        assert single(p, size) == single(never_failed, size)


def test_a_failure_that_is_reported_twice_counts_once(predictor: Build, record: Any) -> None:
    once, twice = predictor(), predictor()
    for p in (once, twice):
        fail_and_succeed(p, record)
        slow = record(500.0, end=NOW - 20.0, status="failed")
        task, _ = begin(p, record, 70, FAILS)
        for _ in range(1 if p is once else 4):
            p.collect_data_for_task(task, "left_toy_process", slow)
    found = waited_for(once, record, 90, FAILS)
    assert found > 150.0
    assert waited_for(twice, record, 90, FAILS) == pytest.approx(found, rel=0.05)


def test_a_failure_that_is_corrected_is_learnt_as_a_success(
    predictor: Build, record: Any, eventually: Callable[..., None]
) -> None:
    p = predictor()
    task, _ = begin(p, record, 1, FAILS)
    p.collect_data_for_task(task, "left_toy_process", record(60.0, end=NOW, status="failed"))
    p.collect_data_for_task(task, "left_toy_process", record(60.0, end=NOW))
    eventually(lambda: single(p, FAILS) and p.observed("left_toy_process") == 1)


def test_a_failed_task_that_starts_again_the_moment_it_ended_is_waited_for(
    predictor: Build, record: Any
) -> None:
    """As it does in a simulation."""
    p = predictor()
    task, whole = begin(p, record, 1, FAILS)
    p.collect_data_for_task(task, "left_toy_process", record(60.0, end=NOW, status="failed"))
    assert p.estimate_workflow(whole, now=NOW).seconds == 0.0
    assert p.estimate_workflow(whole, {task: NOW}, now=NOW + 1.0).left["gpu"] == 1
    # By a clock that is a little behind that of the worker.
    assert p.estimate_workflow(whole, {task: NOW - 0.2}, now=NOW + 1.0).left["gpu"] == 1
    assert p.estimate_workflow(whole, {task: NOW - 60.0}, now=NOW + 1.0).left["gpu"] == 0


@pytest.mark.parametrize("seconds", [0.002, 0.0], ids=["in a moment", "in no time"])
def test_a_task_that_is_always_skipped_is_not_waited_for(
    cached: Build, record: Any, seconds: float
) -> None:
    """The toy model answers 11 + size."""
    p = cached()
    for number in range(8):
        task, _ = begin(p, record, number, 90.0 + number)
        skipped = record(seconds, end=NOW - 100.0, status="skipped")
        p.collect_data_for_task(task, "left_toy_process", skipped)
    assert waited_for(p, record, 90, 400.0) < 2.0
    assert p.estimate_workflow(pair(RUN), now=NOW).work["gpu"] < 0.5, "before its inputs are known"
    assert single(p, 400.0) == 411.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"end_time": 4e9, "start_time": 4e9 - 130.0},
        {"start_time": NOW, "end_time": NOW - 5.0},
        {"start_time": None},
    ],
    ids=["in the future", "backwards", "without a start"],
)
def test_of_a_failed_task_with_a_wrong_clock_nothing_is_learnt(
    predictor: Build, record: Any, wrong: dict[str, object], eventually: Callable[..., None]
) -> None:
    p = predictor()
    fail_and_succeed(p, record, **wrong)
    settled(p, eventually)
    assert waited_for(p, record, 90, FAILS) == single(p, FAILS)


def test_what_fails_is_known_after_a_restart_and_its_workflows_are_scored(
    predictor: Build, record: Any, own_redis: Any, eventually: Callable[..., None]
) -> None:
    p = predictor(own_redis.url)
    assert p.wait_until_ready()
    fail_and_succeed(p, record)
    # One is tried again, and succeeds: its answer is still known.
    again = f"{18:08d}{RUN[8:]}-left_toy_process"
    p.collect_data_for_task(again, "left_toy_process", record(60.0, end=NOW - 50.0))
    p.close(10.0)
    with own_redis.client() as client:
        # One of each when it arrived, one when its first task had ended.
        assert client.llen("malearn:workflow_scores") == 40
        assert client.llen("malearn:workflow_outcomes") == 21
        assert 0 < client.ttl("malearn:workflow_outcomes") <= 30 * 86_400
        client.rpush("malearn:workflow_outcomes", "nonsense", '["f", [1.0], 99.0, true]')
        entries = [json.loads(e[b"e"]) for _, e in client.xrange("malearn:executions")]
        assert client.llen("malearn:history:left_toy_process") == 11
    assert next(e for e in reversed(entries) if e["task_id"] == again)["predicted"] > 0.0
    failed = [e for e in entries if "rejected" in e]
    assert len(failed) == 10
    assert {tuple(e) for e in failed} == {("task_id", "function", "rejected")}
    second = predictor(own_redis.url)
    assert second.wait_until_ready()
    # Less than 130 s, as it has succeeded once; of a single task 60 s are expected.
    eventually(lambda: 85.0 < waited_for(second, record, 90, FAILS) < 130.0)


def announced(number: int) -> dict[str, dict[str, float]]:
    return {"left_toy_process": {"length": 10.0 + 900.0 * (number % 2)}}


def test_what_discovered_workflows_became_is_known_after_a_restart(
    predictor: Build, record: Any, own_redis: Any, eventually: Callable[..., None]
) -> None:
    p = predictor(own_redis.url)
    assert p.wait_until_ready()
    for number in range(3):
        run = f"{number:036d}"
        found = discovered(run, "plan", "search", "answer")
        p.estimate_workflow(found, now=NOW)
        report(p, record, run, plan=2.0, search=30.0, answer=8.0)
    p.close(10.0)
    with own_redis.client() as client:
        assert client.llen("malearn:workflow_shapes") == 3
        client.rpush("malearn:workflow_shapes", "nonsense", '{"run_id": "a", "steps": []}')
    second = predictor(own_redis.url)
    assert second.wait_until_ready()
    eventually(lambda: second.estimate_workflow(discovered(RUN, "plan"), now=NOW).unseen == 2)


def discovered(run: str, *functions: str) -> Workflow:
    found, before = Workflow(run), []
    for function in functions:
        found.append(f"{run}-{function}", function, "gpu", before)
        before = [f"{run}-{function}"]
    return found


def test_the_stream_carries_the_edges_that_a_scheduler_knows(
    predictor: Build, record: Any, own_redis: Any
) -> None:
    p = predictor(own_redis.url)
    assert p.wait_until_ready()
    p.estimate_workflow(workflow(), now=NOW)
    said = {"left_toy_process": {"size": 5.0}}
    p.collect_data_for_task(*ids("read"), "read", record(1.0, said, end=NOW - 5.0))
    report(p, record, right=9.0)
    p.estimate("asked", "gpu", ids("right"), None)
    report(p, record, asked=2.0)
    p.close(10.0)
    with own_redis.client() as client:
        entries = [json.loads(e[b"e"]) for _, e in client.xrange("malearn:executions")]
    found = {e["function"]: e for e in entries}
    assert found["read"]["predecessors"] == []
    assert found["read"]["successors"] == ["left_toy_process"]
    assert (found["read"]["resource"], found["right"]["resource"]) == ("io", "gpu")
    assert found["right"]["predecessors"] == ids("read")
    assert found["asked"]["predecessors"] == ids("right")


def test_a_model_alone_brings_calibrated_intervals_of_workflows(
    predictor: Build, tool_type: ToolType, toy: Any, tmp_path: Any, eventually: Callable[..., None]
) -> None:
    """A fresh cache, no Redis and no registry: paths end at a quarter of the default seconds."""
    uri, scores = "http://127.0.0.1:1", [(stage, -1.4) for stage in Stage] * 60
    model = toy(workflow_scores=tuple(scores), trained_until=NOW)
    ModelCache(tmp_path / "cache", uri, "Production").write(tool_type.registered_model, 3, model)
    warmed = predictor(tracking_uri=uri).estimate_workflow(workflow(), now=NOW)
    cold = predictor(cache_dir=None).estimate_workflow(workflow(), now=NOW)
    assert warmed.high < cold.seconds
    assert warmed.high - warmed.low < 0.6 * (cold.high - cold.low)


def numbered(run: str, arrived: float | None = None) -> Workflow:
    """first → second, with ids that every workflow of its scheduler has."""
    return Workflow(
        run, {"1": ("first", "gpu", []), "2": ("second", "gpu", ["1"])}, arrived=arrived
    )


def test_a_report_counts_for_the_run_that_waited_for_it_alone(
    predictor: Build, record: Any
) -> None:
    p = predictor()
    p.estimate_workflow(numbered("run-1"), now=NOW)
    p.collect_data_for_task("1", "first", record(5.0, end=NOW + 5.0))
    assert p.estimate_workflow(numbered("run-1"), now=NOW + 5.0).left == {"gpu": 1}
    assert p.estimate_workflow(numbered("run-2"), now=NOW + 6.0).left == {"gpu": 2}
    p.collect_data_for_task("1", "first", record(5.0, end=NOW + 11.0))
    assert p.estimate_workflow(numbered("run-2"), now=NOW + 11.0).left == {"gpu": 1}


def test_a_report_that_nobody_waited_for_counts_where_it_ended_after_the_arrival(
    predictor: Build, record: Any
) -> None:
    p = predictor()
    p.collect_data_for_task("1", "first", record(5.0, end=NOW))
    assert p.estimate_workflow(numbered("run-2", NOW + 1.0), now=NOW + 2.0).left == {"gpu": 2}
    assert p.estimate_workflow(numbered("run-1", NOW - 6.0), now=NOW + 2.0).left == {"gpu": 1}
    # One run counts it now; without an arrival that is all that tells.
    assert p.estimate_workflow(numbered("run-3"), now=NOW + 2.0).left == {"gpu": 2}


@pytest.mark.parametrize("queued", [workflow(), None, (), (workflow(), None, [[]]), 7])
def test_an_entry_of_a_queue_that_is_none_costs_the_others_nothing(
    predictor: Build, queued: Any
) -> None:
    p = predictor()
    wrong, right = p.estimate_workflows([queued, (workflow(), {}, ids("read"))], NOW)
    assert wrong.low < wrong.seconds < wrong.high
    assert right.left == {"io": 0, "cpu": 1, "gpu": 2}
    many = p.estimate_many([queued, ("right", "cpu", [])])
    assert [one.source for one in many] == ["heuristic"] * 2
    assert many[1].seconds == 3.0
    assert p.stats().internal_errors == 2


def test_names_that_cannot_be_encoded_cost_no_other_workflow_its_status(
    predictor: Build, own_redis: Any, eventually: Callable[..., None]
) -> None:
    p = predictor(own_redis.url)
    assert p.wait_until_ready()
    half: Any = "sur\ud800rogate"
    for run in (half, 7, RUN):
        ready = Workflow(run, {f"{run}-a": (half, "gpu", [])}, arrived=NOW)
        p.estimate_workflow(ready, {f"{run}-a": NOW}, now=NOW)
    with own_redis.client() as client:
        eventually(lambda: client.get(f"malearn:workflow:{RUN}") is not None)
        escaped = "sur\\ud800rogate"
        found = workflow_status.read(client.get(f"malearn:workflow:{escaped}"))
    assert found is not None
    assert (found.run_id, found.running, found.next) == (escaped, (escaped,), (escaped,))
    stats = p.stats()
    # Of the one whose run is no text there is no status, and that is counted.
    assert (stats.redis_outages, stats.internal_errors) == (0, 1)


def test_a_workflow_ends_where_its_scheduler_says_that_all_is_done(
    predictor: Build, record: Any, own_redis: Any, eventually: Callable[..., None]
) -> None:
    p = predictor(own_redis.url)
    assert p.wait_until_ready()
    names = ids("read", "left_toy_process", "right", "fuse")
    p.estimate_workflow(workflow(), now=NOW)
    # Built anew, as some schedulers do at each question.
    assert p.estimate_workflow(workflow(), done=names, now=NOW + 9.0).seconds == 0.0
    assert p.stats().workflows == ()
    with own_redis.client() as client:

        def status() -> Any:
            return workflow_status.read(client.get(f"malearn:workflow:{RUN}") or b"")

        eventually(lambda: status() is not None and status().ended is not None)
        assert (status().done, status().tasks, status().ended) == (4, 4, NOW + 9.0)
        # What is reported late still scores what was predicted.
        report(p, record, read=1.0, left_toy_process=1.0, right=9.0, fuse=9.0)
        eventually(lambda: client.llen("malearn:workflow_scores") == 1)
    p.estimate_workflow(workflow(), {names[3]: NOW + 20.0}, now=NOW + 20.0)
    assert len(p.stats().workflows) == 1


def test_a_workflow_between_two_tasks_is_in_progress_while_more_are_expected(
    predictor: Build, record: Any, own_redis: Any, eventually: Callable[..., None]
) -> None:
    p = predictor(own_redis.url)
    assert p.wait_until_ready()
    for number in range(3):
        run = f"{number:036d}"
        p.estimate_workflow(discovered(run, "plan", "search", "answer"), now=NOW)
        report(p, record, run, plan=2.0, search=30.0, answer=8.0)
    growing = discovered(RUN, "plan")
    p.estimate_workflow(growing, now=NOW)
    report(p, record, plan=2.0)
    (shown,) = p.stats().workflows
    assert (shown.run_id, shown.done, shown.tasks, shown.unseen) == (RUN, 1, 1, 2)
    assert shown.progress < 1.0
    # Also where it was asked about for the first time in between.
    other = discovered("other", "plan")
    assert p.estimate_workflow(other, done=["other-plan"], now=NOW).seconds > 0.0
    assert [one.run_id for one in p.stats().workflows] == [RUN, "other"]
    with own_redis.client() as client:
        eventually(lambda: client.get("malearn:workflow:other") is not None)
        published = workflow_status.read(client.get("malearn:workflow:other"))
        assert published is not None
        assert published.ended is None
        growing.append(ids("search")[0], "search", "gpu", ids("plan"))
        growing.append(ids("answer")[0], "answer", "gpu", ids("search"))
        p.estimate_workflow(growing, now=NOW)
        report(p, record, search=30.0, answer=8.0)
        assert [one.run_id for one in p.stats().workflows] == ["other"]
        eventually(lambda: b'"ended":null' not in client.get(f"malearn:workflow:{RUN}"))


def test_a_discovered_workflow_that_does_not_go_on_is_over_after_a_pause() -> None:
    tracker, task = WorkflowTracker(pause=0.0), Prediction(5.0, 4.0, 6.0, "heuristic")
    long, short = discovered("long", "plan", "search"), discovered("short", "plan")
    tracker.combine(long, dict.fromkeys(long.tasks, task), {}, NOW)
    for task_id, at in long.tasks.items():
        tracker.ended(Record(task_id, at.function, NOW, NOW + 5.0, {}, {}))
    whole, unseen = tracker.completed(short)
    tracker.combine(short, {unseen[0]: task}, {}, NOW, whole, unseen)
    assert tracker.in_progress(10) == []
    shown = {one.run_id: one.ended is not None for one in tracker.take_changed(10)}
    assert shown == {"long": True, "short": True}


def test_discovered_workflows_side_by_side_do_not_hide_what_they_become(
    predictor: Build, record: Any, own_redis: Any
) -> None:
    p = predictor(own_redis.url)
    assert p.wait_until_ready()
    names = ("plan", "search", "read", "answer")
    seconds = dict.fromkeys(names, 10.0)

    def side_by_side(first: int, count: int) -> dict[str, set[int]]:
        """How many further tasks were expected of each run, by step."""
        runs = [f"{first + number:036d}" for number in range(count)]
        growing, expected = {run: Workflow(run) for run in runs}, dict[str, set[int]]()
        for at, name in enumerate(names):
            before = names[at - 1 : at] if at else ()
            for run in runs:
                task_ids = [f"{run}-{one}" for one in before]
                growing[run].append(f"{run}-{name}", name, "gpu", task_ids)
                found = p.estimate_workflow(growing[run], now=NOW)
                expected.setdefault(name, set()).add(found.unseen)
                report(p, record, run, **{name: seconds[name]})
        return expected

    for number in range(30):
        run = f"{number:036d}"
        p.estimate_workflow(discovered(run, *names), now=NOW)
        report(p, record, run, **seconds)
    exactly = {"plan": {3}, "search": {2}, "read": {1}, "answer": {0}}
    assert side_by_side(100, 20) == exactly
    # The last of each run counts, whenever it came.
    assert side_by_side(200, 20) == exactly
    p.close(10.0)
    with own_redis.client() as client:
        entries = [json.loads(raw) for raw in client.lrange("malearn:workflow_shapes", 0, -1)]
    assert len(entries) == len({one["run_id"] for one in entries}) == 70
    assert {len(one["steps"]) for one in entries} == {4}


def test_a_shorter_workflow_counts_once_it_has_not_gone_on_for_a_while(
    predictor: Build, record: Any
) -> None:
    p = predictor()
    for number in range(9):
        run, names = f"{number:036d}", ("plan", "answer") if number < 4 else ("plan",)
        p.estimate_workflow(discovered(run, *names), now=NOW)
        report(p, record, run, **dict.fromkeys(names, 10.0))
    begun = discovered(RUN, "plan")
    assert p.estimate_workflow(begun, now=NOW + 20.0).unseen == 1
    assert p.estimate_workflow(begun, now=NOW + 600.0).unseen == 0


def test_what_redis_refuses_of_workflows_is_sent_once_it_takes_it(
    predictor: Build, record: Any, own_redis: Any, eventually: Callable[..., None]
) -> None:
    p = predictor(own_redis.url)
    assert p.wait_until_ready()
    runs = [f"{number:036d}" for number in range(40)]

    def ask_and_report(some: list[str]) -> None:
        for run in some:
            p.estimate_workflow(workflow(run=run), now=NOW)
            report(p, record, run, read=0.5, left_toy_process=1.0, right=9.0, fuse=9.0)
            p.estimate_workflow(discovered(f"d{run[1:]}", "plan", "answer"), now=NOW)
            report(p, record, f"d{run[1:]}", plan=0.5, answer=1.0)

    with own_redis.client() as client:

        def refused() -> int:
            codes = client.info("errorstats")
            return int(codes.get("errorstat_OOM", {}).get("count", 0))

        client.config_set("maxmemory", "1")
        ask_and_report(runs[:20])
        before = refused()
        eventually(lambda: refused() > before + 60)
        ask_and_report(runs[20:])
        before = refused()
        eventually(lambda: refused() > before + 60)
        client.config_set("maxmemory", "0")
        eventually(lambda: client.llen("malearn:workflow_scores") == 40)
        eventually(lambda: len(list(client.scan_iter("malearn:workflow:*", 1000))) == 80)
        hints = client.llen("malearn:workflow_hints")
        p.close(10.0)
        shapes = [json.loads(one) for one in client.lrange("malearn:workflow_shapes", 0, -1)]
        for run in runs:
            status = workflow_status.read(client.get(f"malearn:workflow:{run}"))
            assert status is not None
            assert status.ended is not None
    assert hints > 0
    assert [one["run_id"] for one in shapes] == [f"d{run[1:]}" for run in reversed(runs)]
    assert p.stats().workflow_dropped == 0


def test_what_finds_no_room_while_redis_is_away_is_counted(
    predictor: Build, record: Any, own_redis: Any
) -> None:
    p = predictor(own_redis.url)
    assert p.wait_until_ready()
    own_redis.kill()
    for number in range(300):
        run = f"{number:036d}"
        p.estimate_workflow(discovered(run, "plan"), now=NOW)
        report(p, record, run, plan=1.0)
    assert p.stats().workflow_dropped >= 300 - 256


@pytest.mark.parametrize("killed", [True, False])
def test_what_is_unsent_when_a_predictor_is_closed_is_counted(
    predictor: Build, record: Any, own_redis: Any, killed: bool
) -> None:
    p = predictor(own_redis.url)
    assert p.wait_until_ready()
    own_redis.kill() if killed else own_redis.pause()
    for number in range(20):
        run = f"{number:036d}"
        p.estimate_workflow(workflow(run=run), now=NOW)
        report(p, record, run, read=0.5, left_toy_process=1.0, right=9.0, fuse=9.0)
    p.estimate_workflow(discovered(RUN, "plan"), now=NOW)
    report(p, record, plan=1.0)
    assert p.stats().workflow_dropped == 0
    p.close(0.3)
    # Statuses, scores and a shape; and what followed hints, where that was learnt by then.
    assert p.stats().workflow_dropped >= 21 + 20 + 1


def test_nothing_is_unsent_where_redis_takes_it_before_the_end(
    predictor: Build, record: Any, redis_url: str
) -> None:
    p = predictor(redis_url)
    p.estimate_workflow(workflow(), now=NOW)
    report(p, record, read=0.5, left_toy_process=1.0, right=9.0, fuse=9.0)
    p.estimate_workflow(discovered(f"{1:036d}", "plan"), now=NOW)
    p.close(60.0)
    assert p.stats().workflow_dropped == 0


@pytest.mark.parametrize(
    "now", ["x", datetime.now(UTC), 10**400, math.inf, -math.inf, math.nan, 1e300, [], object()]
)
def test_a_clock_that_is_none_counts_as_not_given(predictor: Build, now: Any) -> None:
    p, running = predictor(), {f"{RUN}-read": time.time() - 0.25}
    found = p.estimate_workflow(workflow(), running, now=now)
    plain = p.estimate_workflow(workflow(), running)
    assert 0.0 < found.low < found.seconds < found.high < 1e3
    assert found.seconds == pytest.approx(plain.seconds, rel=0.5)
    assert len(found.tasks) == 4
    assert p.stats().internal_errors == 1
    (guessed,) = p.estimate_workflows([(None, {}, [])], now=now)  # type: ignore[list-item]
    assert guessed.high < 1e3


@pytest.mark.parametrize("start", [None, 0, 0.0, -math.inf, math.inf, math.nan, "yesterday", []])
def test_a_running_task_of_unknown_start_counts_as_started_now(
    predictor: Build, record: Any, start: Any
) -> None:
    p = predictor()
    for number in range(3):
        report(p, record, f"{number:036d}", read=9.0, right=20.0, fuse=10.0)
    started_now = p.estimate_workflow(workflow(), {f"{RUN}-read": NOW}, now=NOW)
    found = p.estimate_workflow(workflow(), {f"{RUN}-read": start}, now=NOW)
    assert found.tasks == started_now.tasks
    assert found.seconds == started_now.seconds
    assert p.stats().internal_errors == 0


def test_a_simulation_whose_clock_begins_at_0_may_start_tasks_then(predictor: Build) -> None:
    w, running = Workflow(RUN, {"a": ("read", "gpu", [])}), {"a": 0.0}
    first = predictor().estimate_workflow(w, running, now=0.0)
    assert predictor().estimate_workflow(w, running, now=10.0).seconds < first.seconds


def test_nothing_given_counts_as_nothing_done_and_nothing_running(predictor: Build) -> None:
    p, nothing = predictor(), None
    plain = p.estimate_workflow(workflow(), now=NOW)
    assert p.estimate_workflow(workflow(), done=nothing, now=NOW) == plain  # type: ignore[arg-type]
    queue: Any = [(workflow(), None, None)]
    assert p.estimate_workflows(queue, now=NOW) == [plain]
    assert p.stats().internal_errors == 0
    assert p.estimate_workflows(nothing, now=NOW) == []  # type: ignore[arg-type]
    assert p.stats().internal_errors == 1
