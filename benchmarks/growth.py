"""Growth: what costs more once there is more, as ratios within one run.

Rows of a table, tool types, functions and schedulers grow; the cost of what only needs the newest
must not. `MALEARN_BENCH_ROWS` sets the size of the large table (1,000,000); CPU seconds and memory
are of a process of its own each, imports left out of the seconds. The curves are drawn into
`benchmarks/growth.png`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from uuid import UUID

import numpy as np

from benchmarks.figure import Figure, at_most
from malearn.data import execution_window
from malearn.data.dataset import Dataset
from malearn.data.rows import Rows
from malearn.kernel.estimation.estimator import Estimator
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.home import Home
from malearn.kernel.tool_types import Feature, ToolType, ToolTypes
from malearn.learning import evaluation, matrix, regressor
from malearn.lifecycle import live
from malearn.platform import EmbeddedRedis
from malearn.serving import DAGTaskPredictor
from malearn.serving.shared_history import SharedHistory

__all__ = ["figures"]

TOOL = ToolType(
    "growing", ("growing",), "cpu", (Feature("words"), Feature("pages")), train_rows=20_000
)
TYPES = ToolTypes([TOOL])
_FUNCTIONS = 200
_BATCH = 50_000
_SCHEDULERS, _RATE, _SECONDS = 8, 1_000, 12


def figures() -> Iterator[Figure]:
    """All of them; the largest tables last."""
    yield from _names()
    yield from _many_functions()
    yield from _schedulers()
    yield from _tables(int(os.environ.get("MALEARN_BENCH_ROWS") or 1_000_000))


def _names() -> Iterator[Figure]:
    def seconds(count: int) -> float:
        types = ToolTypes(ToolType(f"t{n}", (f"tool{n}_step",), "cpu", ()) for n in range(count))
        best = []
        for turn in range(7):
            names = [f"task{i}_tool3_step_v{turn}x{i}" for i in range(500)]
            began = time.perf_counter()
            for name in names:
                types.for_function(name)
            best.append(time.perf_counter() - began)
        return min(best)

    few, many = seconds(10), seconds(1_000)
    yield at_most("growth: a new name with 1,000 tool types, against 10", many / few, "ratio", 1.5)


def _many_functions() -> Iterator[Figure]:
    """`SharedHistory` of as many functions as are set, asked for one of them."""

    def latency(functions: int) -> float:
        history = SharedHistory(functions)
        for n in range(functions):
            history.observe(str(n), Observation(f"f{n}", TOOL.name, float(n), n + 2.0))
        best = []
        for _ in range(5):
            began = time.perf_counter()
            for n in range(2_000):
                history.look_up(f"f{n * 7 % functions}", TOOL.name, (1.0, 2.0), ())
            best.append(time.perf_counter() - began)
            history.observe(f"x{len(best)}", Observation("f1", TOOL.name, 1e6, 1e6 + 2.0))
        return min(best)

    few, many = latency(2_048), latency(100_000)
    yield at_most("growth: an estimate with 100,000 functions, against 2,048", many / few, "ratio",
                  1.2)  # fmt: skip


def _schedulers() -> Iterator[Figure]:
    """Processes that each report their share of the tasks, and what they know at the end."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Home(Path(folder))) as server:
        command = [sys.executable, "-m", "benchmarks.growth", "scheduler", server.url]
        began = time.time() + 8.0
        running = [
            subprocess.Popen([*command, str(n), repr(began)], stdout=subprocess.PIPE, text=True)
            for n in range(_SCHEDULERS)
        ]
        found = [json.loads(process.communicate()[0]) for process in running]
    everything = Estimator()
    reported = sorted((tuple(one) for f in found for one in f["reported"]), key=lambda o: o[2])
    for function, start, end in reported:
        everything.observe(Observation(str(function), TOOL.name, float(start), float(end)))
    errors = [
        abs(seconds / everything.look_up(name, TOOL.name).seconds - 1.0)
        for one in found
        for name, seconds in one["seconds"].items()
    ]
    rate = f"{_SCHEDULERS} schedulers, {len(reported) / _SECONDS:,.0f} tasks a second"
    yield at_most(f"growth: {rate}, estimates off who saw everything, median",
                  float(np.median(errors)), "share", 0.02)  # fmt: skip
    yield at_most(f"growth: {rate}, the same, 95 %", float(np.quantile(errors, 0.95)), "share",
                  0.02)  # fmt: skip
    share = float(np.median([one["cpu"] for one in found]))
    yield at_most(f"growth: {rate}, of a core for each, its own reports included", share, "share",
                  0.10)  # fmt: skip


