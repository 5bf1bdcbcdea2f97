"""What malearn lacks: one part of its predictions at a time is replaced by the bar's.

`python -m benchmarks scheduling --part replaced` prints the table that stands in
docs/scheduling.md: the share of the bar's gain under each policy, at loads 0.9 and 1.1.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from benchmarks import bar_share, hindsight
from benchmarks.bar_share import Makers, Totals
from benchmarks.replacing import Replace, Replacing
from malearn.kernel.onnx.onnx_model import OnnxModel
from malearn.kernel.prediction import Prediction
from malearn.kernel.tool_types import ToolTypes
from malearn.learning import knowledge, policy_comparison, simulated_predictors, simulation
from malearn.learning.knowledge import Knowledge
from malearn.learning.policy_comparison import Settings
from malearn.learning.simulated_predictors import (
    Malearn,
    Noisy,
    Predictor,
    SimulatedWorkflow,
)
from malearn.learning.traces import RunTrace, TaskTrace

__all__ = ["PARTS", "table"]

_POLICIES = ("triage", "srw", "aged")
_SETTINGS = Settings(loads=(0.9, 1.1), policies=_POLICIES)
_GPUS = _SETTINGS.slots["gpu"]

#: Its own prediction and the bar's of one task, and whether the model answered, knowing its inputs;
#: what stands in for its own.
_Part = Callable[[Prediction, Prediction, bool], Prediction]


def _with_spread(one: Prediction, other: Prediction) -> Prediction:
    """The seconds of `one` with the relative interval of `other`."""
    ratio = one.seconds / other.seconds
    return msgspec.structs.replace(one, low=other.low * ratio, high=other.high * ratio)


#: By what is replaced.
PARTS: Mapping[str, _Part] = {
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
_ASKED = "the bar's seconds of tasks whose inputs are known and ran before on the backend only"
_INDEPENDENT = "its own lateness replaced by the sum of independent tasks"


def table(
    runs: Sequence[RunTrace], tool_types: ToolTypes, workers: int | None = None
) -> Iterator[str]:
    """The rows of the table, in Markdown; as many `workers` as `policy_comparison` has."""
    sigmas = policy_comparison.noise(runs, tool_types)
    asked = hindsight.earlier(runs, sigmas)
    jobs = (
        (known, sigmas[known.run.name], tool_types, asked[known.run.name])
        for known in knowledge.at_each_run(runs, tool_types, _GPUS)
    )
    found = policy_comparison.in_processes(_of_run, jobs, workers or _SETTINGS.workers)
    totals, seeds = bar_share.added(found), range(_SETTINGS.seeds)
    yield "| Share of the bar's gain | fewer misses, `triage` | mean, `srw` | mean, `aged` |"
    yield "| --- | --- | --- | --- |"
    for name in (*PARTS, _ASKED, _LEVELS, _INDEPENDENT):
        cells = [bar_share.share(totals, policy, name, seeds) for policy in _POLICIES]
        yield f"| {name} | {' | '.join(f'{100 * cell:.0f} %' for cell in cells)} |"


def _of_run(
    known: Knowledge, sigma: float, tool_types: ToolTypes, asked: Collection[str]
) -> Totals:
    return bar_share.simulated(known, _makers(known, sigma, tool_types, asked), _SETTINGS)


def _makers(
    known: Knowledge, sigma: float, tool_types: ToolTypes, asked: Collection[str]
) -> Makers:
    """The predictors of one run by their names in the table, each made for a seed."""
    models = known.load(tool_types)
    off = _level_errors(known, tool_types, models)

    def part(replace: _Part) -> Callable[[int], Predictor]:
        return lambda seed: Replacing(
            tool_types, *known.learnt(), models, replace=_by_bar(replace, Noisy(sigma, seed))
        )

    return {
        **bar_share.ends_of_the_scale(sigma),
        **{name: part(replace) for name, replace in PARTS.items()},
        _ASKED: lambda seed: Replacing(
            tool_types, *known.learnt(), models, replace=_where_asked(asked, Noisy(sigma, seed))
        ),
        _LEVELS: lambda seed: Replacing(
            tool_types, *known.learnt(), models, replace=_corrected_by(off)
        ),
        _INDEPENDENT: lambda seed: Independent(tool_types, *known.learnt(), models),
    }


def _by_bar(replace: _Part, bar: Noisy) -> Replace:
    return lambda live, task_id, own: replace(
        own, bar.drawn(live.trace, task_id), own.source == "model"
    )


def _where_asked(asked: Collection[str], bar: Noisy) -> Replace:
    """The bar's seconds of what could be known: inputs that ran before on the same backend."""

    def replaced(live: SimulatedWorkflow, task_id: str, own: Prediction) -> Prediction:
        if own.source != "model" or task_id not in asked:
            return own
        return _with_spread(bar.drawn(live.trace, task_id), own)

    return replaced


def _corrected_by(off: Mapping[str, float]) -> Replace:
    """Each function's predictions times the exponential of what it is `off`, in log-seconds."""

    def corrected(live: SimulatedWorkflow, task_id: str, own: Prediction) -> Prediction:
        factor = math.exp(off.get(live.workflow.tasks[task_id].function, 0.0))
        return msgspec.structs.replace(
            own, seconds=own.seconds * factor, low=own.low * factor, high=own.high * factor
        )

    return corrected


class Independent(Malearn):
    """Malearn's predictor with the lateness of independent tasks along the critical path."""

    def combine(self, live: SimulatedWorkflow, now: float) -> None:
        super().combine(live, now)
        left, deadline = live.left, live.workflow.deadline
        if left is None or deadline is None or not left.critical:
            return
        tasks = [left.tasks[task_id] for task_id in left.critical]
        room = deadline - now - sum(one.seconds for one in tasks)
        late = simulated_predictors.late_if_independent(tasks, room)
        live.left = msgspec.structs.replace(left, late=late)


class LevelErrors(Malearn):
    """Malearn's predictor, which notes how far it was off: `errors` holds by function the
    logarithms of true over predicted seconds."""

    def __init__(self, *own: Any) -> None:
        super().__init__(*own)
        self.errors: dict[str, list[float]] = defaultdict(list)

    def ended(self, live: SimulatedWorkflow, task: TaskTrace, start: float, end: float) -> None:
        said = live.expected[task.task_id].seconds
        self.errors[task.function].append(math.log(task.seconds / said))
        super().ended(live, task, start, end)


def _level_errors(
    known: Knowledge, tool_types: ToolTypes, models: Mapping[str, OnnxModel]
) -> dict[str, float]:
    """By function the median of log true over predicted seconds in that run, executed alone."""
    noting = LevelErrors(tool_types, *known.learnt(), models)
    arrivals = knowledge.poisson(known.run, 1.0, _GPUS, "gpu", 0, known.begins)
    simulation.simulate(arrivals, "fcfs", noting, {})
    return {function: statistics.median(some) for function, some in noting.errors.items()}
