"""What the monitor decides: a pure function of scores, drifts and what the last check found.

A finding is acted on only when two consecutive checks make it, on different executions: one
unlucky window must not take a good model out of service.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from malearn.learning.metrics import Scores
from malearn.lifecycle.drift import Drift

__all__ = [
    "MARGIN",
    "PREVIOUS",
    "PRODUCTION",
    "WITHOUT_MODEL",
    "Action",
    "MonitorDecision",
    "MonitorState",
    "decide",
]

#: How much larger than a competitor's the mean absolute error must be to count as worse.
#: Wider than the gate's margin: taking a model out of service on noise costs more than waiting.
MARGIN = 0.1

#: Whose scores these are: the serving model, the one before it, and what schedulers would answer
#: without a model.
PRODUCTION, PREVIOUS, WITHOUT_MODEL = "production", "previous", "without_model"


class Action(enum.StrEnum):
    """What a check leads to."""

    NOTHING = "nothing"
    WARN = "warn"
    RETRAIN = "retrain"
    ROLL_BACK = "roll_back"
    DISABLE_MODEL = "disable_model"


@dataclass(frozen=True, slots=True)
class MonitorState:
    """What the last check of a version found: whether it is worse than a competitor, what drifted.

    `until` is when the last of the scored executions ended, in seconds since the epoch.
    """

    worse: bool = False
    drifted: tuple[str, ...] = ()
    until: float = -math.inf

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> MonitorState:
        """The state that `to_json` wrote; that of a version never checked, where there is none."""
        if not text:
            return cls()
        values = json.loads(text)
        return cls(**{**values, "drifted": tuple(values["drifted"])})


@dataclass(frozen=True, slots=True)
class MonitorDecision:
    """What to do, each reason for it, and the state that the next check starts from."""

    action: Action
    reasons: tuple[str, ...]
    state: MonitorState

    @property
    def retrain(self) -> bool:
        """Whether a new model is needed."""
        return self.action in (Action.RETRAIN, Action.DISABLE_MODEL)


def decide(
    scores: Mapping[str, Scores], drifts: Sequence[Drift], state: MonitorState, until: float
) -> MonitorDecision:
    """What to do about one check, given what the check before it found.

    `scores` come from the same executions, the last of which ended at `until`: those of
    `PRODUCTION`, of `PREVIOUS` where there is one, of baselines, and of `WITHOUT_MODEL`.
    """
    own = scores[PRODUCTION]
    better = [name for name in scores if _clearly_better(scores[name], own)]
    drifted = [d for d in drifts if d.found]
    # The same thing twice: two different features that drift once each are chance.
    again = [d.name for d in drifted if d.name in state.drifted]
    reasons = [_worse(own, name, scores[name]) for name in better] + [*map(_drifted, drifted)]
    now = MonitorState(bool(better), tuple(d.name for d in drifted), until)
    # After an action the count starts again: the next check sees what the action changed.
    clean = MonitorState(until=until)
    # Worse before drift: a rollback helps at once, a retraining only once it is promoted.
    if better and state.worse:
        action, consequence = _remedy(scores)
        return MonitorDecision(action, (*reasons, consequence), clean)
    if again:
        consequence = f"two consecutive checks found drift in {', '.join(again)}: retrain"
        return MonitorDecision(Action.RETRAIN, (*reasons, consequence), clean)
    if better or drifted:
        pending = "action follows if the next check finds the same"
        return MonitorDecision(Action.WARN, (*reasons, pending), now)
    well = f"MAE {own.mae:.3g} s on {own.n} new executions; no competitor clearly better, no drift"
    return MonitorDecision(Action.NOTHING, (well,), now)


def _clearly_better(competitor: Scores, own: Scores) -> bool:
    return own.mae > (1.0 + MARGIN) * competitor.mae


def _remedy(scores: Mapping[str, Scores]) -> tuple[Action, str]:
    """What is done about a model that two checks found worse, and why."""
    own, without, previous = scores[PRODUCTION], scores[WITHOUT_MODEL], scores.get(PREVIOUS)
    # Back only to a version that is itself no worse than none.
    if (
        previous is not None
        and _clearly_better(previous, own)
        and not _clearly_better(without, previous)
    ):
        return Action.ROLL_BACK, "worse in two consecutive checks: roll back to the last version"
    if _clearly_better(without, own):
        return (
            Action.DISABLE_MODEL,
            "worse in two consecutive checks, and the last version is no better: until another "
            "is promoted, schedulers answer from each function's recent durations "
            f"(MAE {without.mae:.3g} s)",
        )
    return Action.RETRAIN, "worse in two consecutive checks, and no alternative is better: retrain"


def _worse(own: Scores, name: str, competitor: Scores) -> str:
    return (
        f"MAE {own.mae:.3g} s on {own.n} new executions is more than {MARGIN * 100:.0f} % above "
        f"that of {name} ({competitor.mae:.3g} s)"
    )


def _drifted(found: Drift) -> str:
    return (
        f"{found.name} drifted: distance {found.distance:.2f}, median {found.before:.3g} before, "
        f"{found.now:.3g} now"
    )
