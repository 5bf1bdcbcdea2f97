"""Scheduling policies × predictors on the same workflows: what predictions would have bought.

Every pair replays every run with the same arrivals (paired), at each load and with each seed.
Gains are those in mean completion, and in missed deadlines, against constants under the same
policy; their 95 % intervals come from drawing whole runs with replacement, since what happens
within a run is not independent; of a single run from drawing its workflows, each with all seeds
and loads. The same settings give the same numbers.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from malearn.kernel.errors import InputError
from malearn.kernel.tool_type import DEFAULT_SECONDS
from malearn.kernel.tool_types import ToolTypes
from malearn.learning import knowledge, simulation
from malearn.learning.knowledge import Knowledge, Probed
from malearn.learning.simulated_predictors import Constants, Noisy, Predictor
from malearn.learning.traces import RunTrace, TaskTrace, WorkflowTrace

__all__ = [
    "FEWEST_DRAWN",
    "PREDICTORS",
    "Comparison",
    "Gain",
    "Settings",
    "TaskRun",
    "compare",
    "in_processes",
    "noise",
]

_Result = TypeVar("_Result")

#: Who predicts, by the name under which results are reported.
PREDICTORS = ("default", "function_ema", "malearn", "noise_limited", "oracle")

#: σ of the logarithm of what the same task takes on the same inputs and backend, as measured on
#: HuggingFace and on vLLM, which is three to four times as fast: nobody can know that part.
_NOISE_SLOW, _NOISE_FAST = 0.09, 0.21
_NOISE_TYPE = "vlm_process"  # whose median shows a run's backend …
_FAST = 0.5  # … where it is below this share of the whole log's

_DRAWS = 2_000  # of whole runs, for an interval
#: Of fewer there is no interval: what is drawn from two can only be the lesser and the greater.
FEWEST_DRAWN = 5


@dataclass(frozen=True, slots=True)
class Settings:
    """What is simulated.

    `loads` are arrivals × mean true seconds on `resource` of a workflow ÷ slots; None stands for
    arrivals as recorded. `deadlines` are multiples of the critical path of true seconds. `runs`
    are simulated by name; the others only teach. Empty: all of them.
    """

    slots: Mapping[str, int] = field(default_factory=lambda: {"gpu": 8})
    resource: str = "gpu"
    loads: tuple[float | None, ...] = (0.9,)
    seeds: int = 3
    deadlines: tuple[float, ...] = (2.0,)
    policies: tuple[str, ...] = tuple(simulation.POLICIES)
    predictors: tuple[str, ...] = PREDICTORS
    runs: frozenset[str] = frozenset()
    workers: int = field(default_factory=lambda: min(os.cpu_count() or 1, 8))


@dataclass(frozen=True, slots=True)
class Gain:
    """A ratio of what constants take, and its 95 % interval over runs; of a single run over its
    workflows, which says less, as they wait for each other. The interval is NaN where there are
    fewer than `FEWEST_DRAWN` of those."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class _Cell:
    """One simulation: its workflows in the order of arrival, the seconds that each took from
    arrival to end, and whether it missed its deadline, by factor."""

    run: str
    policy: str
    predictor: str
    seed: int
    workflows: tuple[str, ...]
    seconds: tuple[float, ...]
    late: Mapping[float, tuple[bool, ...]]


@dataclass(frozen=True, slots=True)
class TaskRun:
    """When one task of a workflow held a slot, in seconds since the run began."""

    workflow: str
    function: str
    start: float
    end: float


#: What the simulations of one run give.
_Simulated = tuple[list[_Cell], tuple[TaskRun, ...]]


