"""From what somebody said of a task to the numbers a model wants.

The fast twin of `records.numbers` and `records.context_of`: what is no finite
number within the declared bounds is not believed and counts as missing. Numbers of
numpy and the like, which no record holds, are numbers too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np

from malearn.kernel import records
from malearn.kernel.tool_types import ToolType

__all__ = ["FeatureSchema", "FeatureVector", "within"]

_LARGEST = float(np.finfo(np.float32).max)  # models compute in float32

#: What texts, lists and other people's numbers raise when they are compared.
_ODD = (TypeError, ValueError, ArithmeticError)

T = TypeVar("T")


class FeatureVector(msgspec.Struct, frozen=True, gc=False):
    """What is told of a task, in declared order.

    `given` are the numbers that somebody spoke of and `words` the words of
    context, None where nobody did; no words at all where none is spoken of.
    `values` and `context` are the same completed, as a history and a model take
    them: defaults for what is missing, NaN where there is none, and "" for an
    unknown word. Of a task nobody spoke of, not even the defaults are known. `schema`
    say in whose order that is.
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

    `nothing` is what is told of a task of which nobody said anything.
    """

    __slots__ = ("_bounds", "_missing", "_names", "nothing", "tool_type")

    def __init__(self, tool_type: ToolType) -> None:
        self.tool_type = tool_type
        self._missing = tuple(f.missing for f in tool_type.features)
        self._names = tool_type.feature_names
        self._bounds: list[tuple[float, float, float]] = [
            (max(f.minimum, -_LARGEST), min(f.maximum, _LARGEST), f.missing)
            for f in tool_type.features
        ]
        width = len(tool_type.features)
        self.nothing = FeatureVector((None,) * width, (), (math.nan,) * width, (), self)

    def vectorize(self, said: Mapping[str, object]) -> FeatureVector:
        """What `said` tells, by name; what is not declared is left out."""
        words = records.words_of(self.tool_type, said)
        values: Iterable[Any] = map(said.get, self._names)
        given: tuple[Any, ...]  # all numbers, once none is None
        try:
            given = tuple(
                [
                    None if value is None else float(value) if low <= value <= high else missing
                    for value, (low, high, missing) in zip(values, self._bounds, strict=True)
                ]
            )
            odd = None in given and None in said.values()
        except _ODD:
            odd = True
        if odd:
            given = self._given_oddly(said)
        if not words and None not in given:
            return FeatureVector(given, (), given, (), self)
        return self._completed(given, words)

    def merge(self, several: Iterable[FeatureVector]) -> FeatureVector:
        """What `several` tell; of two that speak of the same thing the later one counts."""
        given, words = self.nothing.given, self.nothing.words
        for told in several:
            given, words = _over(given, told.given), _over(words, told.words)
        return self._completed(given, words)

    def _given_oddly(self, said: Mapping[str, Any]) -> tuple[Any, ...]:
        """As `told`, where `said` may hold anything."""
        return tuple(
            [
                None
                if name not in said
                else missing
                if (number := within(said[name], low, high)) is None
                else number
                for name, (low, high, missing) in zip(self._names, self._bounds, strict=True)
            ]
        )

    def _completed(
        self, given: tuple[float | None, ...], words: tuple[str | None, ...]
    ) -> FeatureVector:
        unsaid = given.count(None)
        if unsaid == len(given):
            values = self.nothing.values
        else:
            values = tuple(
                [m if g is None else g for g, m in zip(given, self._missing, strict=True)]
            )
        context = tuple([word or "" for word in words]) if any(words) else ()
        return FeatureVector(given, words, values, context, self)


def within(value: Any, low: float, high: float) -> float | None:
    """`value` as a number from `low` to `high`; None where it is none, whatever it is."""
    try:
        return float(value) if low <= value <= high else None
    except _ODD:
        return None


def _over(earlier: tuple[T | None, ...], later: tuple[T | None, ...]) -> tuple[T | None, ...]:
    if not earlier or not later:
        return earlier or later
    return tuple([e if one is None else one for e, one in zip(earlier, later, strict=True)])
