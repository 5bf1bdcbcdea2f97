"""How far anyone could go: the same simulation, predicted with hindsight.

The bar, `noise_limited`, knows true seconds but for noise, also of inputs that have never run.
Here three predictors know nothing of a task itself, but all else there is, more than any scheduler
has: the inputs of every task when its workflow arrives, and the whole log, its future included.

- Of what ran before on the same inputs and backend: what the bar says, or the median of what it
  took.
- Of other inputs: the mean of two regressions, boosted trees and extremely randomized trees, over
  the features, the function, the kind of workflow and what the same inputs took on another
  backend, around the function's median on this one. Both are fitted to all other queries of the
  log, those to come included.
- The third is the second with one thing less: how long a function takes on a backend, it knows only
  once the function has run there. Until then malearn's own prediction stands, and malearn adds up.

`python -m benchmarks scheduling --part hindsight` prints what they get of the bar's gain, beside
malearn, at all loads, by what could be known of the runs.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import GroupKFold
from xgboost import XGBRegressor

from benchmarks import bar_share, whole_paths
from benchmarks.bar_share import Makers, Totals
from benchmarks.replacing import Replacing
from malearn.kernel.estimation import intervals
from malearn.kernel.features import FeatureSchema
from malearn.kernel.prediction import Prediction
from malearn.kernel.tool_types import ToolTypes
from malearn.kernel.workflows.remaining import Z80
from malearn.learning import knowledge, policy_comparison
from malearn.learning.knowledge import Knowledge
from malearn.learning.policy_comparison import Settings
from malearn.learning.simulated_predictors import Noisy, SimulatedWorkflow
from malearn.learning.traces import RunTrace, TaskTrace, WorkflowTrace

__all__ = ["by_novelty", "earlier", "table"]

_POLICIES = ("aged", "srw", "triage")
_FOLDS = 10
#: By task: seconds, and the factor up to the end of an 80 % interval.
_Said = Mapping[str, tuple[float, float]]
_MEAN_ERROR = math.sqrt(2.0 / math.pi)  # of a normal distribution, in σ

BAR = "the bar on inputs that ran before, hindsight on others"
MEDIAN = "medians of inputs that ran before, hindsight on others"
LEVELS = "the same, but of functions that have run on the backend only"


@dataclass(frozen=True, slots=True)
class Known:
    """What hindsight knows of one run's tasks, by their ids.

    `earlier` is what is said by earlier runs of the same inputs on the same backend, where there
    are any, `fitted` by the regressions. `ran` are the functions that earlier runs had on it.
    """

    earlier: _Said
    fitted: _Said
    ran: frozenset[str]

    def said(self, task_id: str) -> tuple[float, float] | None:
        """What is said of a task, by whichever says most; None where nothing is."""
        return self.earlier.get(task_id) or self.fitted.get(task_id)


class Hindsight(Noisy):
    """Predicts with hindsight: of inputs that ran before as the bar does, or by `medians`."""

    def __init__(self, sigma: float, seed: object, known: Known, *, medians: bool) -> None:
        super().__init__(sigma, seed)
        self._known, self._medians = known, medians

    def drawn(self, trace: WorkflowTrace, task_id: str) -> Prediction:
        bar = super().drawn(trace, task_id)
        if not self._medians and task_id in self._known.earlier:
            return bar
        said = self._known.said(task_id)
        if said is None:
            # No regression is fitted to what belongs to no tool type, or ended without success: of
            # that the bar's is taken, which is more than hindsight could know. Most of it takes
            # milliseconds, but some tasks take seconds.
            return bar
        seconds, factor = said
        return Prediction(seconds, seconds / factor, seconds * factor, "model")


class OnceRun(Replacing):
    """Malearn's predictor, with hindsight of functions once they have run on the backend."""

    def __init__(self, *own: Any, known: Known) -> None:
        super().__init__(*own, replace=self._replaced)
        self._hindsight, self._ran = known, set(known.ran)

    def ended(self, live: SimulatedWorkflow, task: TaskTrace, start: float, end: float) -> None:
        super().ended(live, task, start, end)
        self._ran.add(task.function)

    def _replaced(self, live: SimulatedWorkflow, task_id: str, own: Prediction) -> Prediction:
        said = self._hindsight.said(task_id)
        if said is None or live.workflow.tasks[task_id].function not in self._ran:
            return own
        seconds, factor = said
        return Prediction(seconds, seconds / factor, seconds * factor, own.source)


