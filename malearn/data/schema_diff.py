"""What a declaration has gained and lost since the model that serves was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from malearn.kernel.tool_types import ToolType

__all__ = ["Evolution", "since"]


@dataclass(frozen=True, slots=True)
class Evolution:
    """The features of a tool type beside those of model version `version`.

    `gained` tells for each new one the version of the dataset that first had a column for
    it; None where there is none yet. `lost` are declared no more.
    """

    version: int
    gained: Mapping[str, int | None]
    lost: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """One a feature."""
        serves = f"model version {self.version}, which serves,"
        new = (
            f"{name} is new {'and' if first is None else f'since dataset version {first};'} "
            f"{serves} was trained without it"
            for name, first in self.gained.items()
        )
        old = (
            f"{name} is declared no more; {serves} takes it as missing in every task"
            for name in self.lost
        )
        return (*new, *old)

    @property
    def tags(self) -> dict[str, str]:
        """The same for MLflow; empty where nothing has changed."""
        tags = {}
        if self.gained:
            told = (n if v is None else f"{n} (dataset v{v})" for n, v in self.gained.items())
            tags["malearn.features_gained"] = ", ".join(told)
        if self.lost:
            tags["malearn.features_lost"] = ", ".join(self.lost)
        return tags


def since(
    version: int, trained_with: Sequence[str], tool_type: ToolType, first: Mapping[str, int]
) -> Evolution:
    """How `tool_type` differs from the features that model `version` was trained with.

    `first` tells for each feature the dataset's first version with a column for it.

    >>> from malearn.kernel.tool_types import declared
    >>> evolved = since(3, ["duration", "pitch"], declared()["speech_process"], {"duration": 0})
    >>> list(evolved.gained), evolved.lost
    (['audio_entropy', 'audio_energy'], ('pitch',))
    """
    names = tool_type.feature_names
    return Evolution(
        version,
        {name: first.get(name) for name in names if name not in trained_with},
        tuple(name for name in trained_with if name not in names),
    )
