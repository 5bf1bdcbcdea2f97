"""`ExecTimePredictor.tool_types`: a view of the declaration.

The original keeps a dictionary of that name. Here the declaration is the one
place where it stands which features a tool type has; this reads it, and what is
set through it holds for this process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import replace

from malearn.kernel import process_declaration
from malearn.kernel.errors import DeclarationError
from malearn.kernel.process_declaration import ProcessDeclaration
from malearn.kernel.tool_types import ToolTypes, declared, plain

__all__ = ["FeatureNames"]

_SOURCE = "ExecTimePredictor.tool_types"


class FeatureNames(MutableMapping[str, Iterable[str]]):
    """`{tool type's name: [its features, in matrix order]}`, live in both directions.

    Features that were declared keep their bounds, defaults and units when set
    anew; others are numbers without bounds. Predictors built later see it.

    >>> names = FeatureNames(ProcessDeclaration())
    >>> names["video_process"] = ["duration", "frame_count", "batch_size"]
    >>> names["video_process"]
    ['duration', 'frame_count', 'batch_size']
    """

    def __init__(self, declaration: ProcessDeclaration = process_declaration.HERE) -> None:
        self._declaration = declaration

    def declared(self) -> ToolTypes:
        """The declaration, and what was set here."""
        return self._declaration.declared()

    def __getitem__(self, name: str) -> list[str]:
        tool_type = self.declared().get(name)
        if tool_type is None:
            raise KeyError(name)
        return list(tool_type.feature_names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.declared())

    def __len__(self) -> int:
        return len(self.declared())

    def __setitem__(self, name: str, features: Iterable[str]) -> None:
        if isinstance(features, str):
            raise DeclarationError(_SOURCE, f"the features of {name} must be a list of names")
        given = plain(name, features, _SOURCE)
        known = declared().get(name)
        if known is not None:
            # Naming a feature again, as the original does, must not lose its bounds.
            kept = {feature.name: feature for feature in known.features}
            given = replace(known, features=tuple(kept.get(f.name, f) for f in given.features))
        self._declaration.add(given)

    def __delitem__(self, name: str) -> None:
        # What was set here can be taken back; a file would declare it again at the next start.
        if not self._declaration.has_added(name) and name in declared():
            raise DeclarationError(_SOURCE, f"{name} is declared in a file; remove it there")
        self._declaration.remove(name)

    def __repr__(self) -> str:
        return repr({name: self[name] for name in self})
