"""Laws of the way from a record to an execution: nothing raises, nothing is lost."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malearn.kernel.reading import joining, record_reader, stream_entries
from malearn.kernel.records import Execution, Record, Rejected, RejectReason
from malearn.kernel.tool_types import ToolTypes, declared

TYPES = declared()
RUN = "19725120-6620-445b-9f40-7ceccb20bae2"
OTHER_RUN = "29725120-6620-445b-9f40-7ceccb20bae2"
LLM = "task2_llm_process_qwen"
FEATURES = {"text_length": 120, "token_count": 30, "reason": 1}


def task_id(function: str, run: str = RUN) -> str:
    return f"{run}-{function}"


def value(**changes: object) -> dict[str, object]:
    """A record that teaches, but for `changes`; a change to None leaves the key out."""
    given = {"start_time": 100.0, "end_time": 151.5, "curr_task_feat": FEATURES, **changes}
    return {name: v for name, v in given.items() if v is not None}


def read(function: str = LLM, **changes: object) -> Record | Rejected:
    return record_reader.read(task_id(function), json.dumps(value(**changes)))


def one(*taken: Record | Rejected) -> Execution | Rejected:
    """The last outcome of joining `taken`."""
    executions, rejected = joining.join(taken, TYPES)
    return (executions or rejected)[-1]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", RejectReason.INVALID_JSON),
        (b'{"start_time": 1', RejectReason.INVALID_JSON),
        (b"\xff\xfe\x00", RejectReason.INVALID_JSON),
        (b"[" * 100_000, RejectReason.INVALID_JSON),
        (b'{"start_time": 1' + b"0" * 5_000 + b"}", RejectReason.INVALID_JSON),
        (b"[1, 2]", RejectReason.NOT_AN_OBJECT),
        (b"null", RejectReason.NOT_AN_OBJECT),
        (b'"text"', RejectReason.NOT_AN_OBJECT),
        (b"NaN", RejectReason.NOT_AN_OBJECT),
        (b"{}", RejectReason.NO_TIMES),
        (b'{"start_time": 1.0}', RejectReason.NO_TIMES),
        (b'{"start_time": null, "end_time": 2}', RejectReason.NO_TIMES),
        (b'{"start_time": "1.0", "end_time": "2.0"}', RejectReason.BAD_TIMES),
        (b'{"start_time": NaN, "end_time": 2}', RejectReason.BAD_TIMES),
        (b'{"start_time": 1, "end_time": Infinity}', RejectReason.BAD_TIMES),
        (b'{"start_time": 1, "end_time": 1e999}', RejectReason.BAD_TIMES),
        (b'{"start_time": 1, "end_time": 1' + b"0" * 400 + b"}", RejectReason.BAD_TIMES),
        (b'{"start_time": false, "end_time": true}', RejectReason.BAD_TIMES),
        (b'{"start_time": 2, "end_time": 2}', RejectReason.BAD_TIMES),
        (b'{"start_time": 3, "end_time": 2}', RejectReason.BAD_TIMES),
        (b'{"start_time": 0, "end_time": 1e9}', RejectReason.BAD_TIMES),
        (b'{"start_time": 0, "end_time": 1e12}', RejectReason.FUTURE_TIMES),
        (b'{"start_time": 1, "end_time": 2, "status": " Skipped "}', RejectReason.SKIPPED),
        (b'{"start_time": 1, "end_time": 2, "status": "failed"}', RejectReason.SOFT_FAILED),
        (b'{"start_time": 1, "end_time": 2}', RejectReason.NO_FEATURES),
        (b'{"start_time": 1, "end_time": 2, "curr_task_feat": null}', RejectReason.NO_FEATURES),
        (b'{"start_time": 1, "end_time": 2, "curr_task_feat": {"x": 1}}', RejectReason.NO_FEATURES),
        (
            b'{"start_time": 1, "end_time": 2, "curr_task_feat": {"text_length": "9"}}',
            RejectReason.INVALID_FEATURE,
        ),
        (
            b'{"start_time": 1, "end_time": 2, "curr_task_feat": {"text_length": NaN}}',
            RejectReason.INVALID_FEATURE,
        ),
    ],
)
def test_a_record_that_does_not_teach_is_rejected_by_its_reason(
    raw: bytes, reason: RejectReason
) -> None:
    outcome = one(record_reader.read(task_id(LLM), raw))
    assert isinstance(outcome, Rejected)
    assert outcome.reason is reason
    # Of what failed, and of nothing else, it is known how long a workflow waited for it.
    failed = reason in (RejectReason.SKIPPED, RejectReason.SOFT_FAILED)
    assert outcome.times == ((1.0, 2.0) if failed else None)
    assert (replace(outcome, start=1.0, end=2.0).times is not None) == failed
    assert outcome.detail


def test_a_task_of_no_tool_type_is_unmapped_or_has_no_features() -> None:
    unmapped = one(read("task2_read_file", curr_task_feat={"num_images": 20}))
    silent = one(read("task2_read_file", curr_task_feat=None))
    assert isinstance(unmapped, Rejected) and unmapped.reason is RejectReason.UNMAPPED_FUNCTION
    assert isinstance(silent, Rejected) and silent.reason is RejectReason.NO_FEATURES


def test_statuses_of_any_language_teach() -> None:
    for status in ("success", "finished", "已完成", "failed to find one, so 3 others", 7, None):
        assert isinstance(one(read(status=status)), Execution), status


def test_features_stand_in_declared_order_with_defaults_filled_in() -> None:
    execution = one(read())
    assert isinstance(execution, Execution)
    assert execution.ran == (120.0, 30.0, 1.0, 1.0)
    assert (execution.tool_type, execution.seconds) == ("llm_process", 51.5)


def test_what_is_known_only_after_the_run_is_left_out() -> None:
    execution = one(read(curr_task_feat={**FEATURES, "output_tokens": 900}))
    assert isinstance(execution, Execution)
    assert execution.ran == (120.0, 30.0, 1.0, 1.0)


def predecessor(said: object, end: float = 90.0, run: str = RUN, name: str = "a") -> Any:
    raw = value(start_time=80.0, end_time=end, curr_task_feat=None, succ_task_feat=said)
    return record_reader.read(task_id(f"task1_prepare_{name}", run), json.dumps(raw))


def serve(*predecessors: Any) -> tuple[float, ...]:
    executions, _ = joining.join([*predecessors, read()], TYPES)
    return executions[0].serve


def test_the_serve_view_is_what_a_predecessor_said_of_the_function() -> None:
    said = {LLM: {"text_length": 7, "reason": 0}, "task9": {"text_length": 1}}
    assert serve(predecessor(said))[0] == 7.0
    assert serve(predecessor(said))[3] == 0.0


def test_predecessors_supply_parts_and_the_last_to_end_wins() -> None:
    first = predecessor({LLM: {"text_length": 1, "token_count": 2}}, end=85.0)
    last = predecessor({LLM: {"text_length": 3}}, end=95.0, name="b")
    assert serve(first, last)[:2] == serve(last, first)[:2] == (3.0, 2.0)


def test_a_flat_successor_map_speaks_to_any_successor() -> None:
    assert serve(predecessor({"text_length": 5}))[0] == 5.0


def test_a_successor_map_that_names_the_function_outranks_the_flat_part_of_it() -> None:
    assert serve(predecessor({"text_length": 5, LLM: {"text_length": 6}}))[0] == 6.0


def test_who_ended_after_a_task_says_nothing_of_it() -> None:
    assert math.isnan(serve(predecessor({LLM: {"text_length": 5}}, end=152.0))[0])


def test_what_a_start_node_reports_was_known_before_it_ran() -> None:
    assert serve() == (120.0, 30.0, 1.0, 1.0)
    of_another_run = predecessor({LLM: {"text_length": 5}}, run=OTHER_RUN)
    assert serve(of_another_run) == (120.0, 30.0, 1.0, 1.0)
    silent = predecessor(None)  # what such a task hears is a secret between the two
    assert all(math.isnan(number) for number in serve(silent))


def test_context_travels_beside_the_features_in_both_views() -> None:
    said = {LLM: {"text_length": 5, "model": " qwen-7b ", "node": 3, "backend": ["no", "text"]}}
    ran = read(curr_task_feat={**FEATURES, "backend": "vllm"})
    executions, _ = joining.join([predecessor(said), ran], TYPES)
    (execution,) = executions
    assert execution.serve_context == ("qwen-7b", "", "3")
    assert execution.ran_context == ("", "vllm", "")
    assert len(execution.serve) == len(FEATURES) + 1
    kept = stream_entries.encode(execution, TYPES["llm_process"])
    assert stream_entries.read(kept, TYPES) == execution


def test_of_an_unknown_context_nothing_is_kept() -> None:
    execution = one(read(curr_task_feat={**FEATURES, "model": "", "node": None}))
    assert isinstance(execution, Execution)
    assert (execution.serve_context, execution.ran_context) == ((), ())


def test_of_a_task_written_twice_the_later_end_counts() -> None:
    early, late = read(end_time=150.0), read(end_time=160.0)
    for order in ((early, late), (late, early)):
        executions, rejected = joining.join(order, TYPES)
        assert [e.end for e in executions] == [160.0]
        assert [r.reason for r in rejected] == [RejectReason.DUPLICATE]


def test_payload_text_is_never_kept() -> None:
    raw = json.dumps(value(start_time=None, final_answer="secret " * 100))
    outcome = record_reader.read(task_id(LLM), raw)
    assert isinstance(outcome, Rejected)
    assert "secret" not in outcome.record
    assert "text_length" in outcome.record


@pytest.mark.parametrize("features", [{"text_length": "9" * 10**6}, {"text_length": [10**4000]}])
def test_what_is_kept_of_a_record_is_bounded(features: dict[str, object]) -> None:
    outcome = one(record_reader.read(task_id(LLM), value(curr_task_feat=features)))
    assert isinstance(outcome, Rejected)
    assert 0 < len(outcome.record) <= 4096
    assert len(outcome.detail) < 300


def test_half_a_surrogate_pair_becomes_text_that_can_be_stored() -> None:
    outcome = record_reader.read(task_id("llm_process_\ud800"), '{"dag_id": "\\ud800"}')
    assert isinstance(outcome, Rejected)
    for text in (outcome.task_id, outcome.function, outcome.record, outcome.detail):
        text.encode("utf-8")


def test_a_run_of_many_tasks_is_joined_in_linear_time() -> None:
    raw = value(curr_task_feat=FEATURES, succ_task_feat={"nobody": {"x": 1}})
    taken = [record_reader.read(task_id(f"f{i}_llm_process"), raw) for i in range(20_000)]
    executions, _ = joining.join(taken, TYPES)
    assert len(executions) == 20_000


ENTRY = Execution(
    task_id(LLM),
    LLM,
    "llm_process",
    100.0,
    151.5,
    (1.0, 2.0, 1.0, 0.0),
    (math.nan,) * 4,
    "q",
    9.5,
    3,
)


def test_an_entry_of_the_stream_reads_back_as_what_was_written() -> None:
    entry = stream_entries.encode(ENTRY, TYPES["llm_process"])
    assert repr(stream_entries.read(entry, TYPES)) == repr(ENTRY)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"start": "soon"}, RejectReason.BAD_TIMES),
        ({"end": None}, RejectReason.NO_TIMES),
        ({"end": 1.0}, RejectReason.BAD_TIMES),
        ({"status": "failed"}, RejectReason.SOFT_FAILED),
        ({"serve": {}, "ran": None}, RejectReason.NO_FEATURES),
        ({"serve": {"text_length": "x"}}, RejectReason.INVALID_FEATURE),
        ({"tool_type": None, "function": "read_file"}, RejectReason.UNMAPPED_FUNCTION),
        ({"task_id": None}, RejectReason.NOT_AN_OBJECT),
        (
            {"rejected": {"reason": "skipped", "detail": "status says skipped"}},
            RejectReason.SKIPPED,
        ),
        ({"rejected": {"reason": ["skipped"]}, "start": None}, RejectReason.NO_TIMES),
    ],
)
def test_an_entry_that_does_not_teach_is_rejected_by_the_same_reasons(
    changes: dict[str, object], reason: RejectReason
) -> None:
    entry = (
        json.loads(stream_entries.encode(ENTRY, TYPES["llm_process"])) | {"ran": FEATURES} | changes
    )
    outcome = stream_entries.read(json.dumps(entry), TYPES, "entry 1-0")
    assert isinstance(outcome, Rejected)
    assert outcome.reason is reason


# Anything that Python can hold and JSON can say, and a good deal that contracts do not.
texts = st.text(max_size=8) | st.sampled_from([LLM, "failed", "skipped", "\ud800", "1e5", ""])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just(10**400)
anything = st.recursive(
    leaves, lambda x: st.lists(x, max_size=3) | st.dictionaries(texts, x, max_size=3), max_leaves=8
)
times = st.floats(0, 1e9) | anything
feature_maps = (
    st.dictionaries(
        st.sampled_from(["text_length", "token_count", "batch_size", "reason", "x"]), leaves
    )
    | anything
)
hostile = st.fixed_dictionaries(
    {},
    optional={
        "start_time": times,
        "end_time": times,
        "status": anything,
        "dag_id": anything,
        "curr_task_feat": feature_maps,
        "succ_task_feat": st.dictionaries(st.sampled_from([LLM, ""]), feature_maps) | feature_maps,
        "message": anything,
    },
)


def text_of(v: object) -> str:
    return json.dumps(v, default=str) if not _has_huge(v) else "{" + "9" * 5000


def _has_huge(v: object) -> bool:
    try:
        json.dumps(v)
    except ValueError:
        return True
    return False


functions = st.sampled_from([LLM, "task1_speech_process", "read_file", ""]) | texts
raws = hostile | hostile.map(text_of) | st.binary(max_size=40) | anything | anything.map(text_of)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(functions, raws, st.none() | functions), max_size=6),
)
def test_whatever_comes_in_has_exactly_one_outcome(taken: list[Any]) -> None:
    """No value raises; outcomes are as many as records; every text can be stored."""
    outcomes = [record_reader.read(task_id(name), raw, function) for name, raw, function in taken]
    executions, rejected = joining.join(outcomes, TYPES)
    assert len(executions) + len(rejected) == len(taken)
    came = Counter(outcome.task_id for outcome in outcomes)
    assert Counter(o.task_id for o in (*executions, *rejected)) == came
    for r in rejected:
        assert isinstance(r.reason, RejectReason)
        assert len(r.record) <= 4096
        "".join((r.task_id, r.function, r.detail, r.record)).encode("utf-8")
    for e in executions:
        assert math.isfinite(e.start) and math.isfinite(e.end) and e.end > e.start
        assert len(e.serve) == len(e.ran) == len(TYPES[e.tool_type].features)
        assert not any(math.isinf(number) for number in (*e.serve, *e.ran))


@settings(max_examples=150, deadline=None)
@given(hostile.map(text_of) | st.binary(max_size=60) | anything.map(text_of) | anything)
def test_no_entry_of_the_stream_raises(raw: Any) -> None:
    outcome = stream_entries.read(raw, TYPES)
    assert isinstance(outcome, Execution | Rejected)


@settings(max_examples=100, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 2**6 - 1))
def test_the_order_of_records_changes_no_view(order: list[int], flat: int) -> None:
    said = [
        predecessor(
            {"text_length": i} if flat >> i & 1 else {LLM: {"text_length": i}},
            end=81.0 + i,
            name=str(i),
        )
        for i in range(6)
    ]
    assert serve(*(said[i] for i in order)) == serve(*said)


def test_a_type_that_a_user_declares_is_read_like_any_other() -> None:
    from malearn.kernel.tool_types import parse

    (video,) = parse("[video_process.features]\nframe_count = { min = 1 }", "malearn.toml")
    types = ToolTypes([*TYPES.values(), video])
    taken = record_reader.read(
        task_id("task1_video_process"), value(curr_task_feat={"frame_count": 24})
    )
    executions, _ = joining.join([taken], types)
    assert executions[0].ran == (24.0,)
