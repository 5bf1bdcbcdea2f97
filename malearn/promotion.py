"""From a registered version to the one that serves: proof first, then the alias.

Nothing gets the alias `Production` unless its ONNX file answers, on real rows,
what its trainer's model answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from malearn import export, registry, tracking
from malearn.errors import ArtifactRefused, ExportError, RegistryError
from malearn.gate import Decision, Reason
from malearn.matrix import Matrix

__all__ = ["Promoted", "promote"]


@dataclass(frozen=True, slots=True)
class Promoted:
    """What came of a promotion: whether the version serves now, why, and all that was looked at."""

    tool_type: str
    version: int
    promoted: bool
    why: str
    reasons: tuple[Reason, ...] = ()


def promote(rows: Matrix, number: int, *, by_hand: bool = False) -> Promoted:
    """Let version `number` serve if the gate let it through and its ONNX file is faithful.

    `rows` are real executions to prove it on. `by_hand` overrules the gate, not
    the proof. A version that is not promoted keeps the alias `Candidate`.
    Raises `RegistryError` for a version that is not there or was never judged.
    """
    tool_type = rows.tool_type
    version = registry.version(tool_type, number)
    decision = version.decision
    if decision is None:
        raise RegistryError(
            tool_type.registered_model, f"version {number} was not registered by malearn's training"
        )
    if by_hand:
        decision = Decision(True, decision.candidate, decision.rows, decision.reasons)
        decision = decision.with_check("by hand", True, "a person promoted it over the gate")
    decision = _proven(rows, version, decision)
    registry.decide(tool_type, number, decision)
    if decision.promote:
        registry.move(tool_type, registry.PRODUCTION, number)
    elif registry.PRODUCTION not in version.aliases:
        registry.move(tool_type, registry.CANDIDATE, number)
    return Promoted(tool_type.name, number, decision.promote, decision.why, decision.reasons)


def _proven(rows: Matrix, version: registry.Version, decision: Decision) -> Decision:
    if not len(rows):
        return decision.with_check("onnx", False, "there are no rows to prove its ONNX file on")
    try:
        model = registry.model_file(rows.tool_type, version.number)
        native = tracking.load_native(version.tags["malearn.native"])
        error = export.parity_error(model, native, rows)
    except (ArtifactRefused, ExportError, RegistryError, KeyError) as refusal:
        return decision.with_check("onnx", False, f"its ONNX file cannot be proven: {refusal}")
    faithful = error <= export.PARITY
    return decision.with_check(
        "onnx",
        faithful,
        f"its ONNX file {'equals' if faithful else 'differs from'} the trainer's model on "
        f"{len(rows)} real rows (largest difference {error:.1e} of a prediction)",
    )
