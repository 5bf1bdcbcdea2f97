"""The tool types that one predictor answers for, which may be declared anew while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from malearn.kernel import generic, process_declaration
from malearn.kernel.records import Record
from malearn.kernel.tool_types import ToolType, ToolTypes
from malearn.serving.function_names import FunctionNames

__all__ = ["ServedToolTypes"]


class ServedToolTypes:
    """The `current` declaration, and how it grows; `declare` is called with each that follows.

    Whoever is called sets `current`, once what stands in the order of the old one is done with.
    """

    def __init__(self, current: ToolTypes, declare: Callable[[ToolTypes], None]) -> None:
        self.current, self._declare = current, declare
        self.function_names = FunctionNames(lambda: self.current, self._add, self._remove)

    def of_task(
        self,
        function: str,
        resource: str | None = None,
        features: Mapping[str, object] | None = None,
    ) -> ToolType | None:
        """The tool type of a task: by its function, else by what it runs on and with."""
        types = self.current
        # Looking them up is only worth it where a tool type claims by more than the name.
        if features and types.is_open:
            return types.for_task(
                function, resource, features.get("model"), features.get("backend")
            )
        return types.for_task(function, resource)

    def is_generic(self, function: str) -> bool:
        """Whether nobody but the generic tool type claims `function`."""
        claimed = self.current.for_known(function)
        return claimed is not None and claimed.generic

    def discover(self, record: Record) -> None:
        """Let the generic tool type have the features that `record` announces for its tasks."""
        types = self.current
        if types.generic is None:
            return
        for function in record.successors:
            claimed = types.for_known(function)
            if claimed is None or claimed.generic:
                names = generic.announced(record.successors, function)
                types = generic.with_generic(types, names)
        self._grow(types)

    def take_features(self, name: str, features: Sequence[str]) -> ToolType | None:
        """The tool type `name`; a generic one gets `features`, which its model was trained on."""
        own = self.current.get(name)
        if own is not None and own.generic:
            self._grow(generic.with_generic(self.current, features))
        found: ToolType | None = self.current.get(name)
        return found

    def _grow(self, types: ToolTypes) -> None:
        # Nothing is dropped from the caches unless a feature is really new.
        if types is not self.current:
            self._declare(types)

    def _add(self, pattern: str, name: str) -> None:
        self._declare(process_declaration.with_function(self.current, pattern, name))

    def _remove(self, pattern: str) -> None:
        self._declare(process_declaration.without_function(self.current, pattern))
