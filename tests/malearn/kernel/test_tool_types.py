"""Laws of the declaration, and of the way from a function's name to its tool type."""

from __future__ import annotations

import pickle
import random
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from malearn.kernel import generic, tool_types
from malearn.kernel.errors import DeclarationError, UnknownToolType
from malearn.kernel.home import Home
from malearn.kernel.tool_types import ToolType, ToolTypes, declared, default_seconds, parse

TYPES = declared()


@pytest.mark.parametrize(
    ("function", "tool_type"),
    [
        ("task2_llm_process_qwen", "llm_process"),
        ("task3_llm_process_deepseek", "llm_process"),
        ("task3b_llm_process_extract_structure_info", "llm_process"),
        ("task5a_llm_process_batch_1", "llm_process"),
        ("task4_llm_fuse_answer", "llm_fuse2In1"),
        ("task3_llm_fuse_process_filter_and_decide", "llm_fuse2In1"),
        ("llm_fuse2In1", "llm_fuse2In1"),
        ("task4b_vlm_process", "vlm_process"),
        ("vlm_inference_v1", "vlm_process"),
        ("task1_speech_process", "speech_process"),
        ("LLM_PROCESS", "llm_process"),
        ("llm_process2", "llm_process"),
        ("vlm_process_with_llm_process", "vlm_process"),
        ("task6_prepare_llm_batches", None),
        ("xllm_process", None),
        ("llm_processor", None),
        ("llm", None),
        ("", None),
        ("_", None),
        ("____", None),
    ],
)
def test_a_function_belongs_to_the_tool_type_that_its_name_says(
    function: str, tool_type: str | None
) -> None:
    found = TYPES.for_function(function)
    assert (found.name if found else None) == tool_type


def test_all_features_of_the_contract_are_declared_in_its_order() -> None:
    assert TYPES["llm_process"].feature_names == (
        "text_length",
        "token_count",
        "batch_size",
        "reason",
    )
    assert TYPES["speech_process"].feature_names == ("duration", "audio_entropy", "audio_energy")
    assert len(TYPES["vlm_process"].features) == 13
    assert len(TYPES["llm_fuse2In1"].features) == 7


tokens = st.sampled_from(
    ["llm", "process", "fuse", "vlm", "inference", "task1", "2", "process2", "x"]
)
names = st.lists(tokens, max_size=6).map("_".join) | st.text(max_size=12)
patterns = st.lists(tokens.filter(str.isalpha), min_size=1, max_size=3).map("_".join)


@st.composite
def declarations(draw: st.DrawFn) -> list[ToolType]:
    """Tool types whose patterns do not collide."""
    drawn = draw(st.lists(patterns, min_size=1, max_size=6, unique=True))
    return [ToolType(f"type{i}", (pattern,), "gpu", ()) for i, pattern in enumerate(drawn)]


@settings(max_examples=150, deadline=None)
@given(declarations(), names, st.randoms(use_true_random=False))
def test_the_order_of_declaration_never_changes_the_answer(
    types: list[ToolType], name: str, shuffler: random.Random
) -> None:
    shuffled = list(types)
    shuffler.shuffle(shuffled)
    assert ToolTypes(types).for_function(name) == ToolTypes(shuffled).for_function(name)


@settings(max_examples=150, deadline=None)
@given(declarations())
def test_a_full_name_wins_over_every_other_pattern(types: list[ToolType]) -> None:
    every = ToolTypes(types)
    assert all(every.for_function(t.functions[0]) == t for t in types)


@settings(max_examples=150, deadline=None)
@given(declarations(), names)
def test_the_longest_pattern_found_wins(types: list[ToolType], name: str) -> None:
    found = ToolTypes(types).for_function(name)
    wrapped = f"_{'_'.join(t for t in name.lower().split('_') if t)}_"
    inside = [t for t in types if f"_{t.functions[0]}_" in wrapped]
    if inside:
        assert found is not None
        assert len(found.functions[0]) >= max(len(t.functions[0]) for t in inside)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30))
