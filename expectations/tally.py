"""Counts of validation results, which can be added up over any number of batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["EXAMPLES", "Result", "Tally", "by_tool_type"]

#: Distinct examples shown of the values that failed an expectation.
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one expectation: `failed` of `checked` values, and a few examples.

    `column` is the value that is checked (`serve_duration`), `phrase` what is expected of it
    ("between 0 and 86,400 s"). A missing value of a feature is not checked.
    """

    column: str
    phrase: str
    checked: int
    failed: int
    examples: tuple[str, ...] = ()

    @property
    def expectation(self) -> str:
        return f"{self.column} is {self.phrase}"

    @property
    def share(self) -> float:
        """Failed of checked, 0…1."""
        return self.failed / self.checked if self.checked else 0.0

    def __add__(self, other: Result) -> Result:
        examples = tuple(dict.fromkeys((*self.examples, *other.examples)))[:EXAMPLES]
        checked, failed = self.checked + other.checked, self.failed + other.failed
        return Result(self.column, self.phrase, checked, failed, examples)


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows of one tool type that were accepted and quarantined, and each expectation's result."""

    tool_type: str
    accepted: int = 0
    quarantined: int = 0
    results: tuple[Result, ...] = ()

    @property
    def total(self) -> int:
        return self.accepted + self.quarantined

    def __add__(self, other: Tally) -> Tally:
        # By its words: a declaration changed between two batches has expectations of its own.
        results = {result.expectation: result for result in self.results}
        for result in other.results:
            known = results.get(result.expectation)
            results[result.expectation] = result if known is None else known + result
        accepted = self.accepted + other.accepted
        quarantined = self.quarantined + other.quarantined
        return Tally(self.tool_type, accepted, quarantined, tuple(results.values()))


def by_tool_type(tallies: Iterable[Tally]) -> list[Tally]:
    """One for each tool type, in order of appearance."""
    added: dict[str, Tally] = {}
    for tally in tallies:
        added[tally.tool_type] = added.get(tally.tool_type, Tally(tally.tool_type)) + tally
    return list(added.values())
