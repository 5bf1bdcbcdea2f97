"""One tool type: what it claims, what it runs on, and the features known before a task starts."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from malearn.kernel.names import Names

__all__ = [
    "CONTEXT",
    "DEFAULT_SECONDS",
    "RETRAIN_AFTER",
    "TRAIN_ROWS",
    "Feature",
    "ToolType",
    "default_seconds",
    "resource_name",
]

#: Seconds that a task is assumed to take while nothing is known of it, by resource, where its
#: tool type declares no `default_seconds`.
DEFAULT_SECONDS: Mapping[str, float] = {"gpu": 15.0, "cpu": 3.0, "io": 1.0}

#: What a task ran with, as text: the history distinguishes it wherever a log names it.
CONTEXT = ("model", "backend", "node")

#: New executions after which a tool type is retrained between two schedules.
RETRAIN_AFTER = 100
#: The newest executions that a model is trained on.
TRAIN_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Feature:
    """One number known of a task before it starts.

    `minimum` and `maximum` bound what is accepted; `default` is what a missing
    value means (None: it stays missing, NaN); `monotone` is 1 where more can
    only take longer, -1 where more can only take less, else 0.
    """

    name: str
    unit: str = ""
    minimum: float = -math.inf
    maximum: float = math.inf
    default: float | None = None
    monotone: int = 0

    @property
    def missing(self) -> float:
        """The number that stands for a missing value."""
        return math.nan if self.default is None else self.default

    @property
    def bounds(self) -> str:
        """What its values must be, in words.

        >>> Feature("duration", "s", 0, 86_400).bounds
        'between 0 and 86,400 s'
        """
        unit = f" {self.unit}" if self.unit else ""
        low, high = (_number(float(bound)) for bound in (self.minimum, self.maximum))
        if math.isinf(self.minimum) and math.isinf(self.maximum):
            return f"a finite number{f' of{unit}' if unit else ''}"
        if math.isinf(self.maximum):
            return f"at least {low}{unit}"
        if math.isinf(self.minimum):
            return f"at most {high}{unit}"
        return f"between {low} and {high}{unit}"


@dataclass(frozen=True, slots=True)
class ToolType:
    """A kind of task whose execution times are learnt together.

    After `retrain_after` new executions it is retrained without waiting for its schedule, on the
    newest `train_rows` of them all.
    `default_seconds`, by resource, is what a task of it is assumed to take while nothing is known.
    `families` are the model families that its trainings try, the usual ones where there are none;
    `hyperparameters`, by family, what these are fitted with instead of their defaults.
    """

    name: str
    functions: tuple[str, ...]
    resource: str
    features: tuple[Feature, ...]
    #: Names of the texts that say under which conditions a task runs; each may be unknown.
    context: tuple[str, ...] = CONTEXT
    retrain_after: int = RETRAIN_AFTER
    # A mapping has no hash; the other fields tell tool types apart well enough.
    default_seconds: Mapping[str, float] = field(
        default_factory=lambda: DEFAULT_SECONDS, hash=False
    )
    families: tuple[str, ...] = ()
    hyperparameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    #: Patterns of what a task runs on and with, for functions whose name nobody claims: it must
    #: match one of each list that is not empty.
    kinds: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    #: Whether it takes every task that no other tool type claims, of those whose kind, model
    #: and backend are known; `everywhere`: also of those known by their function's name alone.
    generic: bool = False
    everywhere: bool = False
    train_rows: int = TRAIN_ROWS
    #: Names in matrix order.
    feature_names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = tuple(feature.name for feature in self.features)
        object.__setattr__(self, "feature_names", names)  # frozen, and asked for a million times
        # What is declared as a number is no text; in any case, as columns differ by more than that.
        numbers = {name.casefold() for name in names}
        context = tuple(name for name in self.context if name.casefold() not in numbers)
        object.__setattr__(self, "context", context)

    @property
    def registered_model(self) -> str:
        """The name of its models in the MLflow registry."""
        return Names.find().registered_model(self.name)

    @property
    def claims_by_criteria(self) -> bool:
        """Whether it claims tasks by anything but the name of their function."""
        return bool(self.kinds or self.models or self.backends)

    def claims(self, kind: str, model: str, backend: str) -> int:
        """By how many criteria it claims a task that runs on and with these; 0: it does not."""
        wanted = ((self.kinds, kind), (self.models, model), (self.backends, backend))
        declared = [(patterns, value) for patterns, value in wanted if patterns]
        matches = all(_matches(patterns, value) for patterns, value in declared)
        # All of them must match, so the number ranks the more specific declaration first.
        return len(declared) if matches else 0


def resource_name(given: object) -> str:
    """The name of a resource in the letters of `DEFAULT_SECONDS`, whoever wrote it.

    >>> resource_name(" GPU")
    'gpu'
    """
    return str(given).strip().lower()


def default_seconds(resource: str | None, tool_type: ToolType | None = None) -> float:
    """Seconds to assume for a task on `resource` while nothing is known of it.

    What its tool type declares, else 15, 3 and 1 for gpu, cpu and io. No resource, or an
    unknown one, stands for the tool type's own, or for gpu where there is no tool type.

    >>> default_seconds("cpu")
    3.0
    """
    seconds = tool_type.default_seconds if tool_type is not None else DEFAULT_SECONDS
    # Callers pass on what their scheduler has, which may be None or a name of its own.
    name = resource_name(resource)
    if name not in seconds:
        name = tool_type.resource if tool_type is not None else "gpu"
    return seconds[name]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)


def _matches(patterns: Iterable[str], value: str) -> bool:
    # Not `fnmatch`, whose rule for upper and lower case is that of the file system.
    return any(fnmatch.fnmatchcase(value.lower(), pattern) for pattern in patterns)