class Comparison:
    """The outcome: completions by policy, predictor and run.

    `probed` are predictions of whole workflows, `example` is what the slots did in the last run,
    under the last policy, with malearn's predictions, where there are those.
    """

    def __init__(
        self,
        settings: Settings,
        workflows: int,
        cells: Iterable[_Cell],
        probed: Sequence[Probed] = (),
        example: tuple[TaskRun, ...] = (),
    ) -> None:
        self.settings, self.workflows = settings, workflows
        self.probed, self.example = tuple(probed), example
        self._cells: dict[tuple[str, str, str], list[_Cell]] = {}
        for cell in cells:
            self._cells.setdefault((cell.policy, cell.predictor, cell.run), []).append(cell)
        self.runs = tuple(dict.fromkeys(run for _, _, run in self._cells))

    def seconds(self, policy: str, predictor: str) -> NDArray[np.float64]:
        """From arrival to end, of every simulated workflow."""
        return np.concatenate([self._seconds(policy, predictor, run) for run in self.runs])

    def late(self, policy: str, predictor: str, factor: float | None = None) -> float:
        """The share of workflows that missed their deadline, at the first factor unless another
        is named; each simulated workflow counts once, however many its run has."""
        simulated = sum(
            len(cell.workflows) for run in self.runs for cell in self._cells[policy, predictor, run]
        )
        return float(self._late(policy, predictor, factor).sum() / simulated)

    def gain(self, policy: str, predictor: str, against: str = "default") -> Gain:
        """By how much mean completion is shorter than with another predictor."""
        ours, theirs = self._sums(policy, predictor), self._sums(policy, against)
        return _interval(len(ours), lambda rows: float(1.0 - ours[rows].sum() / theirs[rows].sum()))

    def fewer_late(
        self, policy: str, predictor: str, against: tuple[str, str], factor: float | None = None
    ) -> Gain:
        """By how much fewer workflows miss their deadline than under another policy and
        predictor; NaN where none does there."""
        ours, theirs = self._late(policy, predictor, factor), self._late(*against, factor)
        # Another policy may miss no deadline at all.
        return _interval(
            len(ours), lambda rows: float(1.0 - ours[rows].sum() / (theirs[rows].sum() or math.nan))
        )

    def share_of_gain(self, policy: str, *, late: bool = False, runs: Collection[str] = ()) -> Gain:
        """Malearn's gain over constants as a share of what `noise_limited` gains, in `runs`; in
        all where none is named. The gain is in seconds, or in workflows that are in time where
        `late` is set; NaN where `noise_limited` gains nothing."""
        default, ours, bar = (
            self._late(policy, name, None, runs) if late else self._sums(policy, name, runs)
            for name in ("default", "malearn", "noise_limited")
        )
        return _interval(
            len(ours),
            lambda rows: float(
                (default - ours)[rows].sum() / ((default - bar)[rows].sum() or math.nan)
            ),
        )

    def share_by_seed(self, policy: str, *, late: bool = False) -> tuple[float, ...]:
        """`share_of_gain` with the arrivals of each seed alone: how much is owed to chance."""
        totals: dict[tuple[str, int], float] = defaultdict(float)
        for (which, predictor, _), cells in self._cells.items():
            for cell in cells if which == policy else ():
                at = self.settings.deadlines[0]
                totals[predictor, cell.seed] += sum(cell.late[at] if late else cell.seconds)
        return tuple(
            (totals["default", seed] - totals["malearn", seed])
            / ((totals["default", seed] - totals["noise_limited", seed]) or math.nan)
            for seed in range(self.settings.seeds)
        )

    def as_json(self) -> dict[str, Any]:
        """The form that `malearn simulate --json` prints."""
        policies: dict[str, Any] = {}
        for policy in self.settings.policies:
            policies[policy] = {}
            for predictor in self.settings.predictors:
                seconds, gain = self.seconds(policy, predictor), self.gain(policy, predictor)
                policies[policy][predictor] = {
                    "mean": float(seconds.mean()),
                    "p95": float(np.quantile(seconds, 0.95)),
                    "late": self.late(policy, predictor),
                    # JSON has no NaN.
                    "gain": {
                        name: value if math.isfinite(value) else None
                        for name, value in asdict(gain).items()
                    },
                }
        return {"workflows": self.workflows, "policies": policies, "settings": self._settings()}

    def _settings(self) -> dict[str, Any]:
        """What the numbers are of; all loads are pooled in them."""
        chosen = self.settings
        return {
            "slots": dict(chosen.slots),
            "loads": ["recorded" if load is None else load for load in chosen.loads],
            "seeds": chosen.seeds,
            "deadlines": list(chosen.deadlines),
            "runs": list(self.runs),
        }

    def _seconds(self, policy: str, predictor: str, run: str) -> NDArray[np.float64]:
        return np.concatenate([cell.seconds for cell in self._cells[policy, predictor, run]])

    def _sums(self, policy: str, predictor: str, runs: Collection[str] = ()) -> NDArray[np.float64]:
        """Seconds from arrival to end, by what intervals draw."""
        return self._by_drawn(policy, predictor, runs, lambda cell: cell.seconds)

    def _late(
        self, policy: str, predictor: str, factor: float | None, runs: Collection[str] = ()
    ) -> NDArray[np.float64]:
        """How many workflows missed their deadline, in all simulations, by what intervals draw."""
        at = self.settings.deadlines[0] if factor is None else factor
        return self._by_drawn(policy, predictor, runs, lambda cell: cell.late[at])

    def _by_drawn(
        self,
        policy: str,
        predictor: str,
        runs: Collection[str],
        values: Callable[[_Cell], Sequence[float]],
    ) -> NDArray[np.float64]:
        """Sums over all seeds and loads by run, those in `runs` if any is named; by workflow where
        that is a single run."""
        named = [run for run in self.runs if not runs or run in runs]
        sums: dict[str, float] = defaultdict(float)
        for run in named:
            for cell in self._cells[policy, predictor, run]:
                for workflow, value in zip(cell.workflows, values(cell), strict=True):
                    sums[run if len(named) > 1 else workflow] += value
        # Workflows arrive in another order with each seed, the same for whoever predicts.
        return np.array(list(sums.values()), dtype=np.float64)


