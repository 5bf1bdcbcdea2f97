"""What each part brings: the error without it against the error with it, on the same replays.

The runs in the order of time, and in the shuffled orders 1 to 5, where backends come and go.
Parts of the history are switched off in a replay without models, which is what shows them; a
replay with models follows in the order of time only. Its table of ratios to the better of
`function_median` and `function_ema` is the one in docs/accuracy.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks import shuffled
from benchmarks.accuracy import logs
from benchmarks.figure import Figure, at_least
from malearn.flows.evaluate import evaluate
from malearn.kernel import tool_types
from malearn.kernel.estimation import (
    experts,
    input_effects,
    level_state,
    level_tracker,
    model_weights,
    regimes,
    shared_changes,
)
from malearn.kernel.estimation.history import History
from malearn.learning import evaluation, families
from malearn.learning.evaluation import OURS, Evaluation

__all__ = ["figures"]

_TOOL_TYPES = ("vlm_process", "llm_process", "llm_fuse2In1")
_NEVER = 1_000_000  # no models, where only the baselines are needed
_HARMLESS = 0.99  # a part may cost a hundredth where there is nothing for it to do

#: What is switched off, and how: constants of modules set to another value.
Constants = Mapping[tuple[Any, str], Any]
_WITHOUT: dict[str, Constants] = {
    "remembered regimes": {(regimes, "_LEVELS"): 1},
    "following what others did since a change": {(shared_changes, "_COMPARED"): 0},
    "the levels of others": {(regimes, "_EVIDENCE"): 0.0},
    "the ageing by pauses": {(regimes, "_PAUSE"): 0},
    "weighing regimes and tracker by evidence": {(experts, "_SHARPNESS"): 0.0},
    "changes of regime in the tracker": {
        (level_tracker, "_TOOL_JUMP"): 0.0,
        (level_tracker, "_CLUSTER_JUMP"): 0.0,
    },
    "anything the tool type shares": {
        (level_tracker, "_TOOL_JUMP"): 0.0,
        (level_tracker, "_CLUSTER_JUMP"): 0.0,
        (level_tracker, "_TOOL_RATE"): 0.0,
    },
    "doubting jumps": {(level_state, "_LASTING_PRIOR"): 1e12},
    "doubting the moves of others": {
        (level_state, "_FOLLOWS_PRIOR"): 1e12,
        (level_state, "_FOLLOWS_OWN"): 1e12,
    },
    "the quick level": {(level_tracker, "_QUICK_RATE"): 0.0},
    "telling small moves of a level from inputs": {(input_effects, "_FOLLOWED"): 1.0},
    "similar inputs": {(input_effects, "_PRIOR"): 1e12},
    "rare equal values": {(input_effects, "_EXACT"): 0.0},
    "near values": {(input_effects, "_NEAR"): 0.0},
}
_ONE_STATE: Constants = {(History, "state"): lambda *_: ("steady", 0.0)}
_NOT_MIXED: Constants = {(model_weights, "_LEAST_WEIGHT"): 1.0}


@dataclass(frozen=True, slots=True)
class _Errors:
    """Mean over some orders: the ratio to the better baseline by tool type, and the order."""

    ratios: dict[str, float]
    order: float

    def __str__(self) -> str:
        cells = "  ".join(f"{name} {ratio:.3f}" for name, ratio in self.ratios.items())
        return f"{cells}  order {self.order:.3f}"


def figures() -> Iterator[Figure]:
    """Without each part against with it; none where there are no logs."""
    files = logs()
    if not files:
        return
    in_time = [evaluate(files)]
    yield from _of_models(in_time[0])
    orders = list(shuffled.orders(files, cadence=_NEVER))
    for where, replays in (("order of time", in_time), ("shuffled", orders)):
        alone = [_replayed(done, "", {}) for done in replays]
        whole = _errors(alone)
        print(f"{where + ', history alone':60} {whole}", flush=True)
        for name, constants in _WITHOUT.items():
            found = _errors([_replayed(done, "", constants) for done in replays])
            print(f"{where + ', without ' + name:60} {found}", flush=True)
            brings = float(np.mean([found.ratios[t] / whole.ratios[t] for t in _TOOL_TYPES]))
            figure = f"{where}: error without {name}, against with it, mean of three tool types"
            yield at_least(figure, brings, "ratio", _HARMLESS)
        _print_cover(where, alone, [_replayed(done, "", _ONE_STATE) for done in replays])


def _of_models(done: Evaluation) -> Iterator[Figure]:
    whole, alone = _errors([done]), _errors([_replayed(done, "", {})])
    unmixed = _errors([_replayed(done, families.DEFAULT, _NOT_MIXED)])
    print(f"{'order of time, malearn':60} {whole}", flush=True)
    print(f"{'order of time, the model alone':60} {unmixed}", flush=True)
    for name, found in (("models", alone), ("mixing model and history", unmixed)):
        brings = float(np.mean([found.ratios[t] / whole.ratios[t] for t in _TOOL_TYPES]))
        figure = f"order of time: error without {name}, against with it, mean of three tool types"
        yield at_least(figure, brings, "ratio", _HARMLESS)


def _print_cover(where: str, told_apart: Sequence[Evaluation], one: Sequence[Evaluation]) -> None:
    """The cover of intervals calibrated by state, and of all alike, on the same tasks."""
    for state in ("cold", "in_doubt", "steady"):
        cells = []
        for replays in (told_apart, one):
            inside = [
                bool(done.ours.low[i] <= done.actual[i] <= done.ours.high[i])
                for done, known in zip(replays, told_apart, strict=True)
                for i in done.rows()
                if known.ours.states[i] == state
            ]
            cells.append(f"{np.mean(inside):.3f}")
        print(
            f"{where}, cover of {state}, {len(inside)} tasks: {' or, states alike, '.join(cells)}"
        )


def _replayed(done: Evaluation, family: str, constants: Constants) -> Evaluation:
    """`done` with what a replay gives where `constants` hold."""
    with _set(constants):
        replayed = evaluation.replay(done.executions, tool_types.declared(), family=family)
    return replace(done, predicted={**done.predicted, OURS: replayed.seconds}, ours=replayed)


def _errors(replays: Sequence[Evaluation]) -> _Errors:
    return _Errors(
        {t: float(np.mean([shuffled.ratio(done, t) for done in replays])) for t in _TOOL_TYPES},
        float(np.mean([done.order()[OURS] for done in replays])),
    )


@contextmanager
def _set(constants: Constants) -> Iterator[None]:
    before = {place: getattr(*place) for place in constants}
    for place, value in constants.items():
        setattr(*place, value)
    try:
        yield
    finally:
        for place, value in before.items():
            setattr(*place, value)
