"""Whether a candidate may serve: decided on the newest rows, every reason on record.

Candidate, incumbent and baselines are scored on the same rows, all newer than
whatever the candidate was fitted on. The gate is a pure function of those
scores, so a decision can be explained, stored and made again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from malearn.learning.metrics import Scores

__all__ = ["Decision", "Reason", "decide"]

#: How much lower than every rival's the candidate's mean absolute error must be.
MARGIN = 0.02
#: How much worse than the best rival's its pairwise order may be.
ORDER_SLACK = 0.01
#: Fewer rows than this prove nothing.
FEWEST_ROWS = 10


@dataclass(frozen=True, slots=True)
class Reason:
    """One condition the gate looked at."""

    check: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate decided for one candidate, and why."""

    promote: bool
    candidate: str
    rows: int
    reasons: tuple[Reason, ...]

    @property
    def why(self) -> str:
        """The reasons in one line: those that failed, or those that passed."""
        return "; ".join(r.detail for r in self.reasons if r.passed == self.promote)

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Decision:
        values = json.loads(text)
        values["reasons"] = tuple(Reason(**reason) for reason in values["reasons"])
        return cls(**values)

    def with_check(self, check: str, passed: bool, detail: str) -> Decision:
        """This decision after one more condition; failing it stops the promotion.

        A check made again takes the place of its last outcome, which then stops nothing more.
        """
        others = tuple(reason for reason in self.reasons if reason.check != check)
        stood = self.promote or (
            len(others) < len(self.reasons) and all(reason.passed for reason in others)
        )
        reasons = (*others, Reason(check, passed, detail))
        return Decision(stood and passed, self.candidate, self.rows, reasons)


def decide(candidate: str, scores: Mapping[str, Scores]) -> Decision:
    """Judge `candidate` against every other predictor in `scores`.

    All scores must come from the same rows. The candidate must have a mean
    absolute error lower than each rival's by `MARGIN`, and rank no worse than
    the best of them by `ORDER_SLACK`.
    """
    own = scores[candidate]
    rivals = {name: s for name, s in scores.items() if name != candidate}
    reasons = [
        Reason(
            "rows",
            own.n >= FEWEST_ROWS,
            f"judged on the newest {own.n} rows"
            + ("" if own.n >= FEWEST_ROWS else f", fewer than {FEWEST_ROWS} prove nothing"),
        )
    ]
    reasons += [_error(candidate, own, name, rival) for name, rival in rivals.items()]
    ranked = {name: s.order for name, s in rivals.items() if math.isfinite(s.order)}
    if ranked and math.isfinite(own.order):
        best = max(ranked, key=lambda name: ranked[name])
        passed = own.order >= ranked[best] - ORDER_SLACK
        verb = "orders" if passed else "orders worse:"
        reasons.append(
            Reason(
                "order",
                passed,
                f"{candidate} {verb} {own.order:.0%} of pairs rightly, {best} {ranked[best]:.0%}",
            )
        )
    return Decision(all(r.passed for r in reasons), candidate, own.n, tuple(reasons))


def _error(candidate: str, own: Scores, name: str, rival: Scores) -> Reason:
    passed = own.mae <= (1.0 - MARGIN) * rival.mae
    comparison = "beats" if passed else f"does not beat, by {MARGIN:.0%},"
    return Reason(
        f"error against {name}",
        passed,
        f"{candidate} (MAE {own.mae:.3g} s) {comparison} {name} ({rival.mae:.3g} s)",
    )
