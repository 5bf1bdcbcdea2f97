"""The report shows what failed, needs nothing but itself, and believes no value."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from malearn.expectations import (
    Findings,
    Result,
    Tally,
    ValidationResult,
    html_report,
    markdown_report,
    reasons,
    report,
)
from malearn.kernel.records import Execution, Rejected, RejectReason

NOON = datetime(2025, 8, 12, 12, 0, tzinfo=UTC)
HOSTILE = "</td><script src=//x>alert(1)</script>|\n| [a](http://b) `c` <img onerror=x> \ud800 é"


def validated(name: str = "llm_process", good: int = 9, bad: int = 1) -> ValidationResult:
    accepted = [Execution(f"{n}", "f", name, 0.0, 1.0, (), ()) for n in range(good)]
    rejected = [
        Rejected(f"bad {n}", "f", RejectReason.INVALID_FEATURE, "d", "{}") for n in range(bad)
    ]
    total = good + bad
    results = (
        Result("serve_tokens", "between 0 and 5 tokens", total, bad, ("-1", "-2") if bad else ()),
        Result("ran_tokens", "between 0 and 5 tokens", total, 0),
    )
    return ValidationResult(name, accepted, rejected, results)


def hostile() -> ValidationResult:
    return ValidationResult(HOSTILE, [], [], (Result(HOSTILE, HOSTILE, 2, 1, (HOSTILE, "'\"&")),))


class Page(HTMLParser):
    """Tags that were opened and not closed, every attribute, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: set[str] = set()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes |= {name for name, _ in attrs}
        self.tags.add(tag)
        if tag not in {"meta"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def found(*batches: ValidationResult | Tally, **more: object) -> Findings:
    given = {"records": 10, "rejected": {}, "time": NOON} | more
    return Findings(batches, **given)  # type: ignore[arg-type]


def html(*batches: ValidationResult, **more: object) -> str:
    return html_report(found(*batches, **more))


def markdown(*batches: ValidationResult, **more: object) -> str:
    return markdown_report(found(*batches, **more))


def test_the_page_shows_what_failed_how_often_and_for_example() -> None:
    text = Page(html(validated())).text
    for said in (
        "tokens is between 0 and 5 tokens (as its predecessors reported)",
        "10.0 %",
        "-1",
        "-2",
        "12 August 2025",
    ):
        assert said in text
    assert "9 accepted · 1 quarantined" in text
    assert "1 expectation passed for every row" in text


def test_the_page_shows_dataset_versions_refusals_and_reasons() -> None:
    page = html(
        validated(),
        records=400,
        rejected={RejectReason.SOFT_FAILED: 217, "made_up": 3, RejectReason.SKIPPED: 0},
        versions={"llm_process": 41},
        refused=["30 of 40 rows break their contract."],
    )
    text = Page(page).text
    assert "dataset version 41" in text
    assert "30 of 40 rows break their contract." in text
    assert "the task says that it failed217" in text
    assert "made_up" in text
    assert "skipped" not in text


def test_the_page_names_logs_and_functions_and_says_what_is_normal() -> None:
    functions = {f"task{n}_read": n for n in range(1, 8)}
    page = html(
        records=60,
        rejected={"no_features": 28, "bad_times": 2},
        sources={"run1.jsonl": 40, "redis": 20},
        functions={"no_features": functions, "bad_times": {"": 2}},
    )
    text = Page(page).text
    for said in (
        "60records read",
        "30accepted",
        "2rejected, to look at",
        "28rejected, as is normal",
    ):
        assert said in text
    to_look_at, normal = text.partition("that are normal")[::2]
    assert "unnamed (2)" in to_look_at
    assert "task7_read (7), task6_read (6)" in normal
    assert "2 more" in normal
    assert "run1.jsonl40" in normal


@pytest.mark.parametrize("batches", [(), (validated(bad=0),), (validated(good=0),), (hostile(),)])
def test_the_page_is_well_formed_and_asks_nobody_for_anything(batches: tuple) -> None:
    page = Page(html(*batches, rejected={HOSTILE: 2}, refused=(HOSTILE,)))
    assert page.open == []
    assert not page.tags & {"script", "img", "link", "iframe", "object", "a"}
    assert not page.attributes & {"src", "href", "onerror", "onclick"}


def test_the_page_carries_no_address_and_forbids_loading() -> None:
    page = html(validated())
    assert not re.search(r"https?:|//|url\(|@import", page)
    assert "default-src 'none'" in page


def test_hostile_values_are_shown_as_text() -> None:
    page = html(hostile())
    assert "<script" not in page
    assert "alert(1)" in Page(page).text
    page.encode("utf-8")


def test_the_page_is_readable_by_day_and_by_night() -> None:
    assert "prefers-color-scheme: dark" in html()


def test_batches_of_one_tool_type_are_added_up() -> None:
    many = Tally("llm_process", 90, 9, (Result("serve_tokens", "between 0 and 5 tokens", 99, 9),))
    both = html(many, validated(), validated("vlm_process"))
    assert both.count("<h2>llm_process</h2>") == 1
    assert "99 accepted · 10 quarantined" in both
    assert "<td class=number>109</td><td class=number>10</td>" in both


def test_nothing_rejected_is_said_as_well() -> None:
    assert "None." in Page(html()).text


def test_markdown_has_one_table_row_for_each_failed_expectation() -> None:
    kept_out = {"rejected": {"skipped": 30}, "functions": {"skipped": {"draw": 30}}}
    lines = markdown(validated(), **kept_out, sources={"run1.jsonl": 40}).splitlines()
    expectation = "tokens is between 0 and 5 tokens \\(as its predecessors reported\\)"
    assert f"| {expectation} | 10 | 1 | 10.0 % | -1, -2 |" in lines
    meaning = "the task was skipped: it did not run, so it took no time"
    assert f"| skipped | 30 | {meaning} | draw \\(30\\) |" in lines
    assert "| run1.jsonl | 40 |" in lines
    assert "1 expectation passed for every row." in lines


def test_hostile_values_cannot_break_out_of_markdown() -> None:
    text = markdown(hostile(), rejected={HOSTILE: 2}, sources={HOSTILE: 2})
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line[:1] == "|"]
    assert cells == [6, 6, 6, 5, 5, 5, 3, 3, 3]
    assert not re.search(r"(?<!\\)[<`\[]", text)
    text.encode("utf-8")


@pytest.mark.parametrize(
    ("share", "said"), [(0.0, "0.0 %"), (1e-6, "< 0.1 %"), (0.99999, "> 99.9 %"), (1.0, "100.0 %")]
)
def test_a_little_is_never_shown_as_nothing(share: float, said: str) -> None:
    assert report._percent(share) == said


def test_every_reason_is_explained() -> None:
    assert set(reasons.REASONS) == set(RejectReason)
