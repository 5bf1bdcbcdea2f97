"""What a predictor was built with, as it holds where it was built."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from malearn.kernel.errors import InputError
from malearn.kernel.reading.believable import Clock
from malearn.kernel.tool_types import ToolTypes

__all__ = ["FAMILY", "RETRAIN_AFTER", "Settings", "redis_url", "tracking_uri"]

#: The family of models that a predictor fits which learns by itself, unless told otherwise.
FAMILY = "xgboost"
#: New executions after which it fits another.
RETRAIN_AFTER = 50

_SHORTEST_INTERVAL, _LONGEST_BUDGET = 0.01, 1e6  # seconds


@dataclass(frozen=True, slots=True)
class Settings:
    """The arguments of a `DAGTaskPredictor`, by their names there, those left out resolved.

    `redis_url` is "" and `tracking_uri` None where there is no such server. Raises `InputError`
    for arguments that exclude each other, or that nobody can mean.
    """

    redis_url: str
    tracking_uri: str | None
    alias: str
    budget: float
    refresh_interval: float
    cache_dir: str | os.PathLike[str] | None
    tool_types: ToolTypes
    reads_results: bool
    clock: Clock
    model_dir: str | os.PathLike[str] | None
    model: str
    retrain_after: int
    prefix: str
    functions: int
    shares: bool

    def __post_init__(self) -> None:
        if self.model_dir is None:
            self._check_unused()
        _check_seconds("budget", self.budget, 0.0, _LONGEST_BUDGET)
        # Less would flood the registry with questions; never again is a wish one may have.
        _check_seconds("refresh_interval", self.refresh_interval, _SHORTEST_INTERVAL, math.inf)

    def _check_unused(self) -> None:
        """Raise `InputError` for what only a predictor with a `model_dir` goes by."""
        for name, usual in (("model", FAMILY), ("retrain_after", RETRAIN_AFTER)):
            if (given := getattr(self, name)) != usual:
                raise InputError(
                    name,
                    f"{given!r} is for a predictor that fits models itself: give a model_dir, too; "
                    "without one, models come from MLflow",
                )

    @property
    def sends(self) -> bool:
        """Whether what is reported is sent to Redis."""
        return bool(self.redis_url) and self.shares

    def arguments(self) -> Mapping[str, Any]:
        """What builds the same predictor elsewhere, where other variables may be set."""
        # The cache's place is left to the environment there, unless it was given: it may be
        # another machine.
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _check_seconds(name: str, value: object, least: float, most: float) -> None:
    """Raise `InputError`, naming the argument, unless `value` is seconds between the two."""
    # NaN compares false.
    if not isinstance(value, Real) or not least <= float(value) <= most:
        limit = f"from {least:g} to {most:,.0f}" if math.isfinite(most) else f"of {least:g} or more"
        raise InputError(name, f"must be a number of seconds {limit}, not {value!r}")


def redis_url(given: str | None) -> str:
    """Where the scheduler keeps its records: `given`, else `$MALEARN_REDIS_URL`."""
    if given is not None:
        return given
    return os.environ.get("MALEARN_REDIS_URL") or "redis://127.0.0.1:6379/0"


def tracking_uri(given: str | None, model_dir: str | os.PathLike[str] | None) -> str | None:
    """The MLflow server to follow: `given`, else `$MLFLOW_TRACKING_URI`; none with a `model_dir`.

    Raises `InputError` where both are given.
    """
    if model_dir is None:
        return given or os.environ.get("MLFLOW_TRACKING_URI")
    # The variable may be set for other programs, so a `model_dir` overrules it.
    if given is not None:
        raise InputError("model_dir", "models come from it or from tracking_uri: give one")
    return None