def table(
    runs: Sequence[RunTrace],
    tool_types: ToolTypes,
    settings: Settings,
) -> Iterator[str]:
    """The rows of the tables, in Markdown, at the loads and seeds of `settings`."""
    sigmas = policy_comparison.noise(runs, tool_types)
    fitted = _fitted(runs, sigmas, tool_types)
    before, ran = earlier(runs, sigmas), _ran_before(runs, sigmas)
    hindsight = {run.name: Known(before[run.name], fitted, ran[run.name]) for run in runs}
    slots = settings.slots[settings.resource]
    jobs = (
        (known, sigmas[known.run.name], hindsight[known.run.name], tool_types, settings)
        for known in knowledge.at_each_run(runs, tool_types, slots)
    )
    by_run = list(policy_comparison.in_processes(_of_run, jobs, settings.workers))
    names = [run.name for run in runs]
    for group, some in {"all": names, **by_novelty(runs, sigmas)}.items():
        totals = bar_share.added(by_run[names.index(name)] for name in some)
        yield f"| Share of the bar's gain, {group}, {len(some)} runs | `aged` | `srw` | `triage` |"
        yield "| --- | --- | --- | --- |"
        for name in (BAR, MEDIAN, LEVELS, "malearn"):
            shares = (_share(totals, policy, name, settings.seeds) for policy in _POLICIES)
            yield f"| {name} | {' | '.join(shares)} |"
    for name in (BAR, MEDIAN):
        medians = name == MEDIAN

        def predictor(run: RunTrace, *, medians: bool = medians) -> Noisy:
            return Hindsight(sigmas[run.name], 0, hindsight[run.name], medians=medians)

        for passed, where in ((0.0, "at arrival"), (0.5, "half way")):
            error = whole_paths.median_error(runs, predictor, passed)
            yield f"{name}, {where}: median error of the path {error:.3f}"


def _share(totals: Totals, policy: str, name: str, seeds: int) -> str:
    """The share over all seeds, and the standard error of the mean of each seed's."""
    each = [bar_share.share(totals, policy, name, [seed]) for seed in range(seeds)]
    # Of few runs the bar may gain nothing with some seed, of which there is no share.
    each = [share for share in each if math.isfinite(share)]
    error = statistics.stdev(each) / math.sqrt(len(each)) if len(each) > 1 else math.nan
    share = bar_share.share(totals, policy, name, range(seeds))
    return f"{100 * share:.1f} % ± {100 * error:.1f}"


def _of_run(
    known: Knowledge, sigma: float, hindsight: Known, tool_types: ToolTypes, settings: Settings
) -> Totals:
    models = known.load(tool_types)
    makers: Makers = {
        **bar_share.ends_of_the_scale(sigma),
        BAR: lambda seed: Hindsight(sigma, seed, hindsight, medians=False),
        MEDIAN: lambda seed: Hindsight(sigma, seed, hindsight, medians=True),
        LEVELS: lambda seed: OnceRun(tool_types, *known.learnt(), models, known=hindsight),
        "malearn": lambda seed: known.malearn(tool_types, models),
    }
    return bar_share.simulated(known, makers, replace(settings, policies=_POLICIES))


def earlier(runs: Sequence[RunTrace], sigmas: Mapping[str, float]) -> dict[str, _Said]:
    """By run: the median of what the same query's task took in earlier runs on a backend of the
    same noise, and its interval, by how far these lay from it."""
    found: dict[str, _Said] = {}
    before: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    for run in runs:
        sigma = sigmas[run.name]
        keys = {
            task_id: (workflow.query, task.function, sigma)
            for workflow in run.workflows
            for task_id, task in workflow.tasks.items()
            if workflow.query
        }
        found[run.name] = {
            task_id: _of_repeats(before[key], sigma)
            for task_id, key in keys.items()
            if before.get(key)
        }
        for workflow in run.workflows:
            for task_id, task in workflow.tasks.items():
                if task_id in keys:
                    before[keys[task_id]].append(math.log(task.seconds))
    return found


def by_novelty(runs: Sequence[RunTrace], sigmas: Mapping[str, float]) -> dict[str, list[str]]:
    """The runs by what could be known of them: the bar knows new queries as well as old ones."""
    groups: dict[str, list[str]] = {}
    seen: dict[float, set[str]] = {}
    for run in runs:
        asked = [query for w in run.workflows if (query := w.query)]
        known = seen.setdefault(sigmas[run.name], set())
        if not known:
            group = "the first run on its backend"
        elif sum(query in known for query in asked) > len(asked) / 2:
            group = "most queries seen before on its backend"
        else:
            group = "most queries new to its backend"
        groups.setdefault(group, []).append(run.name)
        known.update(asked)
    return groups


