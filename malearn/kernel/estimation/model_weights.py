"""How much a model counts beside what its function took lately, by how far each was off lately.

A model learns what inputs and recent times say of a tool type; a function may not be like the
others, and a backend may not be the one that was trained on. So both answers are followed, per
function and tool type, and the answer given lies between them, nearer to the better one.
"""

from __future__ import annotations

import math

from malearn.kernel.estimation import experts
from malearn.kernel.estimation.experts import ExpertErrors
from malearn.kernel.estimation.intervals import FUNCTIONS

__all__ = ["ModelWeights", "mixed"]

_LEAST_WEIGHT = 0.01  # not 0: `learn` divides by it to find the model's own answer


def mixed(history: float, model: float, weight: float) -> float:
    """What lies between two answers, all in seconds; `weight` is the model's, 0 to 1."""
    # Between them in log-seconds, the scale on which errors are compared.
    return history * math.exp(weight * math.log(model / history))


class ModelWeights:
    """The errors of both answers by function and tool type. Not thread-safe.

    Those of `functions` are remembered at most; the one seen longest ago is forgotten first.
    """

    __slots__ = ("_functions", "_most", "_tools")

    def __init__(self, functions: int = FUNCTIONS) -> None:
        self._most = functions
        self._functions: dict[str, ExpertErrors] = {}  # of the history and of the model
        self._tools: dict[str, ExpertErrors] = {}

    def weight(self, function: str, tool_type: str) -> float:
        """How much a model's next answer for `function` counts, above 0 and at most 1.

        1 until outcomes have shown how far its answers are off.
        """
        shared = self._tools.get(tool_type)
        if shared is None:
            return 1.0
        own = self._functions.get(function)
        return max(_LEAST_WEIGHT, experts.second_weight(own, shared))

    def learn(
        self,
        function: str,
        tool_type: str,
        history: float,
        weight: float,
        predicted: float,
        actual: float,
    ) -> None:
        """What came of an answer that was mixed of `history` and a model's with this `weight`.

        All in seconds. The model's own answer follows from that; nothing is learnt where it was the
        same, or there was none.
        """
        if predicted == history or not 0.0 < history < math.inf:
            return
        off = math.log(actual / history)
        # Undoes `mixed`: the answer lies the share `weight` of the way to the model's.
        model_off = off - math.log(predicted / history) / weight
        shared = self._tools.get(tool_type)
        if shared is None:
            shared = self._tools[tool_type] = ExpertErrors()
        own = self._functions.pop(function, None) or ExpertErrors()
        self._functions[function] = own  # the one seen last stands last
        if len(self._functions) > self._most:
            del self._functions[next(iter(self._functions))]
        for errors in (own, shared):
            errors.learn(abs(off), abs(model_off))
