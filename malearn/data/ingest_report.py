"""What became of the records that were ingested: every one is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["OTHERS", "Functions", "IngestReport", "ToolTypeReport"]

#: How many records of which function were rejected, by reason.
Functions = Mapping[str, Mapping[str, int]]
#: Stands for the functions beyond those that are told apart, of each reason so many.
OTHERS, _TOLD_APART = "others", 1_000


@dataclass(frozen=True, slots=True)
class ToolTypeReport:
    """What became of the records of one tool type.

    `replaced` of the accepted took the place of an earlier record of the same
    task. `version` is the dataset's afterwards; None while there is none.
    `refused` holds, for each batch that was rejected whole, the sentence why;
    its rows count as quarantined.
    """

    accepted: int = 0
    quarantined: int = 0
    outliers: int = 0
    replaced: int = 0
    version: int | None = None
    refused: tuple[str, ...] = ()

    def __add__(self, later: ToolTypeReport) -> ToolTypeReport:
        return ToolTypeReport(
            self.accepted + later.accepted,
            self.quarantined + later.quarantined,
            self.outliers + later.outliers,
            self.replaced + later.replaced,
            # A later batch without rows of this tool type has no version.
            later.version if later.version is not None else self.version,
            self.refused + later.refused,
        )


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of `records` records: the counts in it add up to that.

    `rejected` counts by reason what was not validated; what was known already
    is among it as `duplicate`. `sources` are the logs that were read, with the records in each;
    `functions` counts all that was kept out for the first time, quarantined rows and outliers
    included, by reason and function. Reports of successive batches add up.
    """

    records: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    tool_types: Mapping[str, ToolTypeReport] = field(default_factory=dict)
    lost: int = 0
    gaps: tuple[str, ...] = ()
    sources: Mapping[str, int] = field(default_factory=dict, compare=False)
    functions: Functions = field(default_factory=dict, compare=False)

    @property
    def reasons(self) -> dict[str, int]:
        """All records that were kept out, by reason: with those that are accepted, everything."""
        counts = Counter(self.rejected)
        for reason, functions in self.functions.items():
            counts[reason] = max(counts[reason], sum(functions.values()))
        return dict(counts)

    @property
    def accepted(self) -> int:
        return sum(report.accepted for report in self.tool_types.values())

    @property
    def accounted(self) -> int:
        """The sum of all counts."""
        typed = self.tool_types.values()
        kept_out = sum(report.quarantined + report.outliers for report in typed)
        return sum(self.rejected.values()) + self.accepted + kept_out

    def __add__(self, later: IngestReport) -> IngestReport:
        rejected = Counter(self.rejected)
        rejected.update(later.rejected)
        tool_types = dict(self.tool_types)
        for name, report in later.tool_types.items():
            tool_types[name] = tool_types.get(name, ToolTypeReport()) + report
        return IngestReport(
            self.records + later.records,
            dict(sorted(rejected.items())),
            tool_types,
            self.lost + later.lost,
            # Each sentence once, in the order in which they came.
            tuple(dict.fromkeys((*self.gaps, *later.gaps))),
            _added(self.sources, later.sources),
            {
                reason: _few(
                    _added(self.functions.get(reason, {}), later.functions.get(reason, {}))
                )
                for reason in sorted({*self.functions, *later.functions})
            },
        )


def _added(counts: Mapping[str, int], others: Mapping[str, int]) -> Counter[str]:
    both = Counter(counts)
    both.update(others)
    return both


def _few(counts: Counter[str]) -> Mapping[str, int]:
    """The most frequent, and the sum of all others."""
    if len(counts) <= _TOLD_APART:
        return counts
    kept = Counter(dict(counts.most_common(_TOLD_APART)))
    kept[OTHERS] += counts.total() - kept.total()
    return kept