def test_no_name_raises_and_asking_twice_gives_the_same(name: str) -> None:
    assert TYPES.for_function(name) is TYPES.for_function(name)


def test_names_from_outside_do_not_fill_the_memory() -> None:
    types = declared()
    tracemalloc.start()
    for i in range(20_000):
        types.for_function(f"task{i}_" + "x" * 1000)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 3_000_000


def test_a_new_name_costs_no_more_steps_with_a_thousand_tool_types_than_with_ten() -> None:
    def once(count: int) -> int:
        types = ToolTypes(ToolType(f"t{n}", (f"tool{n}_process",), "gpu", ()) for n in range(count))
        events = []
        before = sys.getprofile()
        sys.setprofile(lambda *event: events.append(event[1]))
        found = types.for_function("task1_tool3_process_fast")
        sys.setprofile(before)
        assert found is types["t3"]
        return len(events)

    def steps(count: int) -> int:  # what the garbage collector calls meanwhile does not count
        return min(once(count) for _ in range(5))

    assert steps(1_000) == steps(10)


def test_tool_types_can_be_sent_to_another_process() -> None:
    again = pickle.loads(pickle.dumps(TYPES))
    assert again == TYPES
    assert again.for_function("task2_llm_process") == TYPES["llm_process"]
    own = pickle.loads(
        pickle.dumps(ToolTypes(TYPES.values(), ["own_models:RIDGE"], "malearn.toml"))
    )
    assert (own.families, own.file) == (("own_models:RIDGE",), "malearn.toml")


