"""The quick way from bytes to rows leads where the long way does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import hostile, logs
from malearn.data.batch import Batch
from malearn.kernel import records
from malearn.kernel.reading import record_reader, stream_entries
from malearn.kernel.records import Execution, Rejected
from malearn.kernel.tool_types import declared, parse

TYPES = declared()
TASKS = ("llm_process", "task2_llm_process", "vlm_process", "speech_process", "read_file", "")


def quickly(tasks: Iterable[tuple[str, bytes]]) -> Batch:
    batch = Batch(TYPES)
    for task_id, raw in tasks:
        batch.add(task_id, raw)
    batch.close()
    return batch


def slowly(tasks: Iterable[tuple[str, bytes]]) -> Batch:
    return Batch.from_outcomes([record_reader.read(task_id, raw) for task_id, raw in tasks], TYPES)


def rows(batch: Batch) -> list[str]:
    """Its executions, where NaN equals NaN."""
    return sorted(repr(e) for found in batch.rows.values() for e in found)


def verdicts(batch: Batch) -> list[tuple[str, str, str]]:
    return sorted((r.task_id, r.reason, r.detail) for r in batch.rejected)


def check_both_ways(tasks: Sequence[tuple[str, bytes]]) -> None:
    quick, slow = quickly(tasks), slowly(tasks)
    assert quick.records == slow.records == len(tasks)
    assert rows(quick) == rows(slow)
    assert verdicts(quick) == verdicts(slow)


numbers = st.one_of(
    st.integers(-5, 5),
    st.floats(0, 9, allow_subnormal=False),
    st.none(),
    st.booleans(),
    st.just(float("nan")),
    st.text(max_size=2),
    st.just(10**30),
)
names = st.sampled_from(["text_length", "token_count", "duration", "model", "node", "other"])
features = st.none() | st.dictionaries(names, numbers, max_size=4)
said = st.dictionaries(st.sampled_from(TASKS) | names, features | numbers, max_size=3)
task = st.fixed_dictionaries(
    {
        "start_time": st.sampled_from([0.25, 1.0, 2.5]),
        "end_time": st.sampled_from([0.5, 2.0, 3, 4.5]),
    },
    optional={
        "status": st.sampled_from(["ok", "failed", " Skipped", 3, None]),
        "dag_id": st.sampled_from(["q", 1, None]),
        "curr_task_feat": features,
        "succ_task_feat": st.none() | said,
        "final_answer": st.text(max_size=3),
    },
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(TASKS), task), max_size=6), st.integers(0, 1))
def test_both_ways_lead_to_the_same_rows_and_rejections(
    drawn: list[tuple[str, dict[str, Any]]], runs: int
) -> None:
    tasks = [
        (f"{UUID(int=n * runs // 3)}-{function}", json.dumps(value).encode())
        for n, (function, value) in enumerate(drawn)
    ]
    check_both_ways(tasks)


def test_both_ways_agree_on_an_ordinary_log() -> None:
    tasks = list(logs.tasks(2_000))
    check_both_ways(tasks)
    assert sum(map(len, quickly(tasks).rows.values())) > 1_000


def test_both_ways_agree_on_hostile_records() -> None:
    named = sorted(hostile.results(2_000))  # run by run
    tasks = [(key.decode("utf-8", "backslashreplace"), raw) for key, raw in named]
    check_both_ways(tasks)


def test_entries_read_alike_both_ways() -> None:
    quick = Batch(TYPES)
    raws = list(hostile.entries(3_000))
    for raw in raws:
        quick.add_entry(raw, "here")
    slow = Batch.from_outcomes([stream_entries.read(raw, TYPES, "here") for raw in raws], TYPES)
    assert rows(quick) == rows(slow)
    assert verdicts(quick) == verdicts(slow)
    assert len(rows(quick)) > 300


def test_what_is_written_for_an_execution_is_read_quickly_as_it_was() -> None:
    llm = TYPES["llm_process"]
    nan = float("nan")
    given = Execution("t-1", "f", "llm_process", 1.0, 2.0, (nan,) * 4, (1.0, nan, 1.0, 0.0), "q")
    batch = Batch(TYPES)
    batch.add_entry(stream_entries.encode(given, llm), "here")
    assert rows(batch) == [repr(given)]


def test_what_is_kept_of_a_task_that_nobody_claims_can_be_read_again() -> None:
    raw = b'{"start_time": 1, "end_time": 2, "curr_task_feat": {"a": "x"}, "message": "no"}'
    (rejected,) = quickly([(f"{UUID(int=1)}-read_file", raw)]).rejected
    assert json.loads(rejected.record) == {
        "start_time": 1,
        "end_time": 2,
        "curr_task_feat": {"a": "x"},
    }


@pytest.mark.parametrize(
    "outcome", [Rejected("t", "f", records.RejectReason.SKIPPED, "", "x" * 50)]
)
def test_a_batch_weighs_what_it_keeps_of_the_rejected(outcome: Rejected) -> None:
    assert Batch.from_outcomes([outcome] * 3, TYPES).weight == 153


@pytest.mark.parametrize("odd", [False, True])
def test_a_record_is_claimed_by_the_model_and_backend_that_it_reports(odd: bool) -> None:
    text = '[local]\nmodels = ["qwen*"]\nbackends = ["vllm*"]\nfeatures.pages = {}\n'
    batch = Batch(TYPES.with_added(parse(text, "a test")[0]))
    words = {"model": "Qwen3-8B", "pages": 3}
    for number, backend in enumerate(("vllm-0.11", "transformers", None)):
        features: dict[str, Any] = words | ({"backend": backend} if backend else {})
        if odd:  # a value that the quick way does not take
            features["note"] = ["x"]
        said = {"start_time": 1.0e9, "end_time": 1.0e9 + 2, "curr_task_feat": features}
        batch.add(f"{UUID(int=number)}-answer_{number}", json.dumps(said).encode())
    batch.close()
    (found,) = batch.rows["local"]
    assert (found.function, found.context[:2]) == ("answer_0", ("Qwen3-8B", "vllm-0.11"))
    assert found.ran == (3.0,)
    assert {r.reason for r in batch.rejected} == {"unmapped_function"}
    assert len(batch.rejected) == 2
