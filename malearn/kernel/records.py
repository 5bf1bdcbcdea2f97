"""The values on the way from a log to a dataset: a `Record`, an `Execution`, a `Rejected`.

`record_reader` makes records of what workers wrote, `joining` executions of the records of
whole runs, `stream_entries` executions of what schedulers appended to the stream.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgspec

from malearn.kernel import features
from malearn.kernel.reading import run_ids

__all__ = ["Execution", "Record", "RejectReason", "Rejected"]


class RejectReason(enum.StrEnum):
    """Why a record is rejected: the reason codes of the execution-log contract."""

    # The values stand in datasets and in the stream: another name needs a line in `_missing_`.
    INVALID_JSON = "invalid_json"
    NOT_AN_OBJECT = "not_an_object"
    NO_TIMES = "no_times"
    BAD_TIMES = "bad_times"
    FUTURE_TIMES = "future_times"
    SKIPPED = "skipped"
    SOFT_FAILED = "soft_failed"
    NO_FEATURES = "no_features"
    UNMAPPED_FUNCTION = "unmapped_function"
    INVALID_FEATURE = "invalid_feature"
    OUTLIER = "outlier"
    BATCH_REFUSED = "batch_refused"
    DATASET_DAMAGED = "dataset_damaged"
    DUPLICATE = "duplicate"
    PAST_RETENTION = "past_retention"

    @classmethod
    def _missing_(cls, value: object) -> RejectReason | None:
        """The reason that 0.1.0 wrote under another name."""
        return cls.PAST_RETENTION if value == "expired" else None


class Record(msgspec.Struct, frozen=True, gc=False):
    """One finished task as its worker reported it.

    `start` and `end` are seconds since the epoch. `features` is what the task
    reported of itself as it ran; `successors` what it reported of tasks after it, by
    function, where the empty name stands for a map that names none.
    """

    task_id: str
    function: str
    start: float
    end: float
    features: Mapping[str, object] = {}
    successors: Mapping[str, Mapping[str, object]] = {}
    query: str = ""

    @property
    def run(self) -> str:
        return run_ids.run_of(self.task_id, self.function)

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Execution:
    """One finished task with its features: what models learn from.

    `serve` and `ran` hold one number per feature of its tool type, in declared
    order, NaN where missing: `serve` as known from its predecessors before it
    started, `ran` as it reported itself. `serve_context` and `ran_context` hold
    one text per name of its tool type's context, "" where unknown, and are empty
    where none is known. Times are seconds since the epoch.

    Its edges in the workflow: `predecessors` are the ids of the tasks it waited for, None
    where no graph told; `successors` the functions that its own report named. `resource` is what
    it ran on (gpu, cpu, io), "" where only its tool type tells.
    """

    task_id: str
    function: str
    tool_type: str
    start: float
    end: float
    serve: tuple[float, ...]
    ran: tuple[float, ...]
    query: str = ""
    predicted: float | None = None
    model_version: int | None = None
    serve_context: tuple[str, ...] = ()
    ran_context: tuple[str, ...] = ()
    predecessors: tuple[str, ...] | None = None
    successors: tuple[str, ...] = ()
    resource: str = ""

    @property
    def context(self) -> tuple[str, ...]:
        """What it ran with: as it reported, else as was known before."""
        return self.ran_context or self.serve_context

    @property
    def run(self) -> str:
        return run_ids.run_of(self.task_id, self.function)

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def with_prediction(self, seconds: object, version: object) -> Execution:
        """The same with what was predicted, in seconds, and by which model version.

        What is no finite number, or no version, is left out.
        """
        # Up to what a column of int64 holds; `type`, since a boolean is an int as well.
        number = version if type(version) is int and 0 <= version < 2**63 else None
        return replace(self, predicted=features.finite(seconds), model_version=number)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that no model learns from, and why; `record` is what is kept of it, as JSON."""

    task_id: str
    function: str
    reason: RejectReason
    detail: str
    record: str = ""
    #: When the task ended, and started, in seconds since the epoch; None where unknown or not
    #: plausible.
    end: float | None = field(default=None, compare=False)
    start: float | None = field(default=None, compare=False)

    @property
    def times(self) -> tuple[float, float] | None:
        """When a task ran that failed or was skipped; None for any other, and where unknown."""
        if self.reason not in _UNSUCCESSFUL or self.start is None or self.end is None:
            return None
        return self.start, self.end


_UNSUCCESSFUL = frozenset({RejectReason.SOFT_FAILED, RejectReason.SKIPPED})