def _ran_before(runs: Sequence[RunTrace], sigmas: Mapping[str, float]) -> dict[str, frozenset[str]]:
    """By run: the functions of earlier runs on a backend of the same noise."""
    found: dict[str, frozenset[str]] = {}
    before: dict[float, frozenset[str]] = defaultdict(frozenset)
    for run in runs:
        found[run.name] = before[sigmas[run.name]]
        before[sigmas[run.name]] |= {
            task.function for workflow in run.workflows for task in workflow.tasks.values()
        }
    return found


def _of_repeats(taken: Sequence[float], sigma: float) -> tuple[float, float]:
    """Of log-seconds that the same inputs took: the median, and the factor of the interval."""
    middle, error = statistics.median(taken), _MEAN_ERROR * sigma
    if len(taken) > 1:
        own = math.fsum(abs(one - middle) for one in taken) / (len(taken) - 1)
        error = intervals.among_repeats(error, own, len(taken))
    return math.exp(middle), math.exp(Z80 * error / _MEAN_ERROR)


@dataclass(frozen=True, slots=True)
class _Row:
    """One task that belongs to a tool type, as the regressions see it."""

    task_id: str
    query: str
    function: str
    kind: str
    sigma: float
    values: tuple[float, ...]
    log_seconds: float


def _fitted(runs: Sequence[RunTrace], sigmas: Mapping[str, float], tool_types: ToolTypes) -> _Said:
    """By task: seconds as told from all other queries, and the factor of the 80 % interval."""
    rows: dict[str, list[_Row]] = defaultdict(list)
    for run in runs:
        for workflow in run.workflows:
            for task_id, task in workflow.tasks.items():
                tool_type = tool_types.for_known(task.function)
                if tool_type is None or task.record is None:
                    continue
                values = FeatureSchema(tool_type).vectorize(task.record.features).values
                rows[tool_type.name].append(
                    _Row(
                        task_id,
                        workflow.query or workflow.run_id,
                        task.function,
                        workflow.kind,
                        sigmas[run.name],
                        values,
                        math.log(task.seconds),
                    )
                )
    found = {}
    for some in rows.values():
        expected = _out_of_fold(some)
        errors = [abs(one.log_seconds - said) for one, said in zip(some, expected, strict=True)]
        factor = math.exp(Z80 * statistics.fmean(errors) / _MEAN_ERROR)
        for one, said in zip(some, expected, strict=True):
            found[one.task_id] = math.exp(said), factor
    return found


def _out_of_fold(rows: Sequence[_Row]) -> list[float]:
    """Log-seconds of each row by regressions on the rows of other queries."""
    levels: dict[tuple[str, float], list[float]] = defaultdict(list)
    for row in rows:
        levels[row.function, row.sigma].append(row.log_seconds)
    level = np.array([statistics.median(levels[row.function, row.sigma]) for row in rows])
    queries = [row.query for row in rows]
    folds = min(_FOLDS, len(set(queries)))
    if folds < 2:
        return [float(one) for one in level]
    above = np.array([row.log_seconds for row in rows]) - level
    inputs, found = _inputs(rows, above.tolist()), level.copy()
    for train, test in GroupKFold(folds).split(inputs, groups=queries):
        boosted = XGBRegressor(
            n_estimators=300,
            max_depth=5,
            learning_rate=0.05,
            objective="reg:absoluteerror",
            subsample=0.8,
            colsample_bytree=0.8,
            n_jobs=1,
        ).fit(inputs[train], above[train])
        randomized = ExtraTreesRegressor(400, min_samples_leaf=3, random_state=0, n_jobs=1)
        randomized.fit(inputs[train], above[train])
        found[test] += (boosted.predict(inputs[test]) + randomized.predict(inputs[test])) / 2
    return [float(one) for one in found]


def _inputs(rows: Sequence[_Row], above: Sequence[float]) -> NDArray[np.float64]:
    """What the regressions read, one row each; `above` are log-seconds above the level."""
    functions = sorted({row.function for row in rows})
    kinds = sorted({row.kind for row in rows})
    seen: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    for row, one in zip(rows, above, strict=True):
        seen[row.query, row.function, row.sigma].append(one)
    sigmas = {row.sigma for row in rows}
    table = []
    for row in rows:
        # The same inputs on another backend, which tell most where they ran there.
        others = [seen.get((row.query, row.function, s), []) for s in sigmas - {row.sigma}]
        elsewhere = [one for some in others for one in some]
        table.append(
            [
                *row.values,
                row.sigma,
                float(bool(elsewhere)),
                statistics.median(elsewhere or [0.0]),
                *(float(row.function == name) for name in functions),
                *(float(row.kind == name) for name in kinds),
            ]
        )
    return np.where(np.isnan(table), -1.0, table)
