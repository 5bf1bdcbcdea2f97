"""The metadata of an exported model, inside its own ONNX file.

It is JSON under the key `malearn` of the file's `metadata_props`. Whoever loads
the file parses it, checks it against the declaration, and only then acts: a
model of another tool type, feature order or history is refused by name, never
run on numbers it does not mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

from malearn.kernel import history
from malearn.kernel.errors import ArtifactRefused
from malearn.kernel.tool_types import ToolType

__all__ = ["FORMAT", "INPUT", "KEY", "OUTPUT", "Carried", "ModelMetadata"]

#: An observation that a model carries with it.
Carried = tuple[str, float, float, tuple[float | None, ...], tuple[str, ...]]

#: Raised by one whenever a reader of the old form would misread the new.
FORMAT = 1
#: The metadata key.
KEY = "malearn"
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
    warm a scheduler which has seen nothing yet.
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

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the graph's input columns, in order."""
        return (*self.features, *self.history)

    @property
    def width(self) -> int:
        """How many columns the graph's input has."""
        return len(self.features) + len(self.history)

    def to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False, separators=(",", ":"))

    @classmethod
    def parse(cls, properties: Mapping[str, str], artifact: object) -> ModelMetadata:
        """From an ONNX file's `metadata_props`. Raises `ArtifactRefused`, naming `artifact`."""
        text = properties.get(KEY)
        if text is None:
            raise ArtifactRefused(artifact, ["it has no malearn metadata"])
        try:
            values = json.loads(text)
            known = {f.name for f in fields(cls)}
            if not isinstance(values, dict) or values.get("format") != FORMAT:
                raise ArtifactRefused(artifact, [f"its metadata is not of format {FORMAT}"])
            if unknown := set(values) - known:
                raise ArtifactRefused(
                    artifact, [f"its metadata has unknown keys {sorted(unknown)}"]
                )
            values["features"] = tuple(values["features"])
            values["history"] = tuple(values["history"])
            low, high = values["seconds_range"]
            values["seconds_range"] = (float(low), float(high))
            values["clips"] = {
                name: (float(least), float(most))
                for name, (least, most) in values.get("clips", {}).items()
            }
            values["recent"] = tuple(
                (function, float(start), float(end), tuple(numbers), tuple(*context))
                for function, start, end, numbers, *context in values.get("recent", ())
            )
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ArtifactRefused(artifact, [f"its metadata cannot be read ({error})"]) from error

    def positions(self, names: Sequence[str]) -> tuple[int, ...]:
        """Where each of its features stands among `names`; len(names) for one that does not."""
        return tuple(names.index(name) if name in names else len(names) for name in self.features)

    def check(self, tool_type: ToolType, artifact: object) -> None:
        """Raise `ArtifactRefused`, with every reason, unless this model fits `tool_type`.

        A feature that is no longer declared is missing in every task from then on: a model
        that knows others too goes on serving until another takes its place.
        """
        reasons = []
        if self.tool_type != tool_type.name:
            reasons.append(f"it predicts {self.tool_type}, not {tool_type.name}")
        if self.history != history.FEATURES:
            reasons.append("its history features are not the ones this version computes")
        if not set(self.features) & set(tool_type.feature_names):
            unknown = ", ".join(sorted(self.features))
            reasons.append(f"it wants features nobody declares: {unknown}")
        if reasons:
            raise ArtifactRefused(artifact, reasons)
