"""What is accepted, what is quarantined and why, and when a batch is refused. On real GE."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from malearn import expectations
from malearn.kernel import errors, records, tool_types
from malearn.kernel.records import Execution, RejectReason
from malearn.kernel.tool_types import Feature, ToolType

ROOT = Path(__file__).parents[2]
DECLARED = tool_types.declared()
LLM = DECLARED["llm_process"]

every_tool_type = pytest.mark.parametrize("tool_type", DECLARED.values(), ids=lambda t: t.name)


def row(tool_type: ToolType, name: str = "a", **changes: object) -> Execution:
    """An execution that keeps the contract, but for `changes`."""
    blank = (math.nan,) * len(tool_type.features)
    first = believable(tool_type.features[0])
    good = Execution(name, "f", tool_type.name, 100.0, 105.0, blank, (first, *blank[1:]))
    return dataclasses.replace(good, **changes)


def believable(feature: Feature) -> float:
    return min(max(1.0, feature.minimum), feature.maximum)


def alone(tool_type: ToolType, feature: Feature, value: float) -> tuple[float, ...]:
    """A view in which only `feature` is known."""
    return tuple(value if other is feature else math.nan for other in tool_type.features)


def bounded(
    tool_type: ToolType, shift: Callable[[float, float], float]
) -> list[tuple[str, Execution]]:
    """One row for each declared bound, with the value that `shift(bound, outwards)` gives."""
    rows = []
    for view in ("serve", "ran"):
        for feature in tool_type.features:
            for bound, outwards in ((feature.minimum, -math.inf), (feature.maximum, math.inf)):
                value = alone(tool_type, feature, shift(bound, outwards))
                if math.isfinite(bound):
                    name = f"{view}_{feature.name}"
                    execution = row(tool_type, f"{name} {bound}", **{view: value})
                    rows.append((name, execution))
    return rows


def check_bounds(tool_type: ToolType) -> None:
    """A law of every tool type: declared bounds hold, exactly, in both views."""
    beyond = bounded(tool_type, math.nextafter)
    at = bounded(tool_type, lambda bound, _: bound)
    assert len(beyond) == len(at) > 0
    batch = [execution for _, execution in beyond]
    batch += [dataclasses.replace(one, task_id=f"at {one.task_id}") for _, one in at]
    result = expectations.validate(tool_type, batch, allowed_bad=1.0)
    assert [one.task_id for one in result.accepted] == [f"at {one.task_id}" for _, one in at]
    for (column, execution), rejected in zip(beyond, result.quarantined, strict=True):
        assert rejected.task_id == execution.task_id
        assert rejected.reason is RejectReason.INVALID_FEATURE
        assert rejected.detail.startswith(f"{column} is ")
        assert ", not " in rejected.detail


@every_tool_type
def test_a_value_beyond_a_declared_bound_is_quarantined_and_one_at_it_is_not(
    tool_type: ToolType,
) -> None:
    check_bounds(tool_type)


@every_tool_type
def test_any_feature_may_be_missing_but_not_all_in_both_views(tool_type: ToolType) -> None:
    blank = (math.nan,) * len(tool_type.features)
    partly = [
        row(tool_type, f"{feature.name}", ran=alone(tool_type, feature, believable(feature)))
        for feature in tool_type.features
    ]
    result = expectations.validate(tool_type, [*partly, row(tool_type, "blank", ran=blank)])
    assert result.accepted == partly
    (rejected,) = result.quarantined
    assert rejected.detail == "known_features is 0, not at least 1, in either view"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"end": 100.0}, "end is 100 (start 100), not after start; seconds is 0, not between"),
        ({"end": 99.5}, "end is 99.5 (start 100), not after start; seconds is -0.5, not between"),
        ({"end": math.nan}, "end is missing, not present"),
        ({"start": math.nan}, "start is missing, not present"),
        ({"start": -5.0}, "start is -5, not a time between 1970 and 2100"),
        ({"end": math.inf}, "end is inf, not a time between"),
        ({"end": 1e9}, "seconds is 999,999,900, not between a microsecond and 30 days"),
        ({"function": ""}, "function is missing, not present"),
        ({"task_id": ""}, "task_id is missing, not present"),
        ({"serve": (math.inf,) * 4}, "serve_text_length is inf, not between 0 and 1,000,000 char"),
        ({"ran": (10.0, 5_000.0, 1.0, 0.0)}, "ran_token_count is 5,000 (ran_text_length 10), not "),
        ({"ran": (-1.0, -2.0, -3.0, -4.0), "end": 0.0}, "; and 2 more"),
    ],
)
def test_a_person_can_read_what_is_wrong(changes: dict[str, object], said: str) -> None:
    result = expectations.validate(LLM, [row(LLM, "bad", **changes)])
    assert result.accepted == []
    assert said in result.quarantined[0].detail


def test_of_one_task_written_twice_the_last_to_end_is_accepted() -> None:
    copies = [row(LLM, "a", end=end) for end in (105.0, 107.0, 106.0)]
    result = expectations.validate(LLM, [*copies, row(LLM, "b")], allowed_bad=0.0)
    assert result.accepted == [copies[1], row(LLM, "b")]
    assert [one.reason for one in result.quarantined] == [RejectReason.DUPLICATE] * 2


def test_a_good_copy_of_a_bad_row_is_accepted() -> None:
    good = row(LLM, "a")
    bad = row(LLM, "a", serve=(-1.0, 1.0, 1.0, 0.0), end=110.0)
    result = expectations.validate(LLM, [bad, good])
    assert result.accepted == [good]


def test_results_count_what_was_checked_and_what_failed() -> None:
    rows = [row(LLM, f"{n}", ran=(-1.0 - n % 7, 1.0, 1.0, 0.0)) for n in range(10)]
    result = expectations.validate(LLM, [*rows, *(row(LLM, f"good {n}") for n in range(30))])
    (failed,) = [one for one in result.results if one.failed]
    assert failed.expectation == "ran_text_length is between 0 and 1,000,000 characters"
    assert (failed.checked, failed.failed, failed.share) == (40, 10, 0.25)
    assert failed.examples == ("-1", "-2", "-3", "-4", "-5")


def test_a_batch_that_is_mostly_bad_is_refused() -> None:
    bad = [row(LLM, f"{n}", ran=(1.0, -1.0, 1.0, 0.0)) for n in range(21)]
    good = [row(LLM, f"good {n}") for n in range(20)]
    with pytest.raises(errors.BatchRefused) as refusal:
        expectations.validate(LLM, [*bad, *good])
    assert str(refusal.value).startswith(
        "21 of 41 llm_process rows break their contract, most often "
        "'ran_token_count is between 0 and 200,000 tokens'; with more than 50% bad rows"
    )
    assert len(expectations.validate(LLM, [*bad[:20], *good]).quarantined) == 20


def test_a_small_batch_or_one_where_all_may_be_bad_is_not() -> None:
    bad = [row(LLM, f"{n}", ran=(1.0, -1.0, 1.0, 0.0)) for n in range(30)]
    assert len(expectations.validate(LLM, bad[:19]).quarantined) == 19
    assert len(expectations.validate(LLM, bad, allowed_bad=1.0).quarantined) == 30


def test_nothing_in_nothing_out() -> None:
    assert expectations.validate(LLM, []) == expectations.ValidationResult(LLM.name, [], [])


def test_rows_of_another_declaration_are_refused() -> None:
    with pytest.raises(errors.DatasetError, match="'a' has 2 values for 4 features"):
        expectations.validate(LLM, [row(LLM, serve=(1.0, 2.0))])


anything = st.one_of(st.floats(), st.integers(-10, 10).map(float), st.just(math.nan))
views = st.tuples(anything, anything, anything, anything)
names = st.text(max_size=3)


@given(st.lists(st.tuples(names, names, anything, anything, views, views), max_size=25))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_mixture_is_split_and_what_is_accepted_keeps_the_contract(
    drawn: list[tuple[str, str, float, float, tuple[float, ...], tuple[float, ...]]],
) -> None:
    batch = [
        Execution(f"{name}{n % 20}", function, LLM.name, start, end, serve, ran)
        for n, (name, function, start, end, serve, ran) in enumerate(drawn)
    ]
    batch += [row(LLM, f"good {n}") for n in range(3)]
    result = expectations.validate(LLM, batch, allowed_bad=1.0)
    assert len(result.accepted) + len(result.quarantined) == len(batch)
    assert all(one.detail for one in result.quarantined)
    assert result.accepted[-3:] == batch[-3:]
    for one in result.accepted:
        assert 0 <= one.start < one.end < math.inf
        for view in (one.serve, one.ran):
            for feature, value in zip(LLM.features, view, strict=True):
                assert math.isnan(value) or feature.minimum <= value <= feature.maximum


def test_a_tool_type_of_ones_own_is_validated_untouched() -> None:
    (video,) = tool_types.parse(
        """
        [video_process]
        resource = "gpu"
        [video_process.features]
        duration    = { unit = "s", min = 0, max = 86400, monotone = 1 }
        frame_count = { unit = "frames", min = 1 }
        batch_size  = { unit = "items", min = 1, default = 1 }
        min_level   = { min = -5, max = 5 }
        max_level   = { min = -5, max = 5 }
        """,
        "malearn.toml",
    )
    check_bounds(video)
    swapped = row(video, ran=(1.0, 2.0, 3.0, 4.0, -4.0))
    (rejected,) = expectations.validate(video, [swapped]).quarantined
    assert rejected.detail == "ran_min_level is 4 (ran_max_level -4), not at most its max_level"


def test_a_feature_without_bounds_must_still_fit_a_model() -> None:
    free = ToolType("free", ("free",), "cpu", (Feature("size"),))
    result = expectations.validate(free, [row(free, ran=(1e39,)), row(free, "b", ran=(-1e30,))])
    assert [one.task_id for one in result.accepted] == ["b"]
    assert result.quarantined[0].detail == "ran_size is 1e+39, not a finite number"


def test_a_feature_may_be_called_anything() -> None:
    names = ("task_id", "start", "seconds", "known_features", "serve_x", "_", "0", "größe", "id")
    odd = ToolType("odd", ("odd",), "cpu", tuple(Feature(name, minimum=0) for name in names))
    check_bounds(odd)


def test_names_that_no_encoding_knows_are_still_names() -> None:
    hostile = row(LLM, "\ud800<script>\n", function="\x00", end=1.0)
    (rejected,) = expectations.validate(LLM, [hostile]).quarantined
    assert rejected.task_id == hostile.task_id


def test_two_threads_may_validate_at_once() -> None:
    batches = [
        [row(t, f"{n}") for n in range(50 + 10 * i)] for i, t in enumerate(DECLARED.values())
    ]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(expectations.validate, DECLARED.values(), batches))
    assert [result.accepted for result in found] == batches


def test_importing_is_quick_and_validating_leaves_the_screen_alone() -> None:
    """In a clean interpreter that shows every warning."""
    program = """
import sys
from malearn import expectations
assert not {"great_expectations", "pandas"} & set(sys.modules)
from malearn.kernel import records, tool_types
tool_type = tool_types.declared()["speech_process"]
one = records.Execution("a", "f", "speech_process", 1.0, 2.0, (1.0, 2.0, 3.0), (1.0, 2.0, -3.0))
assert len(expectations.validate(tool_type, [one]).quarantined) == 1
"""
    command = [sys.executable, "-W", "default", "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_real_execution_keeps_its_contract(maze: list[records.Execution]) -> None:
    for tool_type in DECLARED.values():
        batch = [one for one in maze if one.tool_type == tool_type.name]
        result = expectations.validate(tool_type, batch)
        assert result.accepted == batch, result.quarantined[:3]
        assert batch
