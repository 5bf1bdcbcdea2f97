"""Reads a declaration: TOML in, tool types out, or one sentence that says what is wrong in it."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from malearn.kernel import feature_names
from malearn.kernel.errors import DeclarationError
from malearn.kernel.tool_type import (
    CONTEXT,
    DEFAULT_SECONDS,
    RETRAIN_AFTER,
    TRAIN_ROWS,
    Feature,
    ToolType,
)

__all__ = ["declarations", "families", "parse", "plain", "tables"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FEATURE_KEYS = {"unit", "min", "max", "default", "monotone"}
#: What a task may be claimed by, besides the name of its function; each a list of patterns.
_CLAIMS = ("kinds", "models", "backends")
_TOOL_KEYS = {
    "functions",
    "resource",
    "features",
    "context",
    "retrain_after",
    "train_rows",
    "default_seconds",
    "families",
    "hyperparameters",
    "generic",
    *_CLAIMS,
}

#: The fewest newest executions that a model may be declared to be trained on.
_FEWEST_TRAIN_ROWS = 100


def parse(text: str, source: str) -> list[ToolType]:
    """The tool types that a TOML `text` declares; `source` names it in errors."""
    return declarations(tables(text, source), source, {})


def tables(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DeclarationError(source, f"is not valid TOML ({error})") from error


def declarations(
    tables: Mapping[str, Any], source: str, shipped: Mapping[str, ToolType]
) -> list[ToolType]:
    """The tool types of `tables`. A table without features changes the shipped type's keys."""
    return [
        _tool_type(name, _completed(table, shipped.get(name)), source)
        for name, table in tables.items()
    ]


def _completed(table: object, shipped: ToolType | None) -> object:
    """`table` with the keys that it lacks taken from the shipped type, if it has no features."""
    if shipped is None or not isinstance(table, dict) or "features" in table:
        return table
    # So a user may change one number of a shipped type without repeating its features.
    usual = {
        "functions": list(shipped.functions),
        "resource": shipped.resource,
        "context": list(shipped.context),
        "retrain_after": shipped.retrain_after,
        "default_seconds": dict(shipped.default_seconds),
        "features": {feature.name: _keys(feature) for feature in shipped.features},
    }
    return usual | table


def _keys(feature: Feature) -> dict[str, Any]:
    """`feature` as it would be declared."""
    numbers = {"min": feature.minimum, "max": feature.maximum, "default": feature.default}
    known = {key: n for key, n in numbers.items() if n is not None and math.isfinite(n)}
    return {"unit": feature.unit, "monotone": feature.monotone, **known}


def families(given: object, source: str) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(name, str) and name for name in given):
        raise DeclarationError(
            source, "'families' must be a list of model families, such as [\"own_models:RIDGE\"]"
        )
    return tuple(dict.fromkeys(given))


def plain(name: str, features: Iterable[str], source: str) -> ToolType:
    """A tool type that declares the names of its `features` and nothing else of them."""
    features = list(features)
    # Here as well: in the table below a name that is given twice stands once.
    if problem := feature_names.problem(filter(_NAME.fullmatch, features)):
        raise DeclarationError(source, f"[{name}] {problem}")
    return _tool_type(name, {"features": {feature: {} for feature in features}}, source)


def _tool_type(name: str, table: object, source: str) -> ToolType:
    def refuse(problem: str) -> DeclarationError:
        return DeclarationError(source, f"[{name}] {problem}")

    if not _NAME.fullmatch(name):
        raise refuse("needs a name of letters, digits and _, beginning with a letter")
    if not isinstance(table, dict):
        raise refuse("must be a table")
    if unknown := set(table) - _TOOL_KEYS:
        raise refuse(f"has unknown keys: {', '.join(sorted(unknown))}")
    claims = {key: _patterns(key, table.get(key, []), refuse) for key in _CLAIMS}
    generic = table.get("generic", False)
    if not isinstance(generic, bool):
        raise refuse("'generic' must be true or false")
    by_name = not generic and not any(claims.values())
    functions = table.get("functions", [name] if by_name else [])
    if (
        not isinstance(functions, list)
        or (by_name and not functions)
        or not all(isinstance(f, str) and f.strip("_") for f in functions)
    ):
        raise refuse("'functions' must be a list of function-name patterns")
    resource = table.get("resource", "gpu")
    if resource not in DEFAULT_SECONDS:
        raise refuse(f"'resource' must be one of {', '.join(DEFAULT_SECONDS)}")
    retrain_after = table.get("retrain_after", RETRAIN_AFTER)
    # Not `isinstance`, which takes TOML's `true` for 1; likewise below.
    if type(retrain_after) is not int or retrain_after < 1:
        raise refuse("'retrain_after' must be a whole number, 1 or more")
    train_rows = table.get("train_rows", TRAIN_ROWS)
    if type(train_rows) is not int or train_rows < _FEWEST_TRAIN_ROWS:
        raise refuse(f"'train_rows' must be a whole number, {_FEWEST_TRAIN_ROWS} or more")
    seconds = _default_seconds(table.get("default_seconds", {}), refuse)
    features = table.get("features")
    if generic and features is None:
        features = {}
    if not isinstance(features, dict) or not (features or generic):
        raise refuse("declares no features")
    context = table.get("context", list(CONTEXT))
    if not isinstance(context, list) or not all(
        isinstance(name, str) and _NAME.fullmatch(name) for name in context
    ):
        raise refuse("'context' must be a list of names of letters, digits and _")
    # Only a context that was written down: the usual words give way to features of their names.
    if "context" in table and (numbers := set(context) & set(features)):
        raise refuse(f"declares {', '.join(sorted(numbers))} as a feature and as context")
    words = dict.fromkeys(context) if "context" in table else ()
    if problem := feature_names.problem(features, words):
        raise refuse(problem)
    return ToolType(
        name,
        tuple(functions),
        resource,
        tuple(_feature(key, value, refuse) for key, value in features.items()),
        tuple(dict.fromkeys(context)),
        retrain_after,
        seconds,
        _names_of_families(table.get("families", []), refuse),
        _hyperparameters(table.get("hyperparameters", {}), refuse),
        **claims,
        generic=generic,
        everywhere=generic,
        train_rows=train_rows,
    )


