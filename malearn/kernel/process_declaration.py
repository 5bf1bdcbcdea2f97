"""What is declared in this process alone, beside the files: `HERE` is the one of everybody.

Two views of it are what the original's documentation names: `ExecTimePredictor.tool_types` adds
tool types, `DAGTaskPredictor.func_name_to_tool_type` says which functions are theirs. Their order
is free, and predictors that are built later see both.
"""

from __future__ import annotations

from dataclasses import replace

from malearn.kernel import tool_types
from malearn.kernel.errors import DeclarationError
from malearn.kernel.tool_types import ToolType, ToolTypes

__all__ = ["HERE", "ProcessDeclaration", "with_function", "without_function"]


class ProcessDeclaration:
    """The declaration of the files, and what was added to it."""

    def __init__(self) -> None:
        self._added: dict[str, ToolType] = {}
        self._functions: dict[str, str | None] = {}

    def declared(self) -> ToolTypes:
        """All tool types, as a predictor that is built now takes them."""
        found = tool_types.declared()
        # Copies, since another thread may declare something meanwhile.
        for tool_type in list(self._added.values()):
            found = found.with_added(tool_type)
        for pattern, name in list(self._functions.items()):
            if name is not None:
                found = with_function(found, pattern, name)
            elif any(pattern in t.functions for t in found.values()):
                found = without_function(found, pattern)
        return found

    def add(self, tool_type: ToolType) -> None:
        """Declare `tool_type`. Raises `DeclarationError` for what does not hold together."""
        # Only to raise at the caller's line: the files are read anew for each predictor.
        tool_types.declared().with_added(tool_type)
        self._added[tool_type.name] = tool_type

    def remove(self, name: str) -> None:
        """Take back what `add` declared; KeyError for what it did not."""
        del self._added[name]

    def has_added(self, name: str) -> bool:
        """Whether `name` was declared here, and not in a file."""
        return name in self._added

    def add_function(self, pattern: str, name: str) -> None:
        """Functions like `pattern` belong to the tool type `name`."""
        # Likewise only to raise.
        with_function(self.declared(), pattern, name)
        self._functions[pattern] = name

    def remove_function(self, pattern: str) -> None:
        """Functions like `pattern` belong to no tool type; KeyError where none claims it."""
        without_function(self.declared(), pattern)
        # Not deleted: it may stand in a file, which then must not give it back.
        self._functions[pattern] = None


def with_function(declared: ToolTypes, pattern: str, name: str) -> ToolTypes:
    """`declared`, with functions like `pattern` in the tool type `name`.

    A name that nobody declared becomes a tool type without features, whose tasks are predicted
    from their history alone. Raises `DeclarationError` for a pattern that is none.
    """
    if not isinstance(pattern, str) or not pattern.strip("_"):
        raise DeclarationError(
            "func_name_to_tool_type", f"{pattern!r} is not a pattern of function names"
        )
    kept = [_without(tool_type, pattern) for tool_type in declared.values()]
    if name not in declared:
        # gpu, as for any tool type that declares no resource.
        kept.append(ToolType(name, (), "gpu", ()))
    return ToolTypes(
        replace(t, functions=(*t.functions, pattern)) if t.name == name else t for t in kept
    )


def without_function(declared: ToolTypes, pattern: str) -> ToolTypes:
    """`declared`, with `pattern` claimed by none; KeyError where none claims it."""
    if not any(pattern in tool_type.functions for tool_type in declared.values()):
        raise KeyError(pattern)
    return ToolTypes(_without(tool_type, pattern) for tool_type in declared.values())


def _without(tool_type: ToolType, pattern: str) -> ToolType:
    kept = tuple(p for p in tool_type.functions if p.lower() != pattern.lower())
    return (
        tool_type if len(kept) == len(tool_type.functions) else replace(tool_type, functions=kept)
    )


HERE = ProcessDeclaration()
