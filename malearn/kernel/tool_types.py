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

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from malearn.kernel import declaration_parser
from malearn.kernel.declaration_parser import parse, plain
from malearn.kernel.errors import DeclarationError, UnknownToolType
from malearn.kernel.pattern_index import PatternIndex
from malearn.kernel.tool_type import (
    CONTEXT,
    DEFAULT_SECONDS,
    Feature,
    ToolType,
    default_seconds,
    resource_name,
)

__all__ = [
    "CONTEXT",
    "DEFAULT_SECONDS",
    "Feature",
    "ToolType",
    "ToolTypes",
    "declaration_file",
    "declared",
    "default_seconds",
    "parse",
    "plain",
    "resource_name",
]

#: Function names whose tool type is remembered, and how long one may be that is.
_NAMES, _LONGEST_NAME = 10_000, 200


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

    def __reduce__(self) -> tuple[type[ToolTypes], tuple[list[ToolType], tuple[str, ...], str]]:
        # Index and memo are made anew: a bound `lru_cache` cannot be pickled.
        return ToolTypes, (list(self.values()), self.families, self.file)

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
        # A long name is looked up without the memo, which would hold 10,000 of them.
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
        found = self._by_criteria(kind, model, backend) or self.generic
        # Bounded like the memo of names, which also come from outside.
        if found is not None and (function in self._by_task or len(self._by_task) < 10_000):
            self._by_task[function] = found
        return found

    def for_known(self, function: str) -> ToolType | None:
        """The tool type that claims `function`, or the last of its tasks that was asked for."""
        # In the order of certainty: a task's record does not name the resource it ran on.
        return self._named(function) or self._by_task.get(function) or self.for_function(function)

    def for_record(self, function: str, reported: Mapping[str, object] | None) -> ToolType | None:
        """The tool type that claims a finished task, which `reported` its model and backend.

        Logs do not name the resource that a task ran on, so `kinds` claim nothing there.
        """
        found = self._named(function)
        if found is None and function and reported and self._claiming:
            found = self._by_criteria(None, reported.get("model"), reported.get("backend"))
        return found or self.for_function(function)

    @property
    def claiming(self) -> Sequence[ToolType]:
        """Those that claim tasks by more than the names of functions."""
        return self._claiming

    def _by_criteria(self, kind: object, model: object, backend: object) -> ToolType | None:
        words = (str(kind or ""), str(model or ""), str(backend or ""))
        # Of equally many criteria the one declared first, as `max` keeps the first.
        best = max(self._claiming, key=lambda t: t.claims(*words), default=None)
        return best if best is not None and best.claims(*words) else None

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
    # Only a file that nobody named may be missing.
    if not (path or os.environ.get("MALEARN_TOOL_TYPES") or file.is_file()):
        return ToolTypes(tool_types.values())
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(file, f"cannot be read ({error})") from error
    tables = declaration_parser.tables(text, str(file))
    families = declaration_parser.families(tables.pop("families", []), str(file))
    tool_types |= {
        t.name: t for t in declaration_parser.declarations(tables, str(file), tool_types)
    }
    return ToolTypes(tool_types.values(), families, str(file))


def declaration_file(path: str | os.PathLike[str] | None = None) -> Path:
    """The file of the user's declaration, whether it is there or not."""
    return Path(path or os.environ.get("MALEARN_TOOL_TYPES") or "malearn.toml")
