"""The generic tool type `other`: tasks whose function no tool type claims.

Nobody declares what such tasks report, so its features are found: the names that predecessors
announced, in `succ_task_feat`, for a function that nobody claims. What a task reports only of
itself may be known too late, and never becomes a feature. A home keeps what was found in
`data/other.toml`, in the order of discovery, so that columns keep their places.

It is on where a user declares a tool type with `generic = true`, and for tasks of a Maze store.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from malearn.kernel import declaration_parser, feature_names, features, tool_types
from malearn.kernel.errors import DeclarationError
from malearn.kernel.home import Home
from malearn.kernel.tool_types import Feature, ToolType, ToolTypes

__all__ = ["MOST_FEATURES", "NAME", "announced", "declared", "extended", "keep", "with_generic"]

#: The name of the generic tool type where nobody declared one.
NAME = "other"
#: More names than this are no features but data.
MOST_FEATURES = 32

_FILE = "other.toml"
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


def declared(home: Home) -> ToolTypes:
    """As `tool_types.declared`, with the generic tool type as it was found in `home`, if it was.

    Raises `DeclarationError`.
    """
    types = tool_types.declared()
    file = home.data / _FILE
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return types
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(file, f"cannot be read ({error})") from error
    tables = declaration_parser.tables(text, str(file))
    for table in tables.values():
        # A name that became none for a feature after it was found must not close the home.
        if isinstance(table, dict) and isinstance(named := table.get("features"), dict):
            table["features"] = {name: named[name] for name in feature_names.usable(named)}
    found = declaration_parser.declarations(tables, str(file), {})
    names = [name for tool_type in found for name in tool_type.feature_names]
    return with_generic(types, names)


def with_generic(types: ToolTypes, names: Iterable[str] = ()) -> ToolTypes:
    """`types` with a generic tool type that has the features `names` besides its own."""
    generic = types.generic
    if generic is None:
        if NAME in types:  # somebody's own, which happens to bear the name
            return types
        # What nobody claims may be anything; a task's own resource, where known, overrules this.
        generic = ToolType(NAME, (), "cpu", (), generic=True)
    grown = extended(generic, names)
    return types if grown is types.generic else types.with_added(grown)


def extended(tool_type: ToolType, names: Iterable[str]) -> ToolType:
    """`tool_type` with those of `names` that are features of tasks, after the ones that it has."""
    known = (*tool_type.feature_names, *tool_type.context)
    new = [n for n in feature_names.usable(names, known) if _IDENTIFIER.fullmatch(n)]
    # Later names are dropped, not earlier ones, whose columns models already read.
    new = new[: max(0, MOST_FEATURES - len(tool_type.features))]
    if not new:
        return tool_type
    return replace(tool_type, features=(*tool_type.features, *map(Feature, new)))


def announced(
    successors: Mapping[str, Mapping[str, object]], function: str | None = None
) -> list[str]:
    """The names of numbers that a task announced for the tasks after it, or for one `function`."""
    chosen = successors.values() if function is None else [successors.get(function, {})]
    return [
        name
        for given in chosen
        for name, value in given.items()
        if features.finite(value) is not None and not isinstance(value, bool)
    ]


def keep(home: Home, tool_type: ToolType) -> None:
    """Write down the features of the generic `tool_type` below `home`, all at once."""
    lines = [
        "# Written by malearn: what predecessors announced for functions that no tool type claims.",
        f"[{tool_type.name}]",
        "generic = true",
        f"[{tool_type.name}.features]",
        *(f"{name} = {{}}" for name in tool_type.feature_names),
        "",
    ]
    home.data.mkdir(parents=True, exist_ok=True)
    # Renamed when whole, so that no reader meets half a declaration; named after the process,
    # since two ingesters may write at once.
    scratch = home.data / f".{_FILE}.{os.getpid()}"
    scratch.write_text("\n".join(lines), encoding="utf-8")
    scratch.replace(home.data / _FILE)
