"""`DAGTaskPredictor.func_name_to_tool_type`: a view of the declaration.

The original's documentation names a dictionary so. Here the declaration is the one place where it
stands which function belongs where; this reads it, and what is set through it is declared: on the
class for every predictor that this process builds later, on a predictor for that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Protocol

from malearn.kernel import process_declaration
from malearn.kernel.tool_types import ToolTypes

__all__ = ["FunctionNames", "OnClassAndPredictor"]


class FunctionNames(MutableMapping[str, str]):
    """`{function-name pattern: tool type's name}`, live in both directions.

    `add` and `remove` declare what is set and deleted. Setting a pattern to a name nobody declared
    declares it: a tool type without features, whose tasks are estimated from their history alone.
    """

    def __init__(
        self,
        tool_types: Callable[[], ToolTypes],
        add: Callable[[str, str], None],
        remove: Callable[[str], None],
    ) -> None:
        self._tool_types, self._add, self._remove = tool_types, add, remove

    def __getitem__(self, pattern: str) -> str:
        return self._patterns()[pattern]

    def __iter__(self) -> Iterator[str]:
        return iter(self._patterns())

    def __len__(self) -> int:
        return len(self._patterns())

    def __setitem__(self, pattern: str, name: str) -> None:
        self._add(pattern, name)

    def __delitem__(self, pattern: str) -> None:
        self._remove(pattern)

    def __repr__(self) -> str:
        return repr(self._patterns())

    def _patterns(self) -> dict[str, str]:
        # Made at each call, as declarations are replaced, never changed.
        return {p: t.name for t in self._tool_types().values() for p in t.functions}


class HasFunctionNames(Protocol):
    """Whose functions are asked for."""

    _function_names: FunctionNames


class OnClassAndPredictor:
    """The attribute: on the class what this process declares, on a predictor its own."""

    def __init__(self) -> None:
        here = process_declaration.HERE
        self._of_class = FunctionNames(here.declared, here.add_function, here.remove_function)

    def __get__(self, predictor: HasFunctionNames | None, owner: object) -> FunctionNames:
        return self._of_class if predictor is None else predictor._function_names
