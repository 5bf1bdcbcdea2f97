"""What a family of models is: everything that malearn needs of a library, in one value.

A family fits a function from a row of inputs to a number in log-seconds. What surrounds it (the
level that it starts from, the clips, the exponential) is the same for all: see `regressor`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

__all__ = ["SEED", "Choice", "Family", "Inputs", "Parameters", "Range", "Vector"]

#: float32 of shape (rows, columns), NaN where missing.
Inputs = NDArray[np.float32]
Vector = NDArray[np.float64]
#: Hyper-parameters by name: numbers, texts, flags, or tuples of them.
Parameters = Mapping[str, Any]

#: Everything random is drawn from this, so that a fit can be repeated exactly.
SEED = 7

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers that a search may try, both ends included; whole ones where both ends are.

    With `log` they are drawn evenly on a logarithmic scale.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and not self.low > 0):
            raise ValueError(f"Range({self.low}, {self.high}) is empty, or not above 0 with log")

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are tried."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Choice:
    """Values that a search may try, in no order."""

    options: tuple[Any, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.options))


def _unconstrained(parameters: Parameters, monotone: Sequence[int]) -> Parameters:
    return parameters


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of model.

    `name` is what commands, declarations and MLflow call it.
    `fewest_rows`: fewer do not suffice to fit one.
    `defaults` are its hyper-parameters, `search` what a search may try for some of them, `also`
    the names of others that a declaration may set.
    `fit(inputs, target, parameters)` takes targets in log-seconds and returns an estimator with
    scikit-learn's `predict`.
    `importance(estimator, columns)` gives one non-negative weight per column.
    `to_onnx(estimator, columns, name)` converts it to a graph of one input, `name`, of shape
    (rows, columns), and one output: what `predict` returns.
    `read(bytes)` makes an estimator of its native form, which is kept under one of the names
    `files` and runs no code: there is no pickle among them. `flavor` names the module of MLflow
    that writes it; a family without one writes it itself, with `save(estimator)`. `trusted` are
    types that skops may make beside those that it knows to be harmless.
    `constrain(parameters, monotone)` adds what makes an estimator keep to one constraint of -1,
    0 or 1 a column, where its library can.
    `update(estimator, inputs, target, parameters)` returns another that goes on from a fitted
    one, which stays as it is, or None where that one has grown as large as it may; it is absent
    where a full fit costs no more.
    `package` is the distribution that it needs.
    `contributions(estimator, inputs)` says what each input adds to each answer, in log-seconds, of
    shape (rows, columns + 1) with what is left for no input last; a row sums to what `predict`
    returns. `contributions_by` names the method. Absent where the library has none of its own:
    see `learning.contributions`.
    """

    name: str
    fewest_rows: int
    fit: Callable[[Inputs, Vector, Parameters], Any]
    importance: Callable[[Any, int], Vector]
    to_onnx: Callable[[Any, int, str], onnx.ModelProto]
    files: tuple[str, ...]
    read: Callable[[bytes], Any]
    defaults: Parameters = field(default_factory=dict)
    search: Mapping[str, Range | Choice] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    flavor: str = ""
    save: Callable[[Any], bytes] | None = None
    trusted: tuple[str, ...] = ()
    constrain: Callable[[Parameters, Sequence[int]], Parameters] = _unconstrained
    update: Callable[[Any, Inputs, Vector, Parameters], Any | None] | None = None
    package: str = "scikit-learn"
    contributions: Callable[[Any, Inputs], Vector] | None = None
    contributions_by: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(
                f"a family's name is small letters, digits and _, beginning with a letter, "
                f"not {self.name!r}"
            )
        if type(self.fewest_rows) is not int or self.fewest_rows < 2:
            raise ValueError(f"{self.name}: 'fewest_rows' must be a whole number, 2 or more")
        # The first trial of a search is of the defaults, so each parameter must have one.
        if unknown := sorted(set(self.search) - set(self.defaults)):
            raise ValueError(f"{self.name}: 'search' names {unknown[0]}, which has no default")
        if not self.files or (not self.flavor and self.save is None):
            raise ValueError(f"{self.name}: it needs 'files', and a 'flavor' or 'save'")

    def parameters(self, given: Parameters | None = None, monotone: Sequence[int] = ()) -> Any:
        """All hyper-parameters of a fit: the defaults, what is `given` instead, constraints."""
        chosen = {**self.defaults, **(given or {})}
        # Only where a constraint is declared: it may require another objective.
        return self.constrain(chosen, monotone) if any(monotone) else chosen

    def problem(self, given: Parameters) -> str | None:
        """What is wrong with hyper-parameters from outside, as half a sentence, or None."""
        known = {*self.defaults, *self.also}
        if unknown := sorted(set(given) - known):
            return f"has unknown keys: {', '.join(unknown)}; {self.name} takes {_listed(known)}"
        for key, value in given.items():
            default = self.defaults.get(key)
            if default is not None and not _is_alike(value, default):
                return f"'{key}' must be {_kind(default)}, such as {default}, not {value!r}"
        return None


def _is_alike(value: Any, default: Any) -> bool:
    # Before numbers, since Python's bool is an int.
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    if isinstance(default, float):
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, type(default))


def _kind(default: Any) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return kinds.get(type(default), "a list")


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
