"""What malearn lacks: one part of its predictions at a time is replaced by the bar's.

`python -m benchmarks scheduling --part replaced` prints the table that stands in
docs/scheduling.md: the share of the bar's gain under each policy, at loads 0.9 and 1.1.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor

import msgspec

from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.kernel.prediction import Prediction
from malearn.kernel.tool_types import ToolTypes
from malearn.kernel.workflows import remaining
from malearn.learning import knowledge, policy_comparison, simulation
from malearn.learning.knowledge import Knowledge
from malearn.learning.simulated_predictors import (
    Constants,
    Malearn,
    Noisy,
    Predictor,
    SimulatedWorkflow,
)
from malearn.learning.traces import RunTrace, TaskTrace

__all__ = ["PARTS", "table"]

_LOADS, _SEEDS, _SLOTS = (0.9, 1.1), (0, 1, 2), {"gpu": 8}
_POLICIES = ("triage", "srw", "aged")

#: Its own prediction and the bar's of one task, and whether the model answered, knowing its inputs;
#: what stands in for its own.
_Replace = Callable[[Prediction, Prediction, bool], Prediction]
#: Seconds by policy and predictor, missed deadlines under triage.
_Totals = dict[tuple[str, str], float]


def _with_spread(one: Prediction, other: Prediction) -> Prediction:
    """The seconds of `one` with the relative interval of `other`."""
    ratio = one.seconds / other.seconds
    return msgspec.structs.replace(one, low=other.low * ratio, high=other.high * ratio)


#: By what is replaced.
PARTS: Mapping[str, _Replace] = {
    "malearn": lambda own, bar, known: own,
    "its own seconds, the bar's spread": lambda own, bar, known: _with_spread(own, bar),
    "the bar's seconds, its own spread": lambda own, bar, known: _with_spread(bar, own),
    "the bar's seconds and spread, its own way to add them up": lambda own, bar, known: bar,
    "the bar's seconds of tasks whose inputs are known only": lambda own, bar, known: (
        _with_spread(bar, own) if known else own
    ),
    "the bar's seconds of tasks whose inputs are not known only": lambda own, bar, known: (
        own if known else _with_spread(bar, own)
    ),
}
_LEVELS = "its own, each function's level corrected by its median error of that run"
_INDEPENDENT = "its own lateness replaced by the sum of independent tasks"


def table(runs: Sequence[RunTrace], tool_types: ToolTypes, workers: int = 2) -> Iterator[str]:
    """The rows of the table, in Markdown."""
    sigmas = policy_comparison.noise(runs, tool_types)
    jobs = (
        (known, sigmas[known.run.name], tool_types)
        for known in knowledge.at_each_run(runs, tool_types, _SLOTS["gpu"])
    )
    totals: _Totals = defaultdict(float)
    # Spawned, as in `policy_comparison`.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(_of_run, *job) for job in jobs]:
            for key, value in future.result().items():
                totals[key] += value
    yield "| Share of the bar's gain | fewer misses, `triage` | mean, `srw` | mean, `aged` |"
    yield "| --- | --- | --- | --- |"
    for name in (*PARTS, _LEVELS, _INDEPENDENT):
        cells = [_share(totals, policy, name) for policy in _POLICIES]
        yield f"| {name} | {' | '.join(f'{100 * cell:.0f} %' for cell in cells)} |"


def _share(totals: _Totals, policy: str, name: str) -> float:
    default, bar = totals[policy, "default"], totals[policy, "bar"]
    return (default - totals[policy, name]) / (default - bar)


def _of_run(known: Knowledge, sigma: float, tool_types: ToolTypes) -> _Totals:
    models = known.load(tool_types)
    off = _level_errors(known, tool_types, models)
    found: _Totals = defaultdict(float)
    for load in _LOADS:
        for seed in _SEEDS:
            arrivals = knowledge.poisson(known.run, load, _SLOTS["gpu"], "gpu", seed)
            makers: dict[str, Callable[[], Predictor]] = {
                "default": Constants,
                "bar": lambda seed=seed: Noisy(sigma, seed),  # type: ignore[misc]
            }
            for name, replace in PARTS.items():
                makers[name] = lambda replace=replace, seed=seed: Replaced(  # type: ignore[misc]
                    known.malearn(tool_types, models), Noisy(sigma, seed), replace
                )
            makers[_LEVELS] = lambda: Replaced(known.malearn(tool_types, models), levels=off)
            makers[_INDEPENDENT] = lambda: Replaced(
                known.malearn(tool_types, models), independent=True
            )
            for name, make in makers.items():
                for policy in _POLICIES:
                    done = simulation.simulate(arrivals, policy, make(), _SLOTS, 2.0)
                    found[policy, name] += sum(
                        one.late if policy == "triage" else one.seconds for one in done
                    )
    return dict(found)


class Replaced:
    """Malearn's predictor, of which one part is replaced before tasks are added up.

    What it learns, it learns from its own predictions. `levels` are by how much each function's
    are corrected, in log-seconds; with `independent` the lateness is that of independent tasks.
    """

    learns = True

    def __init__(
        self,
        own: Malearn,
        bar: Noisy | None = None,
        replace: _Replace = PARTS["malearn"],
        levels: Mapping[str, float] | None = None,
        *,
        independent: bool = False,
    ) -> None:
        self._own, self._bar, self._replace = own, bar, replace
        self._levels, self._independent = levels or {}, independent
        self._combine = own.combine
        own.combine = self._combined  # type: ignore[method-assign]

    def expect(self, workflows: Sequence[SimulatedWorkflow], now: float) -> None:
        self._own.expect(workflows, now)

    def ended(self, live: SimulatedWorkflow, task: TaskTrace, start: float, end: float) -> None:
        self._own.ended(live, task, start, end)

    def finished(self, live: SimulatedWorkflow) -> None:
        self._own.finished(live)

    def _combined(self, live: SimulatedWorkflow, now: float) -> None:
        own = live.expected
        live.expected = {task_id: self._one(live, task_id, one) for task_id, one in own.items()}
        self._combine(live, now)
        live.expected = own
        left, deadline = live.left, live.workflow.deadline
        if self._independent and left is not None and deadline is not None and left.critical:
            tasks = [left.tasks[task_id] for task_id in left.critical]
            seconds = sum(one.seconds for one in tasks)
            deviation = math.hypot(*((one.high - one.seconds) / remaining.Z80 for one in tasks))
            room = (deadline - now - seconds) / max(deviation, 1e-9)
            late = 0.5 * math.erfc(room / math.sqrt(2.0))
            live.left = msgspec.structs.replace(left, late=late)

    def _one(self, live: SimulatedWorkflow, task_id: str, own: Prediction) -> Prediction:
        if self._bar is not None:
            known = own.source == "model"
            return self._replace(own, self._bar.drawn(live.trace, task_id), known)
        factor = math.exp(self._levels.get(live.workflow.tasks[task_id].function, 0.0))
        return msgspec.structs.replace(
            own, seconds=own.seconds * factor, low=own.low * factor, high=own.high * factor
        )


def _level_errors(
    known: Knowledge, tool_types: ToolTypes, models: Mapping[str, OnnxModel]
) -> dict[str, float]:
    """By function the median of log true over predicted seconds in that run, executed alone."""
    errors: dict[str, list[float]] = defaultdict(list)

    class Watched(Replaced):
        def ended(self, live: SimulatedWorkflow, task: TaskTrace, start: float, end: float) -> None:
            said = live.expected[task.task_id]
            errors[task.function].append(math.log(task.seconds / said.seconds))
            super().ended(live, task, start, end)

    arrivals = knowledge.poisson(known.run, 1.0, _SLOTS["gpu"], "gpu", 0)
    simulation.simulate(arrivals, "fcfs", Watched(known.malearn(tool_types, models)), {})
    return {function: statistics.median(some) for function, some in errors.items()}
