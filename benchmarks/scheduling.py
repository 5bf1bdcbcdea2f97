"""What predictions buy a scheduler, on real workflows replayed on 8 GPU slots.

Runs 3 to 21 below `$MALEARN_TRACES` (default: `../shared/traces`), Poisson arrivals at loads 0.7
to 1.3, six seeds, paired. Each predictor learns only from what has ended in the simulation. The
bar is `noise_limited`: true seconds times the noise that is measured on the same task, inputs and
backend. Whole workflows are scored as executed alone, at arrival and half way along their true
critical path. Changes of backend: run 16, and the first run on another backend in five orders of
the same runs, drawn at random. `--part replaced` prints which part of its predictions malearn
lacks, `--part hindsight` how far anyone could go, over twelve seeds.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import statistics
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks import hindsight, replaced_parts, serving, whole_paths
from benchmarks.figure import Figure, at_least, at_most
from malearn import DAGTaskPredictor, Workflow
from malearn.kernel import tool_types
from malearn.learning import policy_comparison, traces
from malearn.learning.knowledge import Probed
from malearn.learning.policy_comparison import Comparison, Settings
from malearn.learning.simulated_predictors import Noisy
from malearn.learning.traces import RunTrace, WorkflowTrace
from malearn.serving.cache import ModelCache
from malearn.serving.workflow_estimator import Queued

__all__ = ["PARTS", "figures"]

_LOADS = (0.7, 0.9, 1.1, 1.3)
_DEADLINES = (2.0, 1.5, 3.0)
_STEADY = ("fcfs", "arrival", "fewest_tasks", "edf", "srw", "aged", "triage")
_WITHOUT = ("fcfs", "arrival", "fewest_tasks", "edf")
_FIRST_OF_NEW_BACKEND = "run16.jsonl"
_ORDERS = range(1, 6)
#: With three seeds the shares of a gain have a standard error of 2 points by chance alone.
_SEEDS, _SEEDS_OF_CHANGES, _SEEDS_OF_HINDSIGHT = 6, 4, 12
_HOUR = 3600.0
_MOST_SECONDS = 600.0
_CLOCK = 1_754_100_000.0


def figures() -> Iterator[Figure]:
    """The figures on the logs; none where there are no logs."""
    runs = _runs()
    if not runs:
        return
    began = time.perf_counter()
    steady = compare(runs)
    print("\n".join(table(steady)))
    yield from _serving()
    yield from _bought(steady)
    print("\n".join(_by_novelty(steady, runs)), flush=True)
    yield from _deadlines(steady)
    yield from _whole_workflows(steady.probed)
    print("\n".join(_paths_of_the_bar(runs)), flush=True)
    changes = compare_changes(runs)
    for policy in ("srw", "aged"):
        share = _joint_share(changes, policy)
        name = f"{policy}: share of noise_limited's gain in mean, where backends change"
        yield at_least(name, share, "ratio", 0.70)
    yield at_most("the whole simulation", time.perf_counter() - began, "s", _MOST_SECONDS)


def compare(runs: Sequence[RunTrace]) -> Comparison:
    """All runs under all policies that the figures need."""
    settings = Settings(loads=_LOADS, seeds=_SEEDS, deadlines=_DEADLINES, policies=_STEADY)
    return policy_comparison.compare(runs, tool_types.declared(), settings)


def table(done: Comparison) -> Iterator[str]:
    """The rows of the table in docs/scheduling.md."""
    yield "| Policy | Predictor | Mean, s | P95, s | Late | Gain in mean |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for policy, rows in done.as_json()["policies"].items():
        for name, row in rows.items():
            gain, p95 = row["gain"], row["p95"]
            # Of few runs there is no interval.
            low, high = (
                "–" if gain[end] is None else f"{100 * gain[end]:.1f}" for end in ("low", "high")
            )
            yield (
                f"| {policy} | {name} | {row['mean']:.1f} | {p95:.0f} | {100 * row['late']:.1f} % "
                f"| {100 * gain['mean']:+.1f} % ({low} to {high}) |"
            )
            if policy in _WITHOUT:
                break  # whoever predicts


def compare_changes(runs: Sequence[RunTrace]) -> list[Comparison]:
    """The runs that are the first on another backend, in the order recorded and in others."""
    types = tool_types.declared()
    found = []
    for order in (0, *_ORDERS):
        shuffled = reordered(runs, order) if order else list(runs)
        sigmas = policy_comparison.noise(shuffled, types)
        names = [run.name for run in shuffled]
        changed = frozenset(
            after for before, after in itertools.pairwise(names) if sigmas[before] != sigmas[after]
        )
        settings = Settings(
            loads=(0.9, 1.1),
            seeds=_SEEDS_OF_CHANGES,
            policies=("srw", "aged"),
            predictors=("default", "malearn", "noise_limited"),
            runs=changed,
        )
        found.append(policy_comparison.compare(shuffled, types, settings))
    return found


def reordered(runs: Sequence[RunTrace], seed: int) -> list[RunTrace]:
    """The same runs in another order, their times shifted so that they follow each other."""
    shuffled = list(runs)
    random.Random(seed).shuffle(shuffled)
    clock, found = runs[0].workflows[0].arrived, []
    for run in shuffled:
        records = [t.record for w in run.workflows for t in w.tasks.values() if t.record]
        shift = clock - min(record.start for record in records)
        moved = tuple(_moved(workflow, shift) for workflow in run.workflows)
        found.append(RunTrace(run.name, moved))
        clock = max(record.end for record in records) + shift + _HOUR
    return found


def _moved(workflow: WorkflowTrace, shift: float) -> WorkflowTrace:
    tasks = {}
    for task_id, task in workflow.tasks.items():
        record = task.record
        if record is not None:
            start, end = record.start + shift, record.end + shift
            record = msgspec.structs.replace(record, start=start, end=end)
        tasks[task_id] = replace(task, record=record)
    arrived = workflow.arrived + shift
    return WorkflowTrace(workflow.run_id, workflow.kind, workflow.shape, tasks, arrived)


def _bought(done: Comparison) -> Iterator[Figure]:
    for policy, least in (("aged", 0.97), ("srw", 0.95)):
        share = done.share_of_gain(policy).mean
        print(_by_seed(done, policy))
        yield at_least(f"{policy}: share of noise_limited's gain in mean", share, "ratio", least)
    share = done.share_of_gain("triage", late=True).mean
    print(_by_seed(done, "triage", late=True))
    name = "triage: share of noise_limited's gain in missed deadlines"
    yield at_least(name, share, "ratio", 0.95)
    for policy in ("aged", "srw"):
        gain = done.gain(policy, "malearn", "function_ema").low
        name = f"{policy}: gain in mean over function_ema, lower end of the 95 % interval"
        yield at_least(name, gain, "ratio", 0.0)
    fewer = done.fewer_late("triage", "malearn", ("triage", "function_ema")).low
    name = "triage: fewer missed than with function_ema, lower end of the 95 % interval"
    yield at_least(name, fewer, "ratio", 0.0)


def _deadlines(done: Comparison) -> Iterator[Figure]:
    missed = done.late("triage", "malearn") / done.late("fewest_tasks", "default")
    yield at_most("triage misses, against fewest tasks left", missed, "ratio", 0.62)
    for factor in sorted(_DEADLINES):
        best = min(done.late(policy, "default", factor) for policy in _WITHOUT)
        missed = done.late("triage", "malearn", factor) / best
        name = f"triage misses at {factor:g} × the critical path, against the best without seconds"
        yield at_most(name, missed, "ratio", 1.0)


def _whole_workflows(probed: Sequence[Probed]) -> Iterator[Figure]:
    for passed, where in ((0.0, "at arrival"), (0.5, "half way")):
        rows = [row for row in probed if row.passed == passed]
        inside = statistics.fmean(row.low <= row.actual <= row.high for row in rows)
        name = f"workflows {where}: coverage of the 80 % interval, distance from 80 %"
        yield at_most(name, abs(inside - 0.8), "share", 0.03)
        error = statistics.median(abs(row.seconds / row.actual - 1.0) for row in rows)
        yield at_most(f"workflows {where}: median error of the path", error, "ratio", 0.14)
        ordered = sorted(pair for row in rows for pair in row.lateness)
        size = len(ordered) / 5
        fifths = [ordered[round(i * size) : round((i + 1) * size)] for i in range(5)]
        means = [tuple(map(statistics.fmean, zip(*fifth, strict=True))) for fifth in fifths]
        print(f"late {where}, by fifth:", *(f"{100 * a:.0f} % of {100 * b:.0f}" for a, b in means))
        off = max(abs(said - came) for said, came in means)
        name = f"workflows {where}: lateness against what came, in the worst fifth"
        yield at_most(name, off, "share", 0.05)


def _by_seed(done: Comparison, policy: str, *, late: bool = False) -> str:
    shares = done.share_by_seed(policy, late=late)
    error = statistics.stdev(shares) / math.sqrt(len(shares))
    each = " ".join(f"{share:.2f}" for share in shares)
    return f"{policy}, by seed: {each}; standard error of their mean {error:.3f}"


def _by_novelty(done: Comparison, runs: Sequence[RunTrace]) -> Iterator[str]:
    """The shares by what could be known."""
    sigmas = policy_comparison.noise(runs, tool_types.declared())
    for group, names in hindsight.by_novelty(runs, sigmas).items():
        shares = [
            f"{policy} {done.share_of_gain(policy, late=policy == 'triage', runs=names).mean:.2f}"
            for policy in ("aged", "srw", "triage")
        ]
        yield f"{group}, {len(names)} runs: {', '.join(shares)}"


def _paths_of_the_bar(runs: Sequence[RunTrace]) -> Iterator[str]:
    """How far `noise_limited` itself is off the remaining critical path."""
    sigmas = policy_comparison.noise(runs, tool_types.declared())
    for passed, where in ((0.0, "at arrival"), (0.5, "half way")):
        error = whole_paths.median_error(runs, lambda run: Noisy(sigmas[run.name]), passed)
        yield f"noise_limited {where}: median error of the path {error:.3f}"


def _replaced() -> Iterator[Figure]:
    """The table of docs/scheduling.md that says what malearn lacks; no figure has a target."""
    runs = _runs()
    if runs:
        print("\n".join(replaced_parts.table(runs, tool_types.declared())), flush=True)
    yield from ()


def _hindsight() -> Iterator[Figure]:
    """The table of docs/scheduling.md that says how far anyone could go."""
    runs = _runs()
    if runs:
        settings = Settings(loads=_LOADS, seeds=_SEEDS_OF_HINDSIGHT)
        print("\n".join(hindsight.table(runs, tool_types.declared(), settings)), flush=True)
    yield from ()


#: What `--part` measures alone.
PARTS = {"replaced": _replaced, "hindsight": _hindsight}


def _serving() -> Iterator[Figure]:
    """What it costs a scheduler to ask, against `estimate_many` of as many tasks.

    One call of each in turn. In blocks of calls their ratio swung by 15 % from process to process:
    not with hashes or addresses of memory, which may be held fixed, but with what else the machine
    did while one block ran. Two calls that follow each other meet the same.

    Workflows fan out from one task: to twelve of one function, which share their inputs, and to
    twelve of functions of their own. The first is the figure, the other one is printed beside it.
    """
    types = tool_types.declared()
    with TemporaryDirectory() as folder:
        cache = ModelCache(Path(folder), serving.NO_MLFLOW, "Production")
        artifact = serving.artifact(types[serving.TOOL])
        cache.write(types[serving.TOOL].registered_model, 1, artifact)
        nowhere = "redis://127.0.0.1:1"
        with DAGTaskPredictor(nowhere, serving.NO_MLFLOW, cache_dir=Path(folder)) as predictor:
            chain = _chain()
            own = [f"task{number}_{serving.FUNCTION}" for number in range(12)]
            many, queue = _fan_out(predictor, "one function", [serving.FUNCTION] * 12)
            many_own, queue_own = _fan_out(predictor, "functions of their own", own)
            tasks, workflows, one, tasks_own, workflows_own = serving.call_by_call(
                lambda: predictor.estimate_many(many),
                lambda: predictor.estimate_workflows(queue, _CLOCK),
                lambda: predictor.estimate_workflow(chain, now=_CLOCK),
                lambda: predictor.estimate_many(many_own),
                lambda: predictor.estimate_workflows(queue_own, _CLOCK),
                rounds=100,
            )
    for kind, alone, whole in (
        ("one function", tasks, workflows),
        ("functions of their own", tasks_own, workflows_own),
    ):
        each, in_workflows = alone / len(many) * 1e6, whole / len(many) * 1e6
        print(
            f"Workflows of 12 tasks of {kind}: {in_workflows:.1f} µs a task, {each:.1f} by "
            f"estimate_many, ratio {whole / alone:.2f}",
            flush=True,
        )
    name = "estimate_workflows of 100 workflows of 12, against estimate_many"
    yield at_most(name, workflows / tasks, "ratio", 1.5)
    yield at_most("estimate_workflow of 1,000 tasks", one * 1e3, "ms", 10.0)


def _fan_out(
    predictor: DAGTaskPredictor, name: str, functions: Sequence[str]
) -> tuple[list[tuple[str, str, tuple[str]]], list[Queued]]:
    """1,200 tasks, and the same as 100 workflows of tasks of `functions` with inputs reported."""
    many: list[tuple[str, str, tuple[str]]] = []
    queue: list[Queued] = []
    for number in range(100):
        run = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {number}"))
        root, record = f"{run}-root", json.loads(serving.record(number, 1000))
        announced = {f: serving.inputs(100 * n + number) for n, f in enumerate(functions)}
        record["succ_task_feat"] = announced
        predictor.collect_data_for_task(root, "root", json.dumps(record))
        tasks = {f"{run}-{n}{f}": (f, "gpu", [root]) for n, f in enumerate(functions)}
        many += [(function, "gpu", (root,)) for function in functions]
        shape = {root: ("root", "io", []), **tasks}
        queue.append((Workflow(run, shape, _CLOCK, _CLOCK + 100.0), {}, ()))
    return many, queue


def _chain() -> Workflow:
    """1,000 tasks, each of which waits for the two before it."""
    before = [[f"c{m}" for m in range(max(n - 2, 0), n)] for n in range(1_000)]
    tasks = {f"c{n}": (serving.FUNCTION, "gpu", b) for n, b in enumerate(before)}
    return Workflow("chain", tasks)


def _joint_share(done: Sequence[Comparison], policy: str) -> float:
    """Malearn's gain as a share of the bar's, over all runs that change."""
    default, ours, bar = (
        sum(float(one.seconds(policy, name).sum()) for one in done)
        for name in ("default", "malearn", "noise_limited")
    )
    return (default - ours) / (default - bar)


def _runs() -> list[RunTrace]:
    folder = Path(os.environ.get("MALEARN_TRACES", "../shared/traces")) / "maze"
    files = sorted(folder.glob("run*.jsonl"))[2:]
    return list(traces.read(files, folder / "workflows.json").runs) if files else []
