"""The quick way of hearing predecessors agrees with the kernel's plain one, whatever they say."""

from __future__ import annotations

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from malearn.kernel.features import context_of
from malearn.kernel.reading import joining, record_reader
from malearn.kernel.records import Record
from malearn.kernel.tool_types import Feature, ToolType, ToolTypes
from malearn.serving.predecessor_cache import EMPTY, PredecessorCache

TOOL = ToolType(
    "toy", ("toy",), "gpu", (Feature("size", "", 0, 100), Feature("reason", default=0.0))
)
TYPES = ToolTypes([TOOL])

odd = st.sampled_from([None, -1, 7, 7.5, 1e9, math.nan, math.inf, "7", True, [1], 10**400])
features = st.dictionaries(st.sampled_from(["size", "reason", "leak", "model"]), odd)
said = st.none() | st.dictionaries(
    st.sampled_from(["toy", "other", "size", "reason", "node"]), features | odd, max_size=4
)
status = st.sampled_from([None, "success", " Failed ", "skipped", "完成", 7])
worker = st.fixed_dictionaries(
    {"status": status, "succ_task_feat": said, "result": st.text(max_size=9)},
    optional={"start_time": st.just(100.0), "end_time": st.sampled_from([90, 110.0, 120.0, "x"])},
)


# As long as what a model writes, and made to be mistaken for members of the record itself.
decoy = {"status": "failed", "succ_task_feat": {"toy": {"size": 99}}, "start_time": 1.0}
payload = st.sampled_from(
    [
        'It says "none", says he.\n' * 500,
        (json.dumps(decoy) + ", ") * 100,
        {**decoy, "text": "x" * 9000},
        {"text": "x" * 9000, **decoy},
        [decoy] * 100,
        "short",
    ]
)


@st.composite
def long_worker(draw: st.DrawFn) -> dict[str, object]:
    """A record with one or two long texts, its members as workers write them or in any order."""
    wrote = {
        "dag_id": draw(st.sampled_from(["q", "status"])),
        "status": draw(status),
        "message": draw(payload),
        "curr_task_feat": {"size": 3},
        "succ_task_feat": {"toy": {"size": 7}},
        "start_time": 100.0,
        "end_time": 110.0,
    }
    if draw(st.booleans()):
        wrote |= draw(worker)
    names = draw(st.just(list(wrote)) | st.permutations(list(wrote)))
    if draw(st.booleans()):
        wrote["final_answer"] = draw(payload)
        names.insert(draw(st.integers(0, len(names))), "final_answer")
    return {name: wrote[name] for name in names}


@settings(deadline=None)
@given(st.lists(worker, max_size=5))
def test_quick_and_plain_agree(wrote: list[dict[str, object]]) -> None:
    agree([json.dumps(value).encode() for value in wrote])


@settings(deadline=None, max_examples=400)
@given(
    long_worker(), st.sampled_from([(", ", ": "), (",", ":")]), st.sampled_from([0, 0, 0, 1, 40])
)
def test_long_texts_hide_nothing(
    wrote: dict[str, object], separators: tuple[str, str], lost: int
) -> None:
    raw = json.dumps(wrote, separators=separators).encode()
    agree([raw[: len(raw) - lost]])


def agree(raws_in_order: list[bytes]) -> None:
    """What was heard and what was reported tell the same as the kernel does."""
    raws = {f"task-{number}": raw for number, raw in enumerate(raws_in_order)}
    read = [record_reader.read(task_id, raw) for task_id, raw in raws.items()]
    plain = joining.serve_view("toy", TOOL, [r for r in read if isinstance(r, Record)])
    heard, reported = PredecessorCache(TYPES, 100), PredecessorCache(TYPES, 100)
    for task_id, raw in raws.items():
        heard.add_raw(task_id, raw)
    for record in read:
        if isinstance(record, Record):
            reported.add(record)
        else:
            reported.add_empty(record.task_id)
    expected = heard.schemas["toy"].vectorize(plain)
    for cache in (heard, reported):
        schema = cache.schemas["toy"]
        said = cache.get_many(list(raws))
        assert None not in said
        for _ in range(2):  # what was worked out once is kept
            found = cache.features_for("toy", schema, said)
            assert str(found.values) == str(expected.values)
            assert found.context == expected.context == context_of(TOOL, plain)


def test_a_text_between_members_that_look_like_the_records_own_hides_nothing() -> None:
    words = {"toy": {"size": 7}}
    times = {"start_time": 1.0, "end_time": 2.0, "status": "ok"}
    nested = {
        "succ_task_feat": {"status": 1, "toy": {"size": 7}},
        "message": "x" * 9000,
        "next": {"succ_task_feat": {"size": 99}},
        **times,
    }
    escaped = {
        "status": "ok",
        "succ_task_feat": words,
        "message": "x" * 9000,
        'a"succ_task_feat': {"toy": {"size": 99}},
        **times,
    }
    agree([json.dumps(nested).encode()])
    agree([json.dumps(escaped).encode()])


def test_what_was_told_in_another_order_is_forgotten() -> None:
    cache = PredecessorCache(TYPES, 100)
    raw = {"start_time": 1.0, "end_time": 2.0, "succ_task_feat": {"toy": {"size": 7}}}
    cache.add_raw("a", json.dumps(raw).encode())
    said = cache.get_many(["a"])
    before = cache.schemas["toy"]
    assert cache.features_for("toy", before, said).values == (7.0, 0.0)
    turned = ToolType("toy", ("toy",), "gpu", TOOL.features[::-1])
    cache.declare(ToolTypes([turned]))  # while somebody still holds what was said
    assert cache.features_for("toy", cache.schemas["toy"], said) is cache.schemas["toy"].nothing
    assert cache.get_many(["a"]) == [None]


def test_what_is_forgotten_must_be_asked_again() -> None:
    cache = PredecessorCache(TYPES, 100)
    cache.add_empty("a")
    assert cache.get_many(["a", "b"]) == [EMPTY, None]
    cache.clear()
    assert cache.get_many(["a"]) == [None]


def test_memory_is_bounded() -> None:
    cache = PredecessorCache(TYPES, 100)
    for number in range(10_000):
        cache.add_empty(str(number))
    assert len(cache) <= 200


def test_a_record_with_successors_without_end_is_not_kept() -> None:
    many = {f"f{number}": {"size": 1} for number in range(5000)}
    raw = json.dumps({"start_time": 1.0, "end_time": 2.0, "succ_task_feat": many}).encode()
    cache = PredecessorCache(TYPES, 100)
    cache.add_raw("a", raw)
    assert cache.get_many(["a"]) == [EMPTY]
