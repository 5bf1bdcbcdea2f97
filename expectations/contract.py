"""The data contract of a tool type: a Great Expectations suite derived from its declaration.

A row is one execution. Columns `serve_<feature>` and `ran_<feature>` hold its two views
(missing is NaN, and allowed); `task_id`, `function`, `start`, `end` and `seconds` the rest.
Everything follows from the declaration: bounds from `min` and `max`, rules between
columns from the features' names. Such a rule must hold for *every* tool type with these
names, however the numbers were computed: `image_area` against height
times width has none, because image features are means over a batch.

Each expectation's `meta` describes it in words, so that a suite read back from JSON is
self-explanatory:

    {"column": "serve_token_count", "phrase": "between 0 and 200,000 tokens", "beside": []}
"""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from malearn.kernel import errors, features
from malearn.kernel.reading.believable import LONGEST, SHORTEST
from malearn.kernel.tool_types import ToolType

if TYPE_CHECKING:
    from great_expectations import ExpectationSuite

__all__ = ["VIEWS", "Ceiling", "as_json", "ceilings", "from_json", "suite"]

#: The views of a task's features: as known before it started, and as it ran.
VIEWS = ("serve", "ran")

#: The latest believable moment, in seconds since the epoch: the year 2100.
_LATEST = 4_102_444_800.0

#: A tokenizer that falls back to bytes makes at most 4 tokens of a character, and a chat
#: template adds some of its own.
_TOKENS_PER_CHARACTER, _TEMPLATE_TOKENS = 4, 256

#: Prompts that go with these may count them as tokens too, thousands for one picture.
_NOT_TEXT = ("image_", "audio_", "video_", "frame_")

#: Names, before or after the same stem, from the least to the greatest of a few numbers.
_ORDER = (("min",), ("mean", "avg", "median"), ("max",))

_importing = threading.Lock()


@dataclass(frozen=True, slots=True)
class Ceiling:
    """`feature` is never above `limit` of `other`, in the same view."""

    feature: str
    other: str
    phrase: str
    limit: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]

    def column(self, view: str) -> str:
        """The column of limits; the space keeps it apart from any feature's name."""
        return f"most {view}_{self.feature} by {self.other}"


def gx() -> ModuleType:
    """Import Great Expectations when first needed (it takes seconds), without its analytics."""
    # Set, not set by default: nothing that runs here may send anything.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read while it is imported
    # `catch_warnings` changes the whole process: two threads could leave warnings switched off.
    with _importing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations
        import great_expectations.expectations
    return great_expectations


def suite(tool_type: ToolType) -> ExpectationSuite:
    """The suite of `tool_type`: what `validate` checks, one expectation after another."""
    expectations = [*_identity(), *_times(), *_features(tool_type), *_between_columns(tool_type)]
    built: ExpectationSuite = gx().ExpectationSuite(
        name=f"malearn-{tool_type.name}", expectations=expectations
    )
    _check_count(built.name, len(built.expectations), len(expectations))
    return built


def as_json(suite: ExpectationSuite) -> str:
    """`suite` as JSON text, for keeping beside a dataset version."""
    return json.dumps(suite.to_json_dict(), indent=2, allow_nan=False)


def from_json(text: str) -> ExpectationSuite:
    """The suite that `as_json` wrote.

    Raises:
        InputError: the JSON is not a suite, or holds expectations that Great Expectations
            does not understand, which it would drop silently.
    """
    try:
        written = json.loads(text)
        stated = len(written["expectations"])
        read: ExpectationSuite = gx().ExpectationSuite(**written)
    except (ValueError, TypeError, KeyError) as error:
        raise errors.InputError("suite", f"was not written by as_json ({error})") from error
    _check_count(read.name, len(read.expectations), stated)
    return read


def ceilings(tool_type: ToolType) -> Iterator[Ceiling]:
    """The rules between features that the names of `tool_type` imply."""
    names = set(tool_type.feature_names)
    if not any(name.startswith(_NOT_TEXT) for name in names):
        yield from _token_ceilings(tool_type)
    yield from _order_ceilings(tool_type)
    if {"avg_brightness", "brightness_variance"} <= names:
        # Bhatia and Davis: levels in 0…255 with mean m vary by at most m·(255 - m). It holds
        # for means over a batch as well; twice that allows for any sample variance.
        yield Ceiling(
            "brightness_variance",
            "avg_brightness",
            "possible with its avg_brightness",
            lambda mean: 2 * mean * (255 - mean) + 1,
        )


