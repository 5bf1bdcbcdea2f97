"""What each reason means for which a record is not learned from, and which of them are normal."""

from __future__ import annotations

from collections.abc import Mapping

from malearn.kernel.records import RejectReason

__all__ = ["NORMAL", "REASONS", "meaning", "normal"]

#: What each reason code means.
REASONS: Mapping[RejectReason, str] = {
    RejectReason.INVALID_JSON: "the value is not valid JSON",
    RejectReason.NOT_AN_OBJECT: "the value is JSON, but not an object",
    RejectReason.NO_TIMES: "a start or end time is missing",
    RejectReason.BAD_TIMES: "the times are not finite, not in order, or too far apart",
    RejectReason.FUTURE_TIMES: "it ended minutes ahead of this clock: another zone, or other units",
    RejectReason.SKIPPED: "the task was skipped",
    RejectReason.SOFT_FAILED: "the status of the task says that it failed",
    RejectReason.NO_FEATURES: "neither the task nor its predecessors reported features",
    RejectReason.UNMAPPED_FUNCTION: "no tool type claims the function",
    RejectReason.INVALID_FEATURE: "a value breaks the contract",
    RejectReason.OUTLIER: "far from the recent durations of its function",
    RejectReason.PAST_RETENTION: "it ended before the retention limit of its dataset",
    RejectReason.DATASET_DAMAGED: "its dataset could not be read; retry it after the repair",
    RejectReason.DUPLICATE: "the same task is already known",
    RejectReason.BATCH_REFUSED: "part of a batch with too many bad rows",
}

#: What every healthy log holds, and why nobody need look into it.
NORMAL: Mapping[RejectReason, str] = {
    RejectReason.DUPLICATE: "logs are read again, and schedulers report tasks by two ways",
    RejectReason.SKIPPED: "it did not run, so it took no time",
    RejectReason.NO_FEATURES: "tasks of no tool type, such as reading a file, say nothing of "
    "their inputs",
    RejectReason.UNMAPPED_FUNCTION: "nobody asked for predictions of it; declare a tool type to "
    "get them",
    RejectReason.PAST_RETENTION: "the dataset keeps no rows that old",
}


def normal(code: str) -> bool:
    """Whether records are kept out for this reason in any healthy log."""
    return any(reason == code for reason in NORMAL)


def meaning(code: str) -> str:
    """What `code` says of a record; with why it is normal, where it is."""
    words = next((words for reason, words in REASONS.items() if reason == code), "")
    why = next((words for reason, words in NORMAL.items() if reason == code), "")
    return f"{words}: {why}" if why else words