def test_a_pattern_belongs_to_one_tool_type_only() -> None:
    text = "[a]\nfunctions=['same']\n[a.features.x]\n[b]\nfunctions=['SAME']\n[b.features.x]"
    with pytest.raises(DeclarationError, match="function pattern 'SAME' already belongs to a"):
        ToolTypes(parse(text, "malearn.toml"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[a", "is not valid TOML"),
        ("a = 1", "[a] must be a table"),
        ("[a]\ncolour = 1\n[a.features.x]", "[a] has unknown keys: colour"),
        ("[a]\nfunctions = []\n[a.features.x]", "'functions' must be a list"),
        ("[a]\nfunctions = ['_']\n[a.features.x]", "'functions' must be a list"),
        ("[a]\ndefault_seconds = 0\n[a.features.x]", "must be a number of seconds above 0"),
        ("[a]\ndefault_seconds = true\n[a.features.x]", "must be a number of seconds above 0"),
        ("[a]\ndefault_seconds = inf\n[a.features.x]", "must be a number of seconds above 0"),
        ("[a]\ndefault_seconds = { tpu = 4 }\n[a.features.x]", "names the resource 'tpu'"),
        ("[a]\nretrain_after = 0\n[a.features.x]", "'retrain_after' must be a whole number"),
        ("[a]\nretrain_after = 2.5\n[a.features.x]", "'retrain_after' must be a whole number"),
        ("[a]\nretrain_after = true\n[a.features.x]", "'retrain_after' must be a whole number"),
        ("[a.features.x]\nmin = 2\nmax = 1", "feature x: 'min' is above 'max'"),
        ("[a.features.x]\nmin = '2'", "feature x: 'min' must be a finite number"),
        ("[a.features.x]\nmin = nan", "feature x: 'min' must be a finite number"),
        ("[a.features.x]\nmax = true", "feature x: 'max' must be a finite number"),
        ("[a.features.x]\nmax = 1\ndefault = 2", "'default' lies outside 'min' and 'max'"),
        ("[a.features.x]\nmonotone = 2", "'monotone' must be -1, 0 or 1"),
        ("[a.features.x]\nunits = 's'", "feature x has unknown keys: units"),
        ("[a.features]\nx = 1", "feature x must be a table"),
        ("[a.features.level]", "feature level has the name of an input that malearn computes"),
        ("[a.features.x]\n[a.features.X]", "declares X and x, which differ in case alone"),
        ("[a]\ncontext=['X']\n[a.features.x]", "declares X and x, which differ in case alone"),
    ],
)
def test_a_declaration_that_does_not_hold_together_is_refused_by_name(
    text: str, sentence: str
) -> None:
    with pytest.raises(DeclarationError) as caught:
        parse(text, "malearn.toml")
    assert str(caught.value).startswith("malearn.toml: ")
    assert sentence in str(caught.value)


def test_a_list_of_features_names_each_once() -> None:
    with pytest.raises(DeclarationError, match=r"\[a\] declares x twice"):
        tool_types.plain("a", ["x", "x"], "here")


def test_a_home_with_a_discovered_feature_of_a_reserved_name_stays_readable(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.data.mkdir()
    features = "".join(f"{name} = {{}}\n" for name in ("x", "level", "X", "Model"))
    (home.data / "other.toml").write_text(f"[other]\ngeneric = true\n[other.features]\n{features}")
    found = generic.declared(home)["other"]
    assert found.feature_names == ("x",)
    assert generic.extended(found, ["X", "median", "y"]).feature_names == ("x", "y")


def test_a_user_adds_a_tool_type_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[video_process.features]\nduration = { unit = 's', min = 0, monotone = 1 }\n")
    types = declared(file)
    found = types.for_function("task1_video_process")
    assert found is not None and found.features[0].monotone == 1
    assert set(types) == {*TYPES, "video_process"}


def test_context_is_what_is_declared_and_no_feature() -> None:
    declare = "[tool]\n{}[tool.features]\nnode = {{}}"
    (usual,) = tool_types.parse(declare.format(""), "a.toml")
    assert usual.context == ("model", "backend")  # its nodes are numbers
    (none,) = tool_types.parse(declare.format("context = []\n"), "a.toml")
    assert none.context == ()
    (own,) = tool_types.parse(declare.format('context = ["voice"]\n'), "a.toml")
    assert own.context == ("voice",)
    for wrong in ('"model"', '["no name"]', '["node"]'):
        with pytest.raises(DeclarationError, match="context"):
            tool_types.parse(declare.format(f"context = {wrong}\n"), "a.toml")


def test_the_environment_and_the_working_directory_name_such_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "malearn.toml").write_text("[a.features.x]\n")
    (tmp_path / "other.toml").write_text("[b.features.x]\n")
    assert set(declared()) == {*TYPES, "a"}
    monkeypatch.setenv("MALEARN_TOOL_TYPES", "other.toml")
    assert set(declared()) == {*TYPES, "b"}
    monkeypatch.setenv("MALEARN_TOOL_TYPES", "missing.toml")
    with pytest.raises(DeclarationError, match=r"missing.toml: cannot be read"):
        declared()


def test_an_unknown_tool_type_is_named_with_those_there_are() -> None:
    with pytest.raises(UnknownToolType, match=r"no tool type 'video'; declared are llm_fuse2In1, "):
        TYPES["video"]
    assert TYPES.get("video") is None


def test_what_is_assumed_while_nothing_is_known() -> None:
    resources = ("gpu", "CPU", "io", None, "tpu")
    assert [default_seconds(r) for r in resources] == [15, 3, 1, 15, 15]
    (own,) = parse("[a]\nresource='cpu'\ndefault_seconds=40\n[a.features.x]", "malearn.toml")
    assert [default_seconds(r, own) for r in resources] == [40] * 5
    text = "[a]\nresource='cpu'\ndefault_seconds={ gpu = 40, cpu = 90 }\n[a.features.x]"
    (some,) = parse(text, "malearn.toml")
    assert [default_seconds(r, some) for r in resources] == [40, 90, 1, 90, 90]


def test_every_shipped_tool_type_has_the_registry_name_of_its_own() -> None:
    assert {t.registered_model for t in TYPES.values()} == {f"malearn-{name}" for name in TYPES}
    assert tool_types.declared() is not TYPES
