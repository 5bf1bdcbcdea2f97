"""The suite is the declaration, no more and no less, and survives being written down."""

from __future__ import annotations

import json

import pytest

from malearn.expectations import contract
from malearn.kernel import errors, features, tool_types
from malearn.kernel.tool_types import Feature, ToolType

every_tool_type = pytest.mark.parametrize(
    "tool_type", tool_types.declared().values(), ids=lambda tool_type: tool_type.name
)


def of(*names: str) -> ToolType:
    return ToolType("made_up", ("made_up",), "cpu", tuple(Feature(name) for name in names))


def rules(tool_type: ToolType) -> list[tuple[str, str]]:
    return [(rule.feature, rule.other) for rule in contract.ceilings(tool_type)]


@every_tool_type
def test_every_feature_has_its_bounds_in_both_views(tool_type: ToolType) -> None:
    suite = contract.suite(tool_type)
    bounds = {
        one.column: (one.min_value, one.max_value)
        for one in suite.expectations
        if one.expectation_type == "expect_column_values_to_be_between"
    }
    for view in contract.VIEWS:
        for feature in tool_type.features:
            low, high = bounds[f"{view}_{feature.name}"]
            assert (low, high) == features.limits(feature)


@every_tool_type
def test_a_suite_read_back_from_json_is_the_same(tool_type: ToolType) -> None:
    text = contract.as_json(contract.suite(tool_type))
    assert contract.as_json(contract.from_json(text)) == text


@every_tool_type
def test_every_expectation_says_in_words_what_it_expects(tool_type: ToolType) -> None:
    said = [
        (one.meta["column"], one.meta["phrase"]) for one in contract.suite(tool_type).expectations
    ]
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "a", "expectations": 3}', "null"])
def test_what_is_no_suite_is_refused(text: str) -> None:
    with pytest.raises(errors.InputError, match="suite: was not written by as_json"):
        contract.from_json(text)


def test_an_expectation_that_is_not_understood_is_not_dropped_silently() -> None:
    written = json.loads(contract.as_json(contract.suite(of("size"))))
    written["expectations"][0]["type"] = "expect_the_unexpected"
    with pytest.raises(errors.InputError):
        contract.from_json(json.dumps(written))


def test_bounds_are_named_with_their_unit() -> None:
    said = {
        Feature("a", "s", 0, 86_400).bounds,
        Feature("a", "", 0.01).bounds,
        Feature("a", "", maximum=1e20).bounds,
        Feature("a", "tokens").bounds,
    }
    assert said == {
        "between 0 and 86,400 s",
        "at least 0.01",
        "at most 1e+20",
        "a finite number of tokens",
    }


def test_tokens_are_bounded_by_the_length_of_their_own_text() -> None:
    assert rules(of("text_length", "token_count", "text1_length", "text1_token_count")) == [
        ("token_count", "text_length"),
        ("text1_token_count", "text1_length"),
    ]


def test_tokens_without_a_length_or_beside_pictures_are_not() -> None:
    assert rules(of("token_count", "text2_length")) == []
    assert rules(of("prompt_token_count", "prompt_length", "image_width")) == []


def test_a_least_a_mean_and_a_greatest_stay_in_order() -> None:
    assert set(rules(of("max_page", "page_mean", "min_page", "min", "max_row"))) == {
        ("min_page", "page_mean"),
        ("min_page", "max_page"),
        ("page_mean", "max_page"),
    }
