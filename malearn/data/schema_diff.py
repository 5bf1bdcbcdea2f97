"""The features added to and removed from a declaration since the serving model was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from malearn.kernel.tool_types import ToolType

__all__ = ["SchemaDiff", "diff_since"]


@dataclass(frozen=True, slots=True)
class SchemaDiff:
    """The features of a tool type beside those of model version `version`.

    `added` maps each new feature to the version of the dataset that first had a column for
    it, None where there is none yet. `removed` are no longer declared.
    """

    version: int
    added: Mapping[str, int | None]
    removed: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """One a feature."""
        model = f"the serving model (v{self.version})"
        new = (
            f"{name} was added{'' if first is None else f' in dataset version {first}'}; "
            f"{model} was trained without it"
            for name, first in self.added.items()
        )
        old = (
            f"{name} was removed; {model} treats it as missing for every task"
            for name in self.removed
        )
        return (*new, *old)

    @property
    def tags(self) -> dict[str, str]:
        """The same for MLflow; empty where nothing has changed."""
        tags = {}
        if self.added:
            added = (n if v is None else f"{n} (dataset v{v})" for n, v in self.added.items())
            tags["malearn.features_added"] = ", ".join(added)
        if self.removed:
            tags["malearn.features_removed"] = ", ".join(self.removed)
        return tags


def diff_since(
    version: int, trained_with: Sequence[str], tool_type: ToolType, first: Mapping[str, int]
) -> SchemaDiff:
    """How `tool_type` differs from the features that model `version` was trained with.

    `first` maps each feature to the dataset's first version with a column for it.

    >>> from malearn.kernel.tool_types import declared
    >>> speech = declared()["speech_process"]
    >>> diff = diff_since(3, ["duration", "pitch"], speech, {"duration": 0})
    >>> list(diff.added), diff.removed
    (['audio_entropy', 'audio_energy'], ('pitch',))
    """
    # By name alone: a feature with other bounds or another default is the same column to a model.
    names = tool_type.feature_names
    return SchemaDiff(
        version,
        {name: first.get(name) for name in names if name not in trained_with},
        tuple(name for name in trained_with if name not in names),
    )