def _token_ceilings(tool_type: ToolType) -> Iterator[Ceiling]:
    for name in tool_type.feature_names:
        if name != "token_count" and not name.endswith("_token_count"):
            continue
        length = f"{name.removesuffix('token_count').removesuffix('_') or 'text'}_length"
        # `prompt_token_count` belongs to `prompt_length`, plain `token_count` to `text_length`.
        if length in tool_type.feature_names:
            yield Ceiling(
                name,
                length,
                f"possible with its {length}",
                lambda length: _TOKENS_PER_CHARACTER * length + _TEMPLATE_TOKENS,
            )


def _order_ceilings(tool_type: ToolType) -> Iterator[Ceiling]:
    ranks = {word: rank for rank, words in enumerate(_ORDER) for word in words}
    placed: list[tuple[str, int, str]] = []
    for name in tool_type.feature_names:
        first, _, rest = name.partition("_")
        before, _, last = name.rpartition("_")
        if rest and first in ranks:
            placed.append((rest, ranks[first], name))
        elif before and last in ranks:
            placed.append((before, ranks[last], name))
    # A minimum is at most the mean, and either at most the maximum, of the same stem.
    for stem, rank, name in placed:
        for other_stem, other_rank, other in placed:
            if stem == other_stem and rank < other_rank:
                # A mean of equal numbers may differ from them in the last digits.
                yield Ceiling(
                    name, other, f"at most its {other}", lambda value: value + 1e-9 * abs(value)
                )


def _identity() -> Iterator[Any]:
    yield _expect("ExpectColumnValuesToNotBeNull", "task_id", "present")
    yield _expect("ExpectColumnValuesToBeUnique", "task_id", "unique")
    yield _expect("ExpectColumnValuesToNotBeNull", "function", "present")


def _times() -> Iterator[Any]:
    for column in ("start", "end"):
        yield _expect("ExpectColumnValuesToNotBeNull", column, "present")
        yield _between(column, 0.0, _LATEST, "a time between 1970 and 2100")
    yield _expect(
        "ExpectColumnPairValuesAToBeGreaterThanB",
        "end",
        "after start",
        beside=("start",),
        column_A="end",
        column_B="start",
        ignore_row_if="either_value_is_missing",
    )
    yield _between("seconds", SHORTEST, LONGEST, "between a microsecond and 30 days")


def _features(tool_type: ToolType) -> Iterator[Any]:
    if not tool_type.generic:  # whose tasks may report nothing but their times
        yield _between("known_features", 1, None, "at least 1, in either view")
    for view in VIEWS:
        for feature in tool_type.features:
            low, high = features.limits(feature)
            yield _between(f"{view}_{feature.name}", low, high, feature.bounds)


def _between_columns(tool_type: ToolType) -> Iterator[Any]:
    for view in VIEWS:
        for ceiling in ceilings(tool_type):
            yield _expect(
                "ExpectColumnPairValuesAToBeGreaterThanB",
                f"{view}_{ceiling.feature}",
                ceiling.phrase,
                beside=(f"{view}_{ceiling.other}",),
                # Great Expectations compares two columns, not a column with a function of another:
                # the limits are a column of the frame.
                column_A=ceiling.column(view),
                column_B=f"{view}_{ceiling.feature}",
                or_equal=True,
                ignore_row_if="either_value_is_missing",
            )


def _between(column: str, low: float, high: float | None, phrase: str) -> Any:
    kind = "ExpectColumnValuesToBeBetween"
    return _expect(kind, column, phrase, min_value=low, max_value=high)


def _expect(
    kind: str, shown: str, phrase: str, beside: tuple[str, ...] = (), **arguments: object
) -> Any:
    """One expectation. `shown` and `beside` are the columns that show a person what broke it."""
    # An expectation about a pair has no `column`, and may be given none.
    if "column_A" not in arguments:
        arguments["column"] = shown
    meta = {"column": shown, "phrase": phrase, "beside": list(beside)}
    return getattr(gx().expectations, kind)(meta=meta, **arguments)


def _check_count(name: str, found: int, stated: int) -> None:
    if found != stated:
        raise errors.InputError(
            f"suite {name}",
            f"has {stated} expectations, of which Great Expectations understands only {found}",
        )
