"""Function-name patterns, found in a name at a cost that does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["PatternIndex", "tokens"]

Value = TypeVar("Value")


@dataclass(slots=True)
class _Node(Generic[Value]):
    """A prefix of patterns: what may follow, and what ends here, if anything does."""

    following: dict[str, _Node[Value]] = field(default_factory=dict)
    ends: tuple[int, tuple[str, ...], Value] | None = None


class PatternIndex(Generic[Value]):
    """A trie of patterns, token by token; of equal patterns the first one given counts.

    >>> index = PatternIndex([("llm_process", 1), ("vlm_process", 2), ("process", 3)])
    >>> index.find("task2_llm_process3"), index.find("my_process"), index.find("process_llm")
    (1, 3, 3)
    """

    def __init__(self, patterns: Iterable[tuple[str, Value]]) -> None:
        self._root: _Node[Value] = _Node()
        self._longest = 0  # of all words
        for pattern, value in patterns:
            words = tokens(pattern)
            node = self._root
            for word in words:
                self._longest = max(self._longest, len(word))
                node = node.following.setdefault(word, _Node())
            if node.ends is None:
                # Length is what ranks patterns; words decide between those of one length and place.
                node.ends = len("_".join(words)), words, value

    def find(self, name: str) -> Value | None:
        """The value of the longest pattern found in `name` on `_` boundaries, or None.

        Of equally long ones the leftmost. A token may carry a number after it.
        """
        words = tokens(name)
        best: tuple[int, int, tuple[str, ...]] | None = None
        found: Value | None = None
        for start in range(len(words)):
            for length, pattern, value in self._matches(words, start):
                rank = (-length, start, pattern)
                if best is None or rank < best:
                    best, found = rank, value
        return found

    def _matches(
        self, words: tuple[str, ...], start: int
    ) -> Iterator[tuple[int, tuple[str, ...], Value]]:
        """What every pattern that begins at word `start` ends with."""
        nodes = [self._root]
        for word in words[start:]:
            # Several at once: `llm2` may follow as itself or as `llm`, whose number is left out.
            nodes = [
                node.following[prefix]
                for prefix in self._prefixes(word)
                for node in nodes
                if prefix in node.following
            ]
            if not nodes:
                return
            yield from (node.ends for node in nodes if node.ends is not None)

    def _prefixes(self, word: str) -> Iterator[str]:
        """`word`, and what is left of it without each part of the number at its end."""
        yield word
        first = len(word)
        while first > 1 and word[first - 1].isdigit():
            first -= 1
        for end in range(min(len(word) - 1, self._longest), first - 1, -1):
            yield word[:end]


def tokens(name: str) -> tuple[str, ...]:
    """The words of a function's name, in lower case."""
    return tuple(token for token in name.lower().split("_") if token)
