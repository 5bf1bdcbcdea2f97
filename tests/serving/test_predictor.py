"""A predictor always answers; these say with what."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import redis

from malearn import DAGTaskPredictor, Workflow
from malearn.kernel.errors import InputError
from malearn.kernel.tool_types import ToolType, ToolTypes, declared, parse
from malearn.serving.cache import ModelCache

RUN = "19725120-6620-445b-9f40-7ceccb20bae2"
Build = Callable[..., DAGTaskPredictor]


@pytest.fixture
def cached(predictor: Build, tool_type: ToolType, toy: Any, tmp_path: Any) -> Build:
    """Builds a predictor that finds a model, version 3, in its cache; its MLflow is away.

    Its budget is no matter of how busy this machine is.
    """

    def build(*arguments: str, artifact: bytes | None = None, **options: Any) -> DAGTaskPredictor:
        uri = "http://127.0.0.1:1"
        cache = ModelCache(tmp_path / "cache", uri, "Production")
        cache.write(tool_type.registered_model, 3, artifact or toy())
        return predictor(*arguments, tracking_uri=uri, **({"budget": 60.0} | options))

    return build


def test_without_anything_known_the_resource_decides(predictor: Build) -> None:
    p = predictor()
    assert p.predict("nobody_knows", "gpu", []) == 15.0
    assert p.predict("nobody_knows", "cpu", []) == 3.0
    assert p.predict("nobody_knows", "io", []) == 1.0
    assert p.predict("nobody_knows", "quantum", []) == 15.0
    assert p.estimate("nobody_knows", "cpu").source == "heuristic"


def test_a_function_seen_before_takes_its_recent_median(predictor: Build, record: Any) -> None:
    p = predictor()
    for number, seconds in enumerate((4.0, 6.0, 100.0)):
        p.collect_data_for_task(f"{RUN}-step{number}", "step", record(seconds, end=1e9 + number))
    answer = p.estimate("step", "gpu")
    assert (answer.source, round(answer.seconds, 6)) == ("function_history", 6.0)
    assert answer.low < answer.seconds < answer.high


def test_a_new_function_takes_its_tool_types_median(
    predictor: Build, record: Any, tool_type: ToolType
) -> None:
    p = predictor()
    p.collect_data_for_task(f"{RUN}-a_toy_process", "a_toy_process", record(8.0))
    answer = p.estimate("b_toy_process", "cpu")
    assert (answer.source, round(answer.seconds, 6)) == ("tool_history", 8.0)


def test_a_model_answers_from_features_given(cached: Build) -> None:
    answer = cached().estimate("toy_process", "cpu", features={"size": 5, "words": 2})
    assert (answer.seconds, answer.source, answer.model_version) == (17.0, "model", 3)
    assert 0.0 < answer.confidence <= 1.0


def test_what_a_predecessor_reported_needs_no_redis(cached: Build, record: Any) -> None:
    p = cached()
    said = {"toy_process": {"size": 20, "words": 3, "unheard_of": 7}}
    p.collect_data_for_task(f"{RUN}-first", "first", record(successors=said))
    assert p.predict("toy_process", "cpu", [f"{RUN}-first"]) == 33.0


def test_of_two_predecessors_the_one_that_ended_last_wins(cached: Build, record: Any) -> None:
    p = cached()
    late = record(successors={"toy_process": {"size": 20}}, end=2e9)
    early = record(successors={"toy_process": {"size": 90, "words": 4}}, end=1e9)
    p.collect_data_for_task(f"{RUN}-late", "late", late)
    p.collect_data_for_task(f"{RUN}-early", "early", early)
    assert p.predict("toy_process", "cpu", [f"{RUN}-late", f"{RUN}-early"]) == 34.0


def test_a_map_that_names_no_function_speaks_to_whoever_follows(cached: Build, record: Any) -> None:
    p = cached()
    p.collect_data_for_task(f"{RUN}-first", "first", record(successors={"size": 2, "words": 2}))
    assert p.predict("toy_process", "cpu", [f"{RUN}-first"]) == 14.0


def test_unreported_predecessors_are_read_from_redis_once(
    cached: Build, record: Any, redis_url: str, redis_client: redis.Redis
) -> None:
    p = cached(redis_url)
    p.wait_until_ready()
    redis_client.set(f"result:{RUN}-a", record(successors={"toy_process": {"size": 7}}))
    assert p.predict("toy_process", "cpu", [f"{RUN}-a", f"{RUN}-missing"]) == 18.0
    redis_client.delete(f"result:{RUN}-a")
    assert p.predict("toy_process", "cpu", [f"{RUN}-a"]) == 18.0


def test_many_at_once_answer_as_one_by_one(
    cached: Build, record: Any, redis_url: str, redis_client: redis.Redis
) -> None:
    p = cached(redis_url)
    p.wait_until_ready()
    tasks: list[tuple[str, str | None, list[str]]] = [("nobody_knows", "io", [])]
    for number in range(20):
        task_id = f"{RUN}-{number}"
        redis_client.set(f"result:{task_id}", record(successors={"toy_process": {"size": number}}))
        tasks.append(("toy_process", "cpu", [task_id]))
    many = p.estimate_many(tasks)
    assert [answer.seconds for answer in many] == [1.0, *(11.0 + n for n in range(20))]
    assert many == [p.estimate(*task) for task in tasks]
    assert p.estimate_many([]) == []


STRANGE = (np.arange(3), np.timedelta64(5, "D"), Decimal("NaN"))


def test_a_value_that_nobody_would_believe_is_missing(cached: Build) -> None:
    p = cached()
    for odd in (-1, 1e7, math.nan, math.inf, 10**400, "12", None, [1], {"a": 1}, *STRANGE):
        for words in (2, np.int64(2), np.float32(2)):
            given = {"size": odd, "words": words}
            assert p.estimate("toy_process", "cpu", features=given).seconds == 12.0, odd
        p.estimate("toy_process", "cpu", features={"size": odd})
        p.estimate("toy_process", "cpu", features={"words": 2, "note": odd})
    assert p.stats().internal_errors == 0


def test_a_task_nobody_spoke_of_is_told_without_defaults(cached: Build) -> None:
    assert cached().predict("toy_process", "cpu", []) == 10.0


@pytest.mark.parametrize(
    "question",
    [
        (None, None, None),
        ("toy_process", "cpu", None),
        ("toy_process", "cpu", [None, 3]),
        ("toy_process", 7, ["", "\ud800", "x" * 10_000]),
        (b"bytes", "cpu", "not-a-list"),
        ("toy_process", "cpu", {f"{RUN}-a"}),
    ],
)
def test_nonsense_is_answered_too(cached: Build, redis_url: str, question: Any) -> None:
    p = cached(redis_url)
    p.wait_until_ready()
    assert 0.0 < p.predict(*question) < math.inf
    assert all(0.0 < answer.seconds < math.inf for answer in p.estimate_many([question]))


@pytest.mark.parametrize("raw", [b"\xff\xfe", "{", "[]", "7", '{"start_time": "x"}', {"a": 1}, 5])
def test_nonsense_may_be_reported_too(predictor: Build, raw: Any) -> None:
    p = predictor()
    p.collect_data_for_task(f"{RUN}-toy_process", "toy_process", raw)
    p.collect_data_for_task(None, None, raw)  # type: ignore[arg-type]
    assert p.predict("toy_process", "cpu", [f"{RUN}-toy_process"]) > 0.0


def test_a_failed_task_teaches_no_history(predictor: Build, record: Any) -> None:
    p = predictor()
    p.collect_data_for_task(f"{RUN}-step", "step", record(500.0, status="failed"))
    assert p.estimate("step", "io").source == "heuristic"
    assert p.stats().rejected == {"soft_failed": 1}


def test_the_same_report_twice_teaches_once(predictor: Build, record: Any) -> None:
    p = predictor()
    for _ in range(3):
        p.collect_data_for_task(f"{RUN}-step", "step", record(500.0, end=1e9))
    p.collect_data_for_task(f"{RUN}-other", "step", record(5.0, end=1e9 + 1))
    assert p.predict("step", "gpu", []) == pytest.approx(50.0)  # the median of two, in log-seconds


def test_the_models_own_memories_warm_a_scheduler_that_saw_nothing(
    cached: Build, toy: Any, tool_type: ToolType
) -> None:
    artifact = toy(recent=(("a_toy_process", 100.0, 142.0, (1.0, None), ()),))
    p = cached(artifact=artifact)
    known = p._parts.history.look_up("a_toy_process", tool_type.name, (), ())
    assert (known.source, known.seconds) == ("function_history", pytest.approx(42.0))


def test_function_names_are_a_view_of_the_declaration(predictor: Build) -> None:
    p = predictor(tool_types=declared())
    names = p.func_name_to_tool_type
    assert names["llm_process"] == "llm_process"
    names["summarise"] = "llm_process"
    assert p.tool_type_of("task1_summarise_page").name == "llm_process"
    names["draw"] = "image_generation"
    p.collect_data_for_task(f"{RUN}-draw", "draw_cat", _ran(9.0))
    assert p.estimate("draw_dog", "gpu").source == "tool_history"
    del names["summarise"]
    assert p.tool_type_of("task1_summarise_page") is None


def test_answers_are_counted_with_their_reasons(cached: Build) -> None:
    p = cached()
    p.estimate("toy_process", "cpu", features={"size": 1})
    p.estimate("nobody_knows", "io")
    p.estimate("toy_process", "cpu", [f"{RUN}-unseen"])
    stats = p.stats()
    assert stats.calls == 3
    assert stats.sources == {"model": 1, "heuristic": 2}
    assert stats.reasons["unmapped_function"] == 1
    assert sum(stats.latency.values()) == 3
    assert stats.models and stats.internal_errors == 0


def test_threads_share_a_predictor(cached: Build, record: Any) -> None:
    p = cached()
    wrong: list[float] = []

    def work(thread: int) -> None:
        for number in range(300):
            task = f"{RUN}-{thread}-{number}"
            said = {"toy_process": {"size": number}}
            p.collect_data_for_task(task, "first", record(successors=said, end=1e9 + number))
            answer = p.predict("toy_process", "cpu", [task])
            if answer != 11.0 + number:
                wrong.append(answer)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert p.stats().internal_errors == 0


def test_a_closed_predictor_still_answers(cached: Build) -> None:
    with cached() as p:
        pass
    p.close()
    assert p.estimate("toy_process", "cpu", features={"size": 1}).source == "model"


def _ran(seconds: float) -> str:
    return json.dumps({"start_time": 1e9, "end_time": 1e9 + seconds})


def test_a_tool_type_says_what_to_assume_while_nothing_is_known(predictor: Build) -> None:
    (own,) = parse("[own]\ndefault_seconds={ gpu = 40 }\n[own.features.x]", "malearn.toml")
    p = predictor(tool_types=ToolTypes([own]))
    assert [p.predict("own", resource, []) for resource in ("gpu", "cpu")] == [40.0, 3.0]
    assert p.predict("another", "gpu", []) == 15.0


def test_an_empty_declaration_leaves_histories_and_heuristics(predictor: Build) -> None:
    p = predictor(tool_types=ToolTypes([]))
    p.collect_data_for_task(f"{RUN}-f", "f", _ran(4.0))
    assert p.predict("f", "gpu", []) == pytest.approx(4.0)


@pytest.mark.parametrize("given", [0, -1.0, float("nan"), "10"])
def test_an_interval_that_would_flood_the_registry_is_refused(predictor: Build, given: Any) -> None:
    with pytest.raises(
        InputError, match=r"^refresh_interval: must be a number of seconds of 0.01 or more"
    ):
        predictor(refresh_interval=given)


def test_a_registry_may_be_asked_once_and_never_again(predictor: Build) -> None:
    p = predictor(refresh_interval=float("inf"))
    assert p.wait_until_ready(60.0)
    assert not p.stats().internal_errors


@pytest.mark.parametrize("given", [-1.0, float("nan"), "x", None])
def test_a_budget_that_is_no_time_is_refused(predictor: Build, given: Any) -> None:
    with pytest.raises(InputError, match=r"^budget: must be a number of seconds from 0 to"):
        predictor(budget=given)


@pytest.mark.parametrize("given", [{"model": "linear"}, {"retrain_after": 5}])
def test_what_only_a_model_dir_gives_a_meaning_is_refused_without_one(
    predictor: Build, given: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(given))}: .* give a model_dir, too"):
        predictor(**given)


def test_malformed_entries_of_a_queue_cost_the_others_nothing(predictor: Build) -> None:
    p: Any = predictor()
    odd: list[Any] = [None, (), 3, "step", ("step",), ("step", "io", None)]
    answers = p.estimate_many([*odd, ("step", "cpu", [])])
    assert [answer.seconds for answer in answers[:5]] == [15.0] * 5
    assert answers[-1].seconds == 3.0
    workflow = Workflow("run", {"a": ("step", "cpu", [])})
    found = p.estimate_workflows([workflow, None, (), (workflow,), (workflow, None, None)])
    assert [one.seconds for one in found] == [3.0, 15.0, 15.0, 3.0, 3.0]
    assert p.estimate_workflows([(workflow, {}, ())])[0].seconds == 3.0
