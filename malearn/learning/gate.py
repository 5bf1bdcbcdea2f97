"""The promotion gate: whether a candidate may serve, with every check on record.

Candidate, incumbent and baselines are scored on the same rows, the test window, all newer
than whatever the candidate was fitted on. The gate is a pure function of those scores, so a
decision can be explained, stored and reproduced.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from malearn.kernel import text
from malearn.learning import stack
from malearn.learning.metrics import Scores

__all__ = ["Decision", "GateCheck", "decide"]

#: How much lower than each competitor's the candidate's mean absolute error must be, as a share.
#: Smaller differences on a test window are mostly chance.
MARGIN = 0.02
#: … but `stack`, a strong learner on the same rows, must only be equalled: the candidate's error
#: may be this share above it, since two such learners differ by chance.
PEER_SLACK = 0.02
#: Test rows from which on it is compared with: on fewer the difference is mostly chance.
FEWEST_PEER_ROWS = 100
#: How much lower than the best competitor's its pairwise accuracy may be.
RANKING_SLACK = 0.01
#: Test rows that are required: an average over fewer means nothing.
FEWEST_ROWS = 10


@dataclass(frozen=True, slots=True)
class GateCheck:
    """One condition for a promotion, whether it is met, and a sentence about it."""

    check: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate decided for one candidate, and why. Kept on the version as JSON."""

    promote: bool
    candidate: str
    rows: int
    reasons: tuple[GateCheck, ...]

    @property
    def why(self) -> str:
        """The reasons in one line: those that failed, or those that passed."""
        return "; ".join(r.detail for r in self.reasons if r.passed == self.promote)

    def to_json(self) -> str:
        """The form in which a version keeps it, which `from_json` reads."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Decision:
        values = json.loads(text)
        values["reasons"] = tuple(GateCheck(**reason) for reason in values["reasons"])
        return cls(**values)

    def with_check(self, check: str, passed: bool, detail: str) -> Decision:
        """This decision after one more condition; failing it stops the promotion.

        A check made again takes the place of its last outcome, which then stops nothing more.
        """
        # A check that is made again, as at each promotion, must be able to pass.
        others = tuple(reason for reason in self.reasons if reason.check != check)
        stood = self.promote or (
            len(others) < len(self.reasons) and all(reason.passed for reason in others)
        )
        reasons = (*others, GateCheck(check, passed, detail))
        return Decision(stood and passed, self.candidate, self.rows, reasons)


def decide(candidate: str, scores: Mapping[str, Scores]) -> Decision:
    """Decide whether `candidate` may be promoted, given everybody's `scores` on the test window.

    All scores must come from the same rows. The mean absolute error of the candidate must be
    lower than that of each competitor by `MARGIN`, but than that of `stack` no higher by more than
    `PEER_SLACK`, and its pairwise accuracy no lower than the best of theirs by more than
    `RANKING_SLACK`. On fewer than `FEWEST_PEER_ROWS` rows `stack` does not count.
    """
    own = scores[candidate]
    competitors = {
        name: s
        for name, s in scores.items()
        if name != candidate and (name != stack.NAME or own.n >= FEWEST_PEER_ROWS)
    }
    checks = [_rows(own.n)]
    checks += [_error(candidate, own, name, other) for name, other in competitors.items()]
    # Seconds alone are not enough: a scheduler orders tasks, and a lower error can order worse.
    ranked = {name: s.pairwise_accuracy for name, s in competitors.items()}
    # NaN: no two of the times differ enough to have an order.
    ranked = {name: accuracy for name, accuracy in ranked.items() if math.isfinite(accuracy)}
    if ranked and math.isfinite(own.pairwise_accuracy):
        checks.append(_ranking(candidate, own.pairwise_accuracy, ranked))
    return Decision(all(c.passed for c in checks), candidate, own.n, tuple(checks))


def _rows(n: int) -> GateCheck:
    enough = n >= FEWEST_ROWS
    rows = text.counted(n, "test row")
    few = f"only {rows}; at least {FEWEST_ROWS} are required"
    return GateCheck("rows", enough, rows if enough else few)


def _error(candidate: str, own: Scores, name: str, competitor: Scores) -> GateCheck:
    if name == stack.NAME:
        equals = own.mae <= (1.0 + PEER_SLACK) * competitor.mae
        return GateCheck(
            f"error against {name}",
            equals,
            f"{candidate} MAE {own.mae:.3g} s is {'no ' if equals else ''}more than "
            f"{_percent(PEER_SLACK)} above {name} ({competitor.mae:.3g} s)",
        )
    passed = own.mae <= (1.0 - MARGIN) * competitor.mae
    return GateCheck(
        f"error against {name}",
        passed,
        f"{candidate} MAE {own.mae:.3g} s is {'' if passed else 'not '}at least "
        f"{_percent(MARGIN)} lower than {name} ({competitor.mae:.3g} s)",
    )


def _ranking(candidate: str, own: float, competitors: Mapping[str, float]) -> GateCheck:
    best = max(competitors, key=lambda name: competitors[name])
    passed = own >= competitors[best] - RANKING_SLACK
    return GateCheck(
        "pairwise accuracy",
        passed,
        f"{candidate} pairwise accuracy {_percent(own)} is {'no ' if passed else ''}more than "
        f"{RANKING_SLACK * 100:.0f} point below {best} ({_percent(competitors[best])})",
    )


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"