def _interval(n: int, statistic: Callable[[NDArray[np.intp]], float]) -> Gain:
    """Of `n` units, drawn with replacement; `statistic` takes the places of those drawn."""
    whole = statistic(np.arange(n))
    if n < FEWEST_DRAWN:
        return Gain(whole, math.nan, math.nan)
    # The same draws for every statistic, so that two gains of one comparison are comparable.
    draws = np.random.default_rng(0).integers(0, n, (_DRAWS, n))
    values = [statistic(rows) for rows in draws]
    # A draw of runs without any gain has no share of it: such draws are NaN, and left out.
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Gain(whole, math.nan, math.nan)
    low, high = np.quantile(known, (0.025, 0.975))
    return Gain(whole, float(low), float(high))


def compare(
    runs: Sequence[RunTrace],
    tool_types: ToolTypes,
    settings: Settings,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Simulate every policy with every predictor on `runs`, which follow each other in time.

    Raises `InputError` for slots of what the load is a share of where no task runs on it, and of
    what is no resource.
    """
    chosen = [run for run in runs if not settings.runs or run.name in settings.runs]
    _check_slots(settings, chosen)
    names = {run.name for run in chosen}
    probed: list[Probed] = []
    known = knowledge.at_each_run(
        runs,
        tool_types,
        settings.slots.get(settings.resource, 1),
        settings.resource,
        wanted=names,
        probed=probed,
    )
    sigmas = noise(runs, tool_types)
    last = chosen[-1].name if chosen else ""
    jobs = (
        (k, sigmas[k.run.name], tool_types, settings, k.run.name == last)
        for k in known
        if k.run.name in names
    )
    cells: list[_Cell] = []
    examples: list[tuple[TaskRun, ...]] = []
    for done, (found, example) in enumerate(in_processes(_simulate, jobs, settings.workers), 1):
        cells += found
        examples.append(example)
        progress(done, len(chosen))
    workflows = sum(len(run.workflows) for run in chosen)
    return Comparison(settings, workflows, cells, probed, examples[-1])


def _check_slots(settings: Settings, runs: Sequence[RunTrace]) -> None:
    """Refuse slots that would make all policies come out alike, as if seconds bought nothing."""
    used = {
        where
        for run in runs
        for workflow in run.workflows
        for _, where, _ in workflow.shape.values()
    }
    unused = settings.slots.keys() - used
    # A cluster has its CPUs even where these workflows use none; any other name is a slip.
    wrong = sorted(unused - DEFAULT_SECONDS.keys() | unused & {settings.resource})
    if runs and wrong:
        raise InputError(
            "slots",
            f"no task of these workflows runs on {' or '.join(wrong)}; "
            f"they run on {', '.join(sorted(used))}",
        )


def in_processes(
    call: Callable[..., _Result], jobs: Iterable[tuple[Any, ...]], workers: int
) -> Iterator[_Result]:
    """What `call` returns for the arguments of every job, in order."""
    if workers <= 1:
        for job in jobs:
            yield call(*job)
        return
    # Spawned, not forked: threads of numerical libraries do not survive a fork.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(call, *job) for job in jobs]
        for future in futures:
            yield future.result()


def _simulate(
    known: Knowledge, sigma: float, tool_types: ToolTypes, settings: Settings, shown: bool
) -> _Simulated:
    """All simulations of one run, and one of them as an example where it is `shown`."""
    models = known.load(tool_types)
    predictors: dict[str, Callable[[int], Predictor]] = {
        "default": lambda seed: Constants(),
        "function_ema": lambda seed: known.moving_average(),
        "malearn": lambda seed: known.malearn(tool_types, models),
        "noise_limited": lambda seed: Noisy(sigma, seed),
        "oracle": lambda seed: Noisy(0.0),
    }
    cells: list[_Cell] = []
    for load in settings.loads:
        for seed in range(settings.seeds):
            arrivals = _arrivals(known, load, seed, settings)
            for policy in settings.policies:
                cells += _one_policy(known.run, predictors, settings, arrivals, policy, seed)
    return cells, _example(known, predictors["malearn"](0), settings) if shown else ()


def _example(known: Knowledge, ours: Predictor, settings: Settings) -> tuple[TaskRun, ...]:
    arrivals = _arrivals(known, settings.loads[0], 0, settings)
    policy = settings.policies[-1]
    done = simulation.simulate(arrivals, policy, ours, settings.slots, settings.deadlines[0])
    return tuple(
        TaskRun(
            one.trace.run_id,
            one.trace.shape[task_id][0],
            start - known.begins,
            end - known.begins,
        )
        for one in done
        for task_id, (start, end) in one.tasks.items()
        if one.trace.shape[task_id][1] == settings.resource
    )


def _one_policy(
    run: RunTrace,
    predictors: Mapping[str, Callable[[int], Predictor]],
    settings: Settings,
    arrivals: Sequence[tuple[float, WorkflowTrace]],
    policy: str,
    seed: int,
) -> list[_Cell]:
    # Policies that read deadlines are simulated once for each factor, the others once.
    factors = settings.deadlines if policy in simulation.WITH_DEADLINES else settings.deadlines[:1]
    cells: list[_Cell] = []
    for name in settings.predictors:
        # The order, and so every end, is the same whoever predicts: one simulation stands for all.
        if policy in simulation.WITHOUT_SECONDS and cells:
            first = cells[0]
            cells.append(replace(first, predictor=name))
            continue
        late: dict[float, tuple[bool, ...]] = {}
        workflows: tuple[str, ...] = ()
        seconds: tuple[float, ...] = ()
        for factor in factors:
            ours = predictors[name](seed)
            done = simulation.simulate(arrivals, policy, ours, settings.slots, factor)
            # As they arrived, so that whoever predicts the same workflow stands in the same place.
            done.sort(key=lambda one: (one.arrived, one.trace.run_id))
            # One simulation is measured against all deadlines, unless they steer the order.
            compared = [factor] if len(factors) > 1 else settings.deadlines
            for at in compared:
                late[at] = tuple(d.seconds > at * d.trace.critical_path for d in done)
            # What is shown of the whole is from the first factor.
            workflows = workflows or tuple(d.trace.run_id for d in done)
            seconds = seconds or tuple(d.seconds for d in done)
        cells.append(_Cell(run.name, policy, name, seed, workflows, seconds, late))
    return cells


def _arrivals(
    known: Knowledge, load: float | None, seed: int, settings: Settings
) -> list[tuple[float, WorkflowTrace]]:
    run, begins = known.run, known.begins
    if load is not None:
        slots = settings.slots.get(settings.resource, 1)
        return knowledge.poisson(run, load, slots, settings.resource, seed, begins)
    return [(begins + workflow.arrived - run.began, workflow) for workflow in run.workflows]


def noise(runs: Sequence[RunTrace], tool_types: ToolTypes) -> dict[str, float]:
    """σ of the noise of each run, by name, from the backend that it seems to have had.

    A run is fast whose median `vlm_process` takes less than half of the log's. One without such
    tasks is taken for what its other medians are nearest to.
    """
    medians = {run.name: _medians(run, tool_types) for run in runs}
    known = {name: found for name, found in medians.items() if _NOISE_TYPE in found}
    usual = statistics.median(
        [
            task.seconds
            for run in runs
            for workflow in run.workflows
            for task in workflow.tasks.values()
            if _claims(tool_types, task, _NOISE_TYPE)
        ]
        or [math.nan]
    )
    fast = {name for name, found in known.items() if found[_NOISE_TYPE] < _FAST * usual}
    sides = [[known[name] for name in known if (name in fast) is side] for side in (True, False)]
    for name, found in medians.items():
        if name not in known and _distance(found, sides[0]) < _distance(found, sides[1]):
            fast.add(name)
    return {name: _NOISE_FAST if name in fast else _NOISE_SLOW for name in medians}


def _distance(found: Mapping[str, float], others: Sequence[Mapping[str, float]]) -> float:
    """How far medians lie from those of other runs, in log-seconds; infinite without any."""
    apart = [
        abs(math.log(seconds / statistics.median(known)))
        for name, seconds in found.items()
        if (known := [other[name] for other in others if name in other])
    ]
    return statistics.fmean(apart) if apart else math.inf


def _medians(run: RunTrace, tool_types: ToolTypes) -> dict[str, float]:
    """The median seconds of the run's tasks by tool type, those that nobody claims left out."""
    found: dict[str, list[float]] = {}
    for workflow in run.workflows:
        for task in workflow.tasks.values():
            tool_type = tool_types.for_known(task.function)
            if tool_type is not None and task.record is not None:
                found.setdefault(tool_type.name, []).append(task.seconds)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def _claims(tool_types: ToolTypes, task: TaskTrace, name: str) -> bool:
    tool_type = tool_types.for_known(task.function)
    return tool_type is not None and tool_type.name == name and task.record is not None
