"""The metadata of an exported model, inside its own ONNX file.

It is JSON under the key `malearn` of the file's `metadata_props`, and the scores of whole
workflows under another, which earlier readers pass over. Whoever loads
the file parses it, checks it against the declaration, and only then acts: a
model of another tool type, feature order or history is refused by name, never
run on numbers it does not mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import msgspec

from malearn.kernel.errors import ArtifactRefused
from malearn.kernel.estimation import history
from malearn.kernel.tool_types import ToolType
from malearn.kernel.workflows.workflow_calibration import Outcome, Stage

__all__ = [
    "FORMAT",
    "INPUT",
    "KEY",
    "MOST_RECENT",
    "MOST_SCORES",
    "OUTPUT",
    "WORKFLOWS_KEY",
    "Carried",
    "ModelMetadata",
]

#: An observation that a model carries with it.
Carried = tuple[str, float, float, tuple[float | None, ...], tuple[str, ...]]

#: So many executions may one file carry.
MOST_RECENT = 20_000
#: Characters of JSON, and columns, that are read; ours stay far below.
_LARGEST, _MOST_COLUMNS = 8 * 1024 * 1024, 1024

#: Raised by one whenever a reader of the old form would misread the new.
FORMAT = 1
#: The metadata key, and that of the scores of whole workflows.
KEY, WORKFLOWS_KEY = "malearn", "malearn.workflow_scores"
#: So many of them may one file carry; a calibration uses fewer.
MOST_SCORES = 2_048
#: The graph's input: float32, shape (rows, features + history).
INPUT = "inputs"
#: The graph's output: float32, shape (rows, 1), seconds.
OUTPUT = "seconds"


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """The metadata of one model: what it predicts, from which columns, learnt from what.

    `features` and `history` name the columns in matrix order. `clips` holds the
    range each feature had in training. `seconds_range` bounds the answer.
    `recent` holds observations, `[function, start, end, [features…], [context…]]`, that
    warm a scheduler which has seen nothing yet. `workflow_scores`, oldest first, are how far
    whole workflows were off lately (see `workflow_calibration`).
    """

    tool_type: str
    family: str
    features: tuple[str, ...]
    history: tuple[str, ...]
    run_id: str
    dataset_version: int
    trained_until: float
    rows: int
    seconds_range: tuple[float, float]
    clips: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    calibration: Mapping[str, float] = field(default_factory=dict)
    recent: tuple[Carried, ...] = ()
    format: int = FORMAT
    workflow_scores: tuple[Outcome, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the graph's input columns, in order."""
        return (*self.features, *self.history)

    @property
    def width(self) -> int:
        """How many columns the graph's input has."""
        return len(self.features) + len(self.history)

    def to_json(self) -> str:
        """What stands under `KEY`: all but the scores of workflows."""
        own = asdict(self)
        del own["workflow_scores"]
        # JSON has no NaN: better to fail here than in each scheduler that reads it.
        return json.dumps(own, allow_nan=False, separators=(",", ":"))

    @property
    def properties(self) -> dict[str, str]:
        """As they stand in a file; `parse` reads them."""
        if not self.workflow_scores:
            return {KEY: self.to_json()}
        # Of its own, since readers of earlier versions refuse keys in the first that they do not
        # know.
        scores = json.dumps(self.workflow_scores, allow_nan=False, separators=(",", ":"))
        return {KEY: self.to_json(), WORKFLOWS_KEY: scores}

    @classmethod
    def parse(cls, properties: Mapping[str, str], artifact: object) -> ModelMetadata:
        """From an ONNX file's `metadata_props`. Raises `ArtifactRefused`, naming `artifact`."""
        text = properties.get(KEY)
        if text is None:
            raise ArtifactRefused(artifact, ["it has no malearn metadata"])
        if len(text) > _LARGEST:
            raise ArtifactRefused(
                artifact, [f"its metadata is longer than {_LARGEST:,} characters"]
            )
        try:
            # The format alone at first: the rest of another one may have any form.
            if msgspec.json.decode(text, type=_Versioned).format != FORMAT:
                raise ArtifactRefused(artifact, [f"its metadata is not of format {FORMAT}"])
            stored = msgspec.json.decode(text, type=_Stored)
            recent = tuple(map(_carried, stored.recent))
            scores = msgspec.json.decode(properties.get(WORKFLOWS_KEY, "[]"), type=_Scores)
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            raise ArtifactRefused(artifact, [f"its metadata cannot be read ({error})"]) from error
        metadata = cls(**{**{f: getattr(stored, f) for f in stored.__struct_fields__},
                          "recent": recent,
                          "workflow_scores": tuple((int(s), v) for s, v in scores)})  # fmt: skip
        if problem := metadata._problem():
            raise ArtifactRefused(artifact, [f"its metadata cannot be read ({problem})"])
        return metadata

    def _problem(self) -> str | None:
        """What is wrong with values that are of the right types."""
        if len(set(self.columns)) < self.width:
            return "a column is named twice"
        if self.width > _MOST_COLUMNS or len(self.recent) > MOST_RECENT:
            return "it has too many columns or executions"
        if len(self.workflow_scores) > MOST_SCORES:
            return "it has too many scores of workflows"
        if not all(0 <= stage < len(Stage) for stage, _ in self.workflow_scores):
            return "a score is of an unknown stage of workflows"
        if any(len(numbers) > _MOST_COLUMNS for _, _, _, numbers, _ in self.recent):
            return "an execution has too many features"
        return None

    def positions(self, names: Sequence[str]) -> tuple[int, ...]:
        """Where each of its features stands among `names`; len(names) for one that does not."""
        return tuple(names.index(name) if name in names else len(names) for name in self.features)

    def check(self, tool_type: ToolType, artifact: object) -> None:
        """Raise `ArtifactRefused`, with every reason, unless this model fits `tool_type`.

        A feature that is no longer declared is missing in every task from then on: a model
        that knows others too goes on serving until another takes its place. The features of a
        generic tool type are found, among them those of its models.
        """
        reasons = []
        if self.tool_type != tool_type.name:
            reasons.append(f"it predicts {self.tool_type}, not {tool_type.name}")
        if self.history != history.FEATURES:
            reasons.append("its history features are not the ones this version computes")
        known = self.features if tool_type.generic else tool_type.feature_names
        if self.features and not set(self.features) & set(known):
            unknown = ", ".join(sorted(self.features))
            reasons.append(f"it wants features nobody declares: {unknown}")
        if reasons:
            raise ArtifactRefused(artifact, reasons)


# The stage was a truth value while two were told apart.
_Scores = tuple[tuple[bool | int, float], ...]


class _Versioned(msgspec.Struct):
    """What tells which form the rest has."""

    format: object = None


# Beyond 2**53 not every reader of JSON keeps an integer exact.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    """The form of metadata in a file: of each value the type, and nothing beside them."""

    tool_type: str
    family: str
    features: tuple[str, ...]
    history: tuple[str, ...]
    run_id: str
    dataset_version: _Count
    trained_until: float
    rows: _Count
    seconds_range: tuple[float, float]
    clips: dict[str, tuple[float, float]] = {}
    calibration: dict[str, float] = {}
    recent: tuple[tuple[Any, ...], ...] = ()
    format: int = FORMAT


def _carried(entry: tuple[Any, ...]) -> Carried:
    """One execution; the first models had no context in it."""
    carried: Carried = msgspec.convert(entry if len(entry) > 4 else (*entry, ()), Carried)
    return carried
