"""Eight schedulers on one Redis, and how many functions each remembers."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import numpy as np

from benchmarks.figure import Figure, at_most
from benchmarks.growth import curves
from benchmarks.growth.made_up import FUNCTIONS, TOOL, TYPES
from benchmarks.growth.process import answer, ask, resident, say
from malearn.kernel.estimation.estimator import Estimator
from malearn.kernel.estimation.observation import Observation
from malearn.kernel.home import Home
from malearn.platform import EmbeddedRedis
from malearn.serving import DAGTaskPredictor
from malearn.serving.shared_history import SharedHistory

__all__ = ["functions", "schedulers"]

#: How many functions are remembered: the default first.
_LIMITS = (2_048, 20_000, 100_000)
_SCHEDULERS, _RATE, _SECONDS = 8, 1_000, 12


def functions() -> Iterator[Figure]:
    """`SharedHistory` of as many functions as are set: asked for one, and what it occupies."""
    memory: dict[int, float] = {}
    for count in _LIMITS:
        say(f"memory of {count:,} functions")
        # A process of its own each: memory that is freed is not given back to the system.
        memory[count], _ = ask("schedulers", "memory", count, count)
    many = _LIMITS[-1]
    say(f"{2 * many:,} functions where {many:,} are set")
    beyond, forgotten = ask("schedulers", "memory", many, 2 * many)
    say("estimates")
    answers, plain = ask("schedulers", "latency")
    seconds = dict(zip(_LIMITS, answers, strict=True))
    say(f"an estimate with {many:,} functions takes {1e6 * (answers[-1] - answers[0]):.2f} µs more "
        f"than with {_LIMITS[0]:,}; reading seven plain objects of one among as many, "
        f"{1e6 * (plain[-1] - plain[0]):.2f} µs more")  # fmt: skip
    curves.draw(
        "functions",
        "functions remembered",
        {
            "an estimate, µs": {"best of 15": {n: 1e6 * took for n, took in seconds.items()}},
            "memory, MiB": {"of the history": memory},
        },
    )
    yield at_most(f"growth: an estimate with {many:,} functions, against {_LIMITS[0]:,}",
                  seconds[many] / seconds[_LIMITS[0]], "ratio", 1.2)  # fmt: skip
    name = f"growth: memory of {many:,} functions"
    yield at_most(name, memory[many], "MiB", 1_024.0)
    yield at_most(f"{name}, after twice as many came by", beyond / memory[many], "ratio", 1.1)
    yield at_most(f"growth: functions beyond {many:,} that were neither remembered nor counted",
                  abs(many - forgotten), "functions", 0)  # fmt: skip


def _fill(history: SharedHistory, count: int) -> None:
    for n in range(count):
        history.observe(str(n), Observation(f"growing{n}", TOOL.name, float(n), n + 2.0))


def _memory(limit: int, count: int) -> None:
    """MiB of the history, and how many functions it forgot."""
    before = resident()
    history = SharedHistory(limit)
    _fill(history, count)
    gc.collect()
    answer([resident() - before, history.functions[1]])


class _Plain:
    """The least that answers by name: a count, and four numbers one step further."""

    __slots__ = ("count", "numbers")

    def __init__(self, count: int, numbers: list[float]) -> None:
        self.count, self.numbers = count, numbers


def _latency() -> None:
    """Seconds of an estimate, and of reading a `_Plain`, for each of `_LIMITS`.

    In turn, as the machine is not always the same; estimates after something was observed, which
    is when they are computed anew. What plain objects cost more among many is the floor.
    """
    predictors = [DAGTaskPredictor("", tool_types=TYPES, functions=limit) for limit in _LIMITS]
    plain = [{f"growing{n}": _Plain(n, [n + 0.1, n + 0.2, n + 0.3, n + 0.4]) for n in range(limit)}
             for limit in _LIMITS]  # fmt: skip
    asked: list[list[str]] = []
    for predictor, limit in zip(predictors, _LIMITS, strict=True):
        # Not by reporting so many tasks, which would take minutes.
        _fill(predictor._parts.history, limit)
        asked.append(
            [f"growing{n}" for n in np.random.default_rng(0).choice(limit, 1_000).tolist()]
        )
    best, least = ([float("inf")] * len(_LIMITS) for _ in range(2))
    for turn in range(15):
        for place, predictor in enumerate(predictors):
            names = asked[place]
            seen = Observation(names[0], TOOL.name, 1e6, 1e6 + 2.0 + turn)
            predictor._parts.history.observe(f"x{turn}", seen)
            began = time.perf_counter()
            for function in names:
                predictor.estimate(function, "cpu")
            estimated, known = time.perf_counter(), plain[place]
            for function in names:
                one = known[function]
                first, second, third, fourth = one.numbers
                _ = one.count + first + second + third + fourth
            read = time.perf_counter()
            best[place] = min(best[place], (estimated - began) / len(names))
            least[place] = min(least[place], (read - estimated) / len(names))
    for predictor in predictors:
        predictor.close()
    answer([best, least])


def schedulers() -> Iterator[Figure]:
    """Processes that each report their share of the tasks, and what they know at the end."""
    say(f"{_SCHEDULERS} schedulers for {_SECONDS} seconds")
    with tempfile.TemporaryDirectory() as folder, EmbeddedRedis(Home(Path(folder))) as server:
        command = [sys.executable, "-m", "benchmarks.growth.schedulers"]
        command += ["scheduler", server.url]
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
                kind = int(draw.integers(FUNCTIONS))
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
        names = [f"growing{n}" for n in range(FUNCTIONS)]
        found = {name: predictor.estimate(name, "cpu").seconds for name in names}
    answer({"reported": reported, "seconds": found, "cpu": cpu})


if __name__ == "__main__":
    kind, *given = sys.argv[1:]
    if kind == "memory":
        _memory(int(given[0]), int(given[1]))
    elif kind == "latency":
        _latency()
    else:
        _scheduler(given[0], int(given[1]), float(given[2]))