def _names_of_families(given: object, refuse: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(
        isinstance(name, str) and _NAME.fullmatch(name) for name in given
    ):
        raise refuse("'families' must be a list of names of model families")
    return tuple(dict.fromkeys(given))


def _hyperparameters(given: object, refuse: Any) -> dict[str, dict[str, Any]]:
    """By family; what a family accepts is checked by the family when it is fitted."""
    if not isinstance(given, dict) or not all(isinstance(table, dict) for table in given.values()):
        raise refuse("'hyperparameters' must hold a table for each family")
    found: dict[str, dict[str, Any]] = {}
    for family, table in given.items():
        if not _NAME.fullmatch(family):
            raise refuse(f"hyperparameters of '{family}', which is not a model family's name")
        found[family] = {}
        for key, value in table.items():
            # Tuples, since what is declared is shared and must not change.
            plain = tuple(value) if isinstance(value, list) else value
            parts = plain if isinstance(plain, tuple) else (plain,)
            if not parts or not all(_is_plain(part) for part in parts):
                raise refuse(
                    f"hyperparameters.{family}: '{key}' must be a finite number, true, false, "
                    "a text or a list of these"
                )
            found[family][key] = plain
    return found


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _patterns(key: str, given: object, refuse: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(p, str) and p.strip() for p in given):
        raise refuse(f"'{key}' must be a list of names, in which * stands for anything")
    # Lower case, as the values are that they are matched with.
    return tuple(pattern.strip().lower() for pattern in given)


def _default_seconds(given: object, refuse: Any) -> dict[str, float]:
    """By resource, from one number for all of them or a table of some."""
    table: dict[str, Any]
    table = given if isinstance(given, dict) else dict.fromkeys(DEFAULT_SECONDS, given)
    seconds = dict(DEFAULT_SECONDS)
    for resource, value in table.items():
        if resource not in DEFAULT_SECONDS:
            known = ", ".join(DEFAULT_SECONDS)
            raise refuse(f"'default_seconds' names the resource '{resource}'; there are {known}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0.0 < float(value) < math.inf:
            raise refuse(
                "'default_seconds' must be a number of seconds above 0, or a table such as "
                "{ gpu = 40, cpu = 90 }"
            )
        seconds[resource] = float(value)
    return seconds


def _feature(name: str, table: object, refuse: Any) -> Feature:
    if not _NAME.fullmatch(name):
        raise refuse(f"feature '{name}' needs a name of letters, digits and _")
    if not isinstance(table, dict):
        raise refuse(f"feature {name} must be a table such as {{ unit = 's', min = 0 }}")
    if unknown := set(table) - _FEATURE_KEYS:
        raise refuse(f"feature {name} has unknown keys: {', '.join(sorted(unknown))}")
    unit = table.get("unit", "")
    if not isinstance(unit, str):
        raise refuse(f"feature {name}: 'unit' must be text")
    numbers = {}
    for key in ("min", "max", "default"):
        value = table.get(key)
        if value is not None and (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise refuse(f"feature {name}: '{key}' must be a finite number")
        numbers[key] = None if value is None else float(value)
    monotone = table.get("monotone", 0)
    if monotone not in (-1, 0, 1) or isinstance(monotone, bool):
        raise refuse(f"feature {name}: 'monotone' must be -1, 0 or 1")
    low = -math.inf if numbers["min"] is None else numbers["min"]
    high = math.inf if numbers["max"] is None else numbers["max"]
    default = numbers["default"]
    if low > high:
        raise refuse(f"feature {name}: 'min' is above 'max'")
    if default is not None and not low <= default <= high:
        raise refuse(f"feature {name}: 'default' lies outside 'min' and 'max'")
    return Feature(name, unit, low, high, default, int(monotone))