def _scheduler(url: str, number: int, began: float) -> None:
    """One of them: what it reported, what it then estimates, and the share of a core it took."""
    draw = np.random.default_rng(number)
    reported: list[tuple[str, float, float]] = []
    with DAGTaskPredictor(url, tool_types=TYPES) as predictor:
        predictor.wait_until_ready(30.0)
        time.sleep(max(0.0, began - time.time()))
        used, started = time.process_time(), time.time()
        while (now := time.time()) < started + _SECONDS:
            due = int((now - started) * _RATE / _SCHEDULERS)
            for n in range(len(reported), due):
                kind = int(draw.integers(_FUNCTIONS))
                level = (1.0 + kind % 9) * (1.0 if now < started + _SECONDS / 2 else 1.5)
                seconds = level * float(np.exp(draw.normal(0.0, 0.01)))
                name = f"growing{kind}"
                record = {"status": "finished", "start_time": now - seconds, "end_time": now}
                task_id = f"{UUID(int=number * 10**9 + n)}-{name}"
                predictor.collect_data_for_task(task_id, name, record)
                reported.append((name, now - seconds, now))
            time.sleep(0.02)
        cpu = (time.process_time() - used) / (time.time() - started)
        time.sleep(5.0)
        names = [f"growing{n}" for n in range(_FUNCTIONS)]
        found = {name: predictor.estimate(name, "cpu").seconds for name in names}
    print(json.dumps({"reported": reported, "seconds": found, "cpu": cpu}))


def _tables(large: int) -> Iterator[Figure]:
    sizes = [large // 10, large]
    measured: dict[str, dict[int, tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(Path(folder) / TOOL.name, TOOL)
        for size in sizes:
            _fill(dataset, size)
            for what in ("train", "monitor", "status"):
                command = [sys.executable, "-m", "benchmarks.growth", what, str(dataset.path)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                measured.setdefault(what, {})[size] = tuple(json.loads(done.stdout))
    for what, by_size in measured.items():
        small, big = by_size[sizes[0]], by_size[sizes[1]]
        of = f"{what} at {sizes[1]:,} rows, against {sizes[0]:,}"
        yield at_most(f"growth: {of}: CPU seconds", big[0] / small[0], "ratio", 1.3)
        yield at_most(f"growth: {of}: memory", big[1] / small[1], "ratio", 1.3)
    yield at_most(f"growth: train at {large:,} rows", measured["train"][large][1], "MiB", 2_048.0)
    _draw(measured)


def _fill(dataset: Dataset, size: int) -> None:
    """Append executions until there are `size`."""
    for first in range(dataset.rows, size, _BATCH):
        count = min(_BATCH, size - first)
        draw = np.random.default_rng(first)
        kinds = draw.integers(_FUNCTIONS, size=count).tolist()
        inputs = draw.uniform(1.0, 100.0, (count, 2))
        start = 1.6e9 + first + np.arange(count, dtype=np.float64)
        seconds = (1.0 + np.array(kinds) % 9) * inputs[:, 0] ** 0.3
        names = [f"growing{kind}" for kind in kinds]
        ids = [f"{UUID(int=first + n)}-{name}" for n, name in enumerate(names)]
        nothing = [()] * count
        predicted = np.full(count, np.nan)
        dataset.append(
            Rows(TOOL, ids, names, [""] * count, start, start + seconds, inputs, inputs, predicted,
                 [None] * count, list(nothing), list(nothing), [None] * count, list(nothing),
                 [""] * count)
        )  # fmt: skip


def _measure(what: str, path: Path) -> None:
    """CPU seconds and the most MiB of reading, and computing on, what `what` needs."""
    began = time.process_time()
    dataset = Dataset(path, TOOL)
    if what == "train":
        window = execution_window.read(dataset, TOOL.train_rows)
        regressor.fit("xgboost", matrix.build(TOOL, window.executions, window.before))
    elif what == "monitor":
        window = execution_window.read(dataset, execution_window.TAIL)
        rows = matrix.build(TOOL, window.executions, window.before)
        evaluation.replay(rows.executions, TYPES, family="")
    else:
        live.score_live(dataset.newest(execution_window.TAIL), TYPES)
        dataset.rows_added_since(0)
    used = time.process_time() - began
    print(json.dumps([used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0]))


def _draw(measured: Mapping[str, Mapping[int, Sequence[float]]]) -> None:
    from matplotlib.figure import Figure as Page

    page = Page(figsize=(9, 4), layout="constrained")
    for axes, place, title in zip(
        page.subplots(1, 2), (0, 1), ("CPU seconds", "memory, MiB"), strict=True
    ):
        for what, by_size in measured.items():
            axes.plot(list(by_size), [one[place] for one in by_size.values()], "o-", label=what)
        axes.set(xscale="log", xlabel="rows in the table", title=title)
        axes.set_ylim(bottom=0)
        axes.legend()
    page.savefig(Path(__file__).with_name("growth.png"), dpi=110)


if __name__ == "__main__":
    kind, given, *more = sys.argv[1:]
    if kind == "scheduler":
        _scheduler(given, int(more[0]), float(more[1]))
    else:
        _measure(kind, Path(given))
