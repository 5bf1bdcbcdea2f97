"""Features to numbers: the one rule by which names and values become what a model takes.

What is no finite number within the declared bounds, or does not fit float32, in which models
compute, counts as missing; a missing value becomes its default, else NaN.
Numbers of numpy and the like, which no record holds, are numbers too.

`FeatureSchema` is the rule prepared for one tool type: the predictor, `ExecTimePredictor` and
the shared history use it. `numbers` only converts, for ingestion, whose contract quarantines by
the same `limits` what lies outside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np

from malearn.kernel import text
from malearn.kernel.tool_types import Feature, ToolType, ToolTypes

__all__ = [
    "LARGEST",
    "FeatureSchema",
    "FeatureVector",
    "context_of",
    "finite",
    "limits",
    "numbers",
    "schemas",
    "within",
    "words_of",
]

#: The largest number of float32.
LARGEST = float(np.finfo(np.float32).max)

#: Characters of a word of context that count.
_LONGEST_WORD = 100

#: What texts, lists and other people's numbers raise when they are compared.
_ODD = (TypeError, ValueError, ArithmeticError)

T = TypeVar("T")


class FeatureVector(msgspec.Struct, frozen=True, gc=False):
    """What is known of one task's features, in declared order.

    `given` are the numbers that were given, None where none was; `words` likewise the words of
    context, empty where not one is named. `values` and `context` are the same completed, as
    history and models take them: defaults for what is missing, NaN where there is none, and ""
    for an unknown word. Of a task of which nothing was given not even defaults are known.
    `schema` is the one in whose order they stand.
    """

    given: tuple[float | None, ...]
    words: tuple[str | None, ...]
    values: tuple[float, ...]
    context: tuple[str, ...]
    schema: FeatureSchema | None = None


class FeatureSchema:
    """The features of one tool type, prepared for the hot path.

    >>> from malearn.kernel.tool_types import declared
    >>> schema = FeatureSchema(declared()["llm_process"])
    >>> schema.vectorize({"text_length": 12, "token_count": -1, "output_tokens": 9}).values
    (12.0, nan, 1.0, 0.0)

    `nothing` is the vector of a task of which nothing is known.
    """

    __slots__ = ("_bounds", "_missing", "_names", "nothing", "tool_type")

    def __init__(self, tool_type: ToolType) -> None:
        self.tool_type = tool_type
        self._missing = tuple(f.missing for f in tool_type.features)
        self._names = tool_type.feature_names
        self._bounds: list[tuple[float, float, float]] = [
            (*limits(feature), feature.missing) for feature in tool_type.features
        ]
        width = len(tool_type.features)
        self.nothing = FeatureVector((None,) * width, (), (math.nan,) * width, (), self)

    def vectorize(self, given_by_name: Mapping[str, object]) -> FeatureVector:
        """The vector of features by name; what is not declared is left out."""
        words = words_of(self.tool_type, given_by_name)
        values: Iterable[Any] = map(given_by_name.get, self._names)
        given: tuple[Any, ...]  # all numbers, once none is None
        try:
            given = tuple(
                [
                    None if value is None else float(value) if low <= value <= high else missing
                    for value, (low, high, missing) in zip(values, self._bounds, strict=True)
                ]
            )
            # `get` does not tell an absent name, which another predecessor may give, from a null,
            # which was given and counts as missing: only the slow way does.
            odd = None in given and None in given_by_name.values()
        except _ODD:
            odd = True
        if odd:
            given = self._given_oddly(given_by_name)
        if not words and None not in given:
            return FeatureVector(given, (), given, (), self)
        return self._completed(given, words)

    def problem(self, features: Mapping[str, Any]) -> str | None:
        """The first of `features` that is no number within its bounds, in words; None if none is.

        What is missing is no problem.
        """
        for name, (low, high, _) in zip(self._names, self._bounds, strict=True):
            value = features.get(name)
            if value is not None and within(value, low, high) is None:
                return (
                    f"{name} is {text.shortened(value)}, not a number between {low:g} and {high:g}"
                )
        return None

    def merge(self, several: Iterable[FeatureVector]) -> FeatureVector:
        """`several` in one; of two that give the same feature the later one counts."""
        given, words = self.nothing.given, self.nothing.words
        for vector in several:
            given, words = _over(given, vector.given), _over(words, vector.words)
        return self._completed(given, words)

    def _given_oddly(self, given_by_name: Mapping[str, Any]) -> tuple[Any, ...]:
        """As in `vectorize`, where `given_by_name` may hold anything."""
        return tuple(
            [
                None
                if name not in given_by_name
                else missing
                if (number := within(given_by_name[name], low, high)) is None
                else number
                for name, (low, high, missing) in zip(self._names, self._bounds, strict=True)
            ]
        )

    def _completed(
        self, given: tuple[float | None, ...], words: tuple[str | None, ...]
    ) -> FeatureVector:
        if given.count(None) == len(given):
            # The very same tuple: `serving.requests` checks by identity whether anything is known.
            values = self.nothing.values
        else:
            values = tuple(
                [m if g is None else g for g, m in zip(given, self._missing, strict=True)]
            )
        context = tuple([word or "" for word in words]) if any(words) else ()
        return FeatureVector(given, words, values, context, self)


def limits(feature: Feature) -> tuple[float, float]:
    """The least and the greatest number that is accepted for `feature`."""
    # What float32 cannot hold would reach a model as infinity.
    return max(feature.minimum, -LARGEST), min(feature.maximum, LARGEST)


def schemas(tool_types: ToolTypes) -> dict[str, FeatureSchema]:
    """The schema of each of `tool_types`, by name."""
    return {name: FeatureSchema(tool_type) for name, tool_type in tool_types.items()}


def numbers(
    tool_type: ToolType, features: Mapping[str, object]
) -> tuple[tuple[float, ...], str | None]:
    """One number per feature in declared order, and the first problem met, if any.

    Missing values become the declared default, else NaN; so does what is no
    finite number, which is also named as the problem.
    """
    problem = None
    values = []
    for feature in tool_type.features:
        given = features.get(feature.name)
        if type(given) is float and math.isfinite(given):  # nearly always
            values.append(given)
            continue
        number = feature.missing if given is None else finite(given)
        if number is None:
            problem = problem or f"{feature.name} is {text.shortened(given)}, not a finite number"
            number = feature.missing
        values.append(number)
    return tuple(values), problem


def context_of(tool_type: ToolType, given: Mapping[str, object]) -> tuple[str, ...]:
    """One text per name of the context, "" where `given` has none; empty where it has not one.

    >>> from malearn.kernel.tool_types import declared
    >>> context_of(declared()["llm_process"], {"model": "qwen-7b", "node": 3})
    ('qwen-7b', '', '3')
    """
    words = words_of(tool_type, given)
    return tuple([word or "" for word in words]) if any(words) else ()


def words_of(tool_type: ToolType, given: Mapping[str, object]) -> tuple[str | None, ...]:
    """As `context_of`, but None for what `given` does not name; empty where it names none of it."""
    for name in tool_type.context:
        if name in given:
            break
    else:  # nearly always
        return ()
    return tuple([_word(given[name]) if name in given else None for name in tool_type.context])


def finite(value: object) -> float | None:
    """`value` as a finite float, or None."""
    if not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    # JSON's integers have no limit, floats do.
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _word(value: object) -> str:
    """`value` as a word of context; "" for what is none."""
    if isinstance(value, int | float) and (number := finite(value)) is not None:
        # 15 digits: 3 and 3.0 are one word, and the last bits of a float are not.
        value = f"{number:.15g}"
    return text.encodable(value.strip()[:_LONGEST_WORD]) if isinstance(value, str) else ""


def within(value: Any, low: float, high: float) -> float | None:
    """`value` as a number from `low` to `high`; None where it is none, whatever it is."""
    try:
        return float(value) if low <= value <= high else None
    # Nothing is known of the types here: numpy's numbers compare, texts and lists raise.
    except _ODD:
        return None


def _over(earlier: tuple[T | None, ...], later: tuple[T | None, ...]) -> tuple[T | None, ...]:
    if not earlier or not later:
        return earlier or later
    return tuple([e if one is None else one for e, one in zip(earlier, later, strict=True)])
