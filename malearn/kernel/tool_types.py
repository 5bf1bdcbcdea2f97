"""Tool types: the one declaration from which everything else follows.

A tool type says which functions belong to it, what it runs on, and which
features are known before a task of it starts. Shipped ones come from
`tool_types.toml`; a `malearn.toml` in the working directory, or the file that
`MALEARN_TOOL_TYPES` names, adds to them or replaces them by name.

Tasks are claimed by the name of their function or, where no tool type claims the name, by what
they run on and with: `kinds`, `models` and `backends`. One tool type may be generic: it takes
what nobody else claims.
"""

from __future__ import annotations

import fnmatch
import math
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from malearn.kernel.errors import DeclarationError, UnknownToolType
from malearn.kernel.names import Names
from malearn.kernel.pattern_index import PatternIndex

__all__ = [
    "CONTEXT",
    "DEFAULT_SECONDS",
    "Feature",
    "ToolType",
    "ToolTypes",
    "declaration_file",
    "declared",
    "default_seconds",
    "plain",
]

#: Seconds that a task is assumed to take while nothing is known of it, by resource, where its
#: tool type declares no `default_seconds`.
DEFAULT_SECONDS: Mapping[str, float] = {"gpu": 15.0, "cpu": 3.0, "io": 1.0}

#: What a task ran with, as text: told apart by the history wherever a log says so, else unknown.
CONTEXT = ("model", "backend", "node")

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

#: Function names whose tool type is remembered, and how long one may be that is.
_NAMES, _LONGEST_NAME = 10_000, 200
#: New executions after which a tool type is retrained between two schedules.
_RETRAIN_AFTER = 100
#: The newest executions that a model is trained on, and the fewest that may be declared.
_TRAIN_ROWS, _FEWEST_TRAIN_ROWS = 100_000, 100


@dataclass(frozen=True, slots=True)
class Feature:
    """One number known of a task before it starts.

    `minimum` and `maximum` bound what is believed; `default` is what a missing
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
    retrain_after: int = _RETRAIN_AFTER
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
    train_rows: int = _TRAIN_ROWS
    #: Names in matrix order.
    feature_names: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = tuple(feature.name for feature in self.features)
        object.__setattr__(self, "feature_names", names)  # frozen, and asked for a million times
        # What is declared as a number is no text.
        context = tuple(name for name in self.context if name not in names)
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
        return len(declared) if matches else 0


class ToolTypes(Mapping[str, ToolType]):
    """All tool types, by name, and the function names they claim.

    `families` are references to model families that a declaration adds, `file` is its path; both
    are empty where nothing was read but what is shipped.

    >>> types = declared()
    >>> types.for_function("task3b_llm_process_extract_structure_info").name
    'llm_process'
    >>> types.for_function("vlm_process_with_llm_process").name
    'vlm_process'
    >>> types.for_function("task6_prepare_llm_batches") is None
    True
    """

    def __init__(
        self, tool_types: Iterable[ToolType], families: Iterable[str] = (), file: str = ""
    ) -> None:
        self.families, self.file = tuple(families), file
        self._by_name = {tool_type.name: tool_type for tool_type in tool_types}
        self._by_task: dict[str, ToolType] = {}
        self._claiming = [t for t in self._by_name.values() if t.claims_by_criteria]
        generic = [t for t in self._by_name.values() if t.generic]
        if len(generic) > 1:
            raise DeclarationError(
                generic[1].name, f"is generic as {generic[0].name} is, and only one may be"
            )
        self.generic = generic[0] if generic else None
        claimed: dict[str, str] = {}
        patterns: list[tuple[str, ToolType]] = []
        for tool_type in self._by_name.values():
            for pattern in tool_type.functions:
                owner = claimed.setdefault(pattern.lower(), tool_type.name)
                if owner != tool_type.name:
                    raise DeclarationError(
                        tool_type.name, f"function pattern '{pattern}' already belongs to {owner}"
                    )
                patterns.append((pattern, tool_type))
        self._patterns = PatternIndex(patterns)
        # Names come from outside: the memo is bounded, and what is asked for stays in it.
        self._find = lru_cache(maxsize=_NAMES)(self._patterns.find)

    def __reduce__(self) -> tuple[type[ToolTypes], tuple[list[ToolType]]]:
        return ToolTypes, (list(self.values()),)

    def __getitem__(self, name: str) -> ToolType:
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownToolType(name, self._by_name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def get(self, name: str, default: Any = None) -> Any:
        """As for any mapping; an unknown name gives `default`."""
        return self._by_name.get(name, default)

    def for_function(self, function: str) -> ToolType | None:
        """The tool type that claims `function`, or None.

        A pattern that is the whole name wins. Else the longest pattern found in
        the name on `_` boundaries; of equally long ones the leftmost. A token
        may carry a number after it: `llm_process2` is an `llm_process`. What no
        pattern claims belongs to the generic tool type where that is declared.
        """
        found = self._named(function)
        if found is None and self.generic is not None and self.generic.everywhere and function:
            return self.generic
        return found

    def _named(self, function: str) -> ToolType | None:
        """The tool type one of whose patterns is in the name."""
        return (self._find if len(function) <= _LONGEST_NAME else self._patterns.find)(function)

    @property
    def is_open(self) -> bool:
        """Whether a task may belong to a tool type that does not claim its function's name."""
        return self.generic is not None or bool(self._claiming)

    def for_task(
        self, function: str, kind: str | None = None, model: object = None, backend: object = None
    ) -> ToolType | None:
        """The tool type that claims a task of `function`, or None.

        By the function's name; else by what it runs on (gpu, cpu, io) and with, where the tool
        type with the most criteria wins; else the generic tool type where there is one.
        `for_known` remembers what was found.
        """
        found = self._named(function)
        if found is not None or not function or not self.is_open:
            return found
        words = (str(kind or ""), str(model or ""), str(backend or ""))
        best = max(self._claiming, key=lambda t: t.claims(*words), default=None)
        found = best if best is not None and best.claims(*words) else self.generic
        if found is not None and (function in self._by_task or len(self._by_task) < 10_000):
            self._by_task[function] = found
        return found

    def for_known(self, function: str) -> ToolType | None:
        """The tool type that claims `function`, or the last of its tasks that was asked for."""
        return self._named(function) or self._by_task.get(function) or self.for_function(function)

    def with_added(self, tool_type: ToolType) -> ToolTypes:
        """These and `tool_type`, which replaces one of its name."""
        others = (t for t in self.values() if t.name != tool_type.name)
        return ToolTypes([*others, tool_type], self.families, self.file)


