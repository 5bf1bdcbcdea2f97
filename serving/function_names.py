"""`DAGTaskPredictor.func_name_to_tool_type`: a view of the declaration.

The original keeps a dictionary of that name. Here the declaration is the one
place where it stands which function belongs where; this reads it, and what is
set through it is declared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import replace

from malearn.kernel.tool_types import ToolType, ToolTypes

__all__ = ["FunctionNames"]


class FunctionNames(MutableMapping[str, str]):
    """`{function-name pattern: tool type's name}`, live in both directions.

    Setting a pattern to a name nobody declared declares it: a tool type without
    features, whose tasks are estimated from their history alone.
    """

    def __init__(
        self, tool_types: Callable[[], ToolTypes], declare: Callable[[ToolTypes], None]
    ) -> None:
        self._tool_types, self._declare = tool_types, declare

    def __getitem__(self, pattern: str) -> str:
        return self._patterns()[pattern]

    def __iter__(self) -> Iterator[str]:
        return iter(self._patterns())

    def __len__(self) -> int:
        return len(self._patterns())

    def __setitem__(self, pattern: str, name: str) -> None:
        types = [_without(t, pattern) for t in self._tool_types().values()]
        if name not in self._tool_types():
            types.append(ToolType(name, (), "gpu", ()))
        self._declare(
            ToolTypes(
                replace(t, functions=(*t.functions, pattern)) if t.name == name else t
                for t in types
            )
        )

    def __delitem__(self, pattern: str) -> None:
        self._patterns()[pattern]  # KeyError for what is not there
        self._declare(ToolTypes(_without(t, pattern) for t in self._tool_types().values()))

    def __repr__(self) -> str:
        return repr(self._patterns())

    def _patterns(self) -> dict[str, str]:
        return {p: t.name for t in self._tool_types().values() for p in t.functions}


def _without(tool_type: ToolType, pattern: str) -> ToolType:
    kept = tuple(p for p in tool_type.functions if p != pattern)
    return (
        tool_type if len(kept) == len(tool_type.functions) else replace(tool_type, functions=kept)
    )
