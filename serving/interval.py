"""How far the truth may lie from an answer.

Intervals are multiplicative: execution times err by factors, not by seconds.
`malearn.kernel.intervals` calibrates them as outcomes come in; before there are
enough, what the model was judged by, or a wide default, stands in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from malearn.kernel.intervals import Width, confidence
from malearn.kernel.prediction import Source

__all__ = ["Interval", "from_width", "interval"]

#: `(low, high, confidence)`: two factors on the seconds answered, and 0…1.
Interval = tuple[float, float, float]

#: About 80 % of outcomes, where the model's own calibration says nothing better.
_FACTORS: Mapping[Source, tuple[float, float]] = {
    "model": (0.6, 1.7),
    "function_history": (0.5, 2.0),
    "tool_history": (0.3, 3.5),
    "heuristic": (0.1, 10.0),
}


def interval(source: Source, calibration: Mapping[str, float] | None = None) -> Interval:
    """Factors and confidence of an answer from `source`.

    `calibration` is the metadata's `{"low": factor, "high": factor}`. Confidence
    falls with the interval's width: 1 where there is none, 0 at the heuristic's.
    """
    low, high = _FACTORS[source]
    if calibration:
        low = _factor(calibration.get("low"), low, below=True)
        high = _factor(calibration.get("high"), high, below=False)
    return low, high, confidence(math.log(high / low))


def from_width(width: Width) -> Interval:
    """Factors and confidence of the calibration that runs in this process."""
    factor = math.exp(width.half)
    return 1.0 / factor, factor, confidence(2.0 * width.half)


def _factor(value: object, otherwise: float, *, below: bool) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0.0:
        return otherwise
    return min(float(value), 1.0) if below else max(float(value), 1.0)