def declared(path: str | os.PathLike[str] | None = None) -> ToolTypes:
    """The shipped tool types and the user's: `path`, else `$MALEARN_TOOL_TYPES`, else
    `malearn.toml` in the working directory where there is one.

    Raises `DeclarationError`, naming the file and the key, for a declaration
    that does not hold together.
    """
    shipped = resources.files("malearn").joinpath("tool_types.toml").read_text(encoding="utf-8")
    tool_types = {t.name: t for t in parse(shipped, "tool_types.toml")}
    file = declaration_file(path)
    if not (path or os.environ.get("MALEARN_TOOL_TYPES") or file.is_file()):
        return ToolTypes(tool_types.values())
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(file, f"cannot be read ({error})") from error
    tables = _tables(text, str(file))
    families = _families(tables.pop("families", []), str(file))
    tool_types |= {t.name: t for t in _declarations(tables, str(file), tool_types)}
    return ToolTypes(tool_types.values(), families, str(file))


def declaration_file(path: str | os.PathLike[str] | None = None) -> Path:
    """The file of the user's declaration, whether it is there or not."""
    return Path(path or os.environ.get("MALEARN_TOOL_TYPES") or "malearn.toml")


def default_seconds(resource: str | None, tool_type: ToolType | None = None) -> float:
    """Seconds to assume for a task on `resource` while nothing is known of it.

    What its tool type declares, else 15, 3 and 1 for gpu, cpu and io. No resource, or an
    unknown one, stands for the tool type's own, or for gpu where there is no tool type.

    >>> default_seconds("cpu")
    3.0
    """
    seconds = tool_type.default_seconds if tool_type is not None else DEFAULT_SECONDS
    name = str(resource).lower()
    if name not in seconds:
        name = tool_type.resource if tool_type is not None else "gpu"
    return seconds[name]


def parse(text: str, source: str) -> list[ToolType]:
    """The tool types that a TOML `text` declares; `source` names it in errors."""
    return _declarations(_tables(text, source), source, {})


def _tables(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DeclarationError(source, f"is not valid TOML ({error})") from error


def _declarations(
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


def _families(given: object, source: str) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(name, str) and name for name in given):
        raise DeclarationError(
            source, "'families' must be a list of model families, such as [\"own_models:RIDGE\"]"
        )
    return tuple(dict.fromkeys(given))


def plain(name: str, features: Iterable[str], source: str) -> ToolType:
    """A tool type that declares the names of its `features` and nothing else of them."""
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
    retrain_after = table.get("retrain_after", _RETRAIN_AFTER)
    if type(retrain_after) is not int or retrain_after < 1:
        raise refuse("'retrain_after' must be a whole number, 1 or more")
    train_rows = table.get("train_rows", _TRAIN_ROWS)
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
    if "context" in table and (numbers := set(context) & set(features)):
        raise refuse(f"declares {', '.join(sorted(numbers))} as a feature and as context")
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
    """By family; what a family takes is for it to say, when it is fitted."""
    if not isinstance(given, dict) or not all(isinstance(table, dict) for table in given.values()):
        raise refuse("'hyperparameters' must hold a table for each family")
    found: dict[str, dict[str, Any]] = {}
    for family, table in given.items():
        if not _NAME.fullmatch(family):
            raise refuse(f"hyperparameters of '{family}', which is not a model family's name")
        found[family] = {}
        for key, value in table.items():
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


def _number(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)


def _matches(patterns: Iterable[str], value: str) -> bool:
    return any(fnmatch.fnmatchcase(value.lower(), pattern) for pattern in patterns)
