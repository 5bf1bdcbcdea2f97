"""What an ingestion found, as its report shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from malearn.expectations import reasons
from malearn.expectations.tally import Tally, by_tool_type
from malearn.expectations.validation import ValidationResult

__all__ = ["Findings"]


@dataclass(frozen=True, slots=True)
class Findings:
    """The results of each tool type's suite, and all records that were kept out, by reason.

    Batches of one tool type are added up; a `Tally` of each is enough, and is small. `records`
    were read from `sources`, so many from each; `rejected` counts those kept out by reason code,
    `functions` the same by function, too. `versions` gives the dataset version that the accepted
    rows went into, by tool type; `refused` the messages of rejected batches.
    """

    batches: Iterable[ValidationResult | Tally]
    records: int
    rejected: Mapping[str, int]
    time: datetime
    sources: Mapping[str, int] = field(default_factory=dict)
    functions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    refused: Sequence[str] = ()

    @property
    def tallies(self) -> list[Tally]:
        """One of each tool type."""
        return by_tool_type(
            one.tally() if isinstance(one, ValidationResult) else one for one in self.batches
        )

    def reasons(self, *, normal: bool) -> list[tuple[str, int]]:
        """The reasons that are `normal`, or those that are not: code and records, most first."""
        found = [(str(c), n) for c, n in self.rejected.items() if n]
        chosen = [one for one in found if reasons.normal(one[0]) is normal]
        return sorted(chosen, key=lambda one: -one[1])

    def functions_of(self, reason: str, most: int = 5) -> list[str]:
        """Of which functions records were kept out for `reason`: the most frequent, in words."""
        counts = self.functions.get(reason, {})
        ranked = sorted(counts.items(), key=lambda one: -one[1])
        shown = [f"{name or 'unnamed'} ({n:,})" for name, n in ranked[:most]]
        if rest := len(ranked) - most:
            shown += [f"{rest:,} more"] if rest > 0 else []
        return shown
