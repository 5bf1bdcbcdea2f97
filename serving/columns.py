"""From what somebody said of a task to the numbers a model wants.

The fast twin of `records.numbers` and `records.context_of`: what is no finite
number within the declared bounds is not believed and counts as missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec
import numpy as np

from malearn import records
from malearn.tool_types import ToolType

__all__ = ["Columns", "Told"]

_NUMBERS = (int, float)
_LARGEST = float(np.finfo(np.float32).max)  # models compute in float32
_UNSAID: Final = object()

T = TypeVar("T")


class Told(msgspec.Struct, frozen=True, gc=False):
    """What is told of a task, in declared order.

    `given` are the numbers that somebody spoke of and `words` the words of
    context, None where nobody did; no words at all where none is spoken of.
    `values` and `context` are the same completed, as a history and a model take
    them: defaults for what is missing, NaN where there is none, and "" for an
    unknown word. Of a task nobody spoke of, not even the defaults are known.
    """

    given: tuple[float | None, ...]
    words: tuple[str | None, ...]
    values: tuple[float, ...]
    context: tuple[str, ...]


class Columns:
    """The features of one tool type, prepared for the hot path.

    >>> from malearn.tool_types import declared
    >>> columns = Columns(declared()["llm_process"])
    >>> columns.told({"text_length": 12, "token_count": -1, "output_tokens": 9}).values
    (12.0, nan, 1.0, 0.0)

    `nothing` is what is told of a task of which nobody said anything.
    """

    __slots__ = ("_bounds", "_missing", "nothing", "tool_type")

    def __init__(self, tool_type: ToolType) -> None:
        self.tool_type = tool_type
        self._missing = tuple(f.missing for f in tool_type.features)
        self._bounds = [
            (f.name, max(f.minimum, -_LARGEST), min(f.maximum, _LARGEST), f.missing)
            for f in tool_type.features
        ]
        width = len(tool_type.features)
        self.nothing = Told((None,) * width, (), (math.nan,) * width, ())

    def told(self, said: Mapping[str, object]) -> Told:
        """What `said` tells, by name; what is not declared is left out."""
        get = said.get
        given = tuple(
            [
                None
                if (value := get(name, _UNSAID)) is _UNSAID
                else float(value)
                if isinstance(value, _NUMBERS) and low <= value <= high
                else missing
                for name, low, high, missing in self._bounds
            ]
        )
        return self._completed(given, records.words_of(self.tool_type, said))

    def together(self, several: Sequence[Told]) -> Told:
        """What `several` tell; of those that speak of the same thing the last one counts."""
        last = several[-1] if several else self.nothing
        given, words = last.given, last.words
        for told in reversed(several):
            if None in given:
                given = _over(told.given, given)
            if told.words and (not words or None in words):
                words = _over(told.words, words)
        if given is last.given and words is last.words:
            return last
        return self._completed(given, words)

    def _completed(self, given: tuple[float | None, ...], words: tuple[str | None, ...]) -> Told:
        unsaid = given.count(None)
        if unsaid == len(given):
            values = self.nothing.values
        else:
            values = tuple(
                [m if g is None else g for g, m in zip(given, self._missing, strict=True)]
            )
        context = tuple([word or "" for word in words]) if any(words) else ()
        return Told(given, words, values, context)


def _over(earlier: tuple[T | None, ...], later: tuple[T | None, ...]) -> tuple[T | None, ...]:
    if not later:
        return earlier
    return tuple([e if one is None else one for e, one in zip(earlier, later, strict=True)])
