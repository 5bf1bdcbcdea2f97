"""Promotion of a registered version: its ONNX file is verified first, then the alias moves.

Nothing gets the alias `Production` unless its ONNX file predicts, on real rows, what its
trainer's model predicts. Where a person moved the alias in MLflow, the file is verified
afterwards: `verify_manual_promotion` confirms the move, or undoes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from malearn.kernel.errors import RegistryError
from malearn.kernel.tool_types import ToolType
from malearn.learning.gate import Decision, GateCheck
from malearn.learning.matrix import Matrix
from malearn.lifecycle import onnx_verification, registry
from malearn.lifecycle.onnx_verification import OnnxVerification, WorkflowScores
from malearn.lifecycle.registry import Version

__all__ = ["ManualPromotion", "Promoted", "newest_passed", "promote", "verify_manual_promotion"]

_REFUSED = "malearn.refused"  # the note on a version that says why it must not serve

#: The check that stands for a person's word against the gate's.
_BY_HAND = "by hand"


@dataclass(frozen=True, slots=True)
class Promoted:
    """What came of a promotion: whether the version serves now, why, and all that was looked at."""

    tool_type: str
    version: int
    promoted: bool
    why: str
    reasons: tuple[GateCheck, ...] = ()


@dataclass(frozen=True, slots=True)
class ManualPromotion:
    """What came of an alias that a person moved: the promotion, and which version serves now."""

    moved_to: int
    promoted: Promoted
    production: int | None


def promote(
    rows: Matrix,
    number: int,
    *,
    bypass_gate: bool = False,
    workflow_scores: Callable[[], WorkflowScores] = tuple,
) -> Promoted:
    """Promote version `number` if it passed the gate and its ONNX file matches its model.

    `rows` are real executions to verify it on. `bypass_gate` skips the gate, not the
    verification, and is noted on the version where the gate had not let it pass; then a version
    that holds the trainer's model alone is converted, and the converted version is promoted. A
    version that is not promoted keeps the alias `Candidate`. Raises `RegistryError` for a version
    that does not exist or, without `bypass_gate`, has no decision of the gate.
    """
    tool_type = rows.tool_type
    version = registry.version(tool_type, number)
    decision = version.decision
    if bypass_gate and not (decision and decision.promote):
        decision = _overruled(version)
    if decision is None:
        raise RegistryError(
            tool_type.registered_model, f"version {number} was not registered by malearn's training"
        )
    version, check = OnnxVerification(rows, workflow_scores).check(version)
    decision = decision.with_check(check.check, check.passed, check.detail)
    origin = version.tags.get(onnx_verification.CONVERTED_FROM)
    summary = f"Version {origin}, converted to ONNX." if origin else ""
    # Recorded before the alias moves: a version that serves always carries the reasons.
    registry.decide(tool_type, version.number, decision, summary)
    if decision.promote:
        registry.move(tool_type, registry.PRODUCTION, version.number)
    # A manual move that fails verification keeps its alias here; `_undo` takes it back.
    elif registry.PRODUCTION not in version.aliases:
        registry.move(tool_type, registry.CANDIDATE, version.number)
    return Promoted(
        tool_type.name, version.number, decision.promote, decision.why, decision.reasons
    )


def newest_passed(tool_type: ToolType) -> Version:
    """The newest version that passed the gate by itself.

    Raises `RegistryError` where none did, and for one that served before and was taken out of
    service: that had a reason, so it is promoted again only by its number.
    """
    known = registry.versions(tool_type)
    passed = next((version for version in known if _passed(version)), None)
    if passed is None:
        number = known[0].number if known else "VERSION"
        raise RegistryError(
            tool_type.registered_model,
            f"no version has passed the promotion gate; `malearn train {tool_type.name}` says what "
            f"is missing, `malearn promote {tool_type.name} {number}` bypasses the gate",
        )
    if _was_replaced(tool_type, passed):
        raise RegistryError(
            tool_type.registered_model,
            f"version {passed.number}, the newest that passed the gate, was in Production before "
            f"and was replaced; `malearn promote {tool_type.name} {passed.number}` promotes it "
            "again",
        )
    return passed


def verify_manual_promotion(
    rows: Matrix, workflow_scores: Callable[[], WorkflowScores] = tuple
) -> ManualPromotion | None:
    """Verify the version to which a person moved `Production` in MLflow; None where nobody did.

    A version that passes serves from now on, converted where that is needed. One that fails
    is tagged with the reason, and the alias goes back to the version that was verified last,
    which schedulers go on using meanwhile. Without rows nothing can be verified. `workflow_scores`
    is that of `promote`.
    """
    tool_type = rows.tool_type
    version = registry.by_alias(tool_type, registry.PRODUCTION)
    if version is None or not len(rows):
        return None
    last = registry.last_promoted(tool_type)
    # The alias is where malearn put it last.
    if last is not None and last.number == version.number and _is_verified(version):
        return None
    promoted = promote(rows, version.number, bypass_gate=True, workflow_scores=workflow_scores)
    if not promoted.promoted:
        # The tag before the alias, or the page of the version would not say why it was moved back.
        registry.tag(tool_type, version.number, _REFUSED, promoted.why[:1000])
        _undo(tool_type, version, last)
    serving = registry.by_alias(tool_type, registry.PRODUCTION)
    return ManualPromotion(version.number, promoted, serving.number if serving else None)


def _is_verified(version: Version) -> bool:
    reasons = version.decision.reasons if version.decision else ()
    return any(reason.check == "onnx" and reason.passed for reason in reasons)


def _passed(version: Version) -> bool:
    """Whether the gate let it pass, and not a person over the gate."""
    decision = version.decision
    return (
        decision is not None
        and decision.promote
        and all(reason.check != _BY_HAND for reason in decision.reasons)
    )


def _was_replaced(tool_type: ToolType, version: Version) -> bool:
    """Whether it has served and does not any more; a promotion renews what the monitor noted."""
    production, previous = (
        registry.by_alias(tool_type, alias) for alias in (registry.PRODUCTION, registry.PREVIOUS)
    )
    if production is not None and production.number == version.number:
        return False
    replaced = previous is not None and previous.number == version.number
    return replaced or registry.monitor_state(version) is not None


def _undo(tool_type: ToolType, refused: Version, last: Version | None) -> None:
    """Restore the last verified version; without one, remove the alias."""
    # `Previous` too: the last one may be the refused version itself, or unverified.
    for known in (last, registry.by_alias(tool_type, registry.PREVIOUS)):
        if known is not None and known.number != refused.number and _is_verified(known):
            registry.restore(tool_type, known.number)
            return
    registry.unpublish(tool_type)


def _overruled(version: Version) -> Decision:
    """The gate's decision, if there is one, overruled by the person who promoted the version."""
    # What a person registered in MLflow has no decision of the gate.
    gated = version.decision or Decision(True, version.family, 0, ())
    decision = Decision(True, gated.candidate, gated.rows, gated.reasons)
    return decision.with_check(_BY_HAND, True, "a person promoted it over the gate")
