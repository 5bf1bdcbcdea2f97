"""Tool types: what a name, a start, a refresh, a status and an ingestion cost with many."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

from benchmarks.figure import Figure, at_most
from benchmarks.growth import curves
from benchmarks.growth.made_up import declaration, executions, many_types
from benchmarks.growth.process import answer, ask, say, timed
from malearn.data.ingest import Ingest, Validate
from malearn.kernel.home import Home
from malearn.kernel.records import Execution
from malearn.kernel.tool_types import ToolTypes
from malearn.platform import EmbeddedRedis, MLflowServer
from malearn.serving.registry import Registry

if TYPE_CHECKING:
    import pyarrow

__all__ = ["flat", "ingestion", "names", "status"]

_SIZES = (10, 100, 1_000)
_MALEARN = Path(sys.executable).with_name("malearn")
_ROUNDS = 3


def names() -> Iterator[Figure]:
    """A name that was never met, of a declared tool type."""

    def seconds(count: int) -> float:
        types = many_types(count)
        best = []
        for turn in range(7):
            new = [f"task{i}_tool3_step_v{turn}x{i}" for i in range(500)]
            began = time.perf_counter()
            for name in new:
                types.for_function(name)
            best.append((time.perf_counter() - began) / len(new))
        return min(best)

    found = {count: seconds(count) for count in _SIZES}
    curves.draw(
        "names",
        "tool types",
        {"a new name, µs": {"best of 7": {count: 1e6 * took for count, took in found.items()}}},
    )
    yield at_most("growth: a new name with 1,000 tool types, against 10",
                  found[1_000] / found[10], "ratio", 1.5)  # fmt: skip


def flat() -> Iterator[Figure]:
    """What must not depend on the tool types declared: help, a predictor's start, a refresh."""
    with tempfile.TemporaryDirectory() as folder:
        files = {n: declaration(Path(folder) / f"{n}.toml", n) for n in (10, 1_000)}
        say("--help")
        yield _flat("--help", lambda n: timed([str(_MALEARN), "--help"], _declared(files[n]))[1])
        home = Home(Path(folder) / "home")
        with EmbeddedRedis(home) as redis, MLflowServer(home) as mlflow:
            say("a predictor's start")
            yield _flat("a predictor's start", lambda n: ask("tool_types", "start", redis.url,
                                                             files[n]))  # fmt: skip
            for number in range(8):
                _register(mlflow.url, f"malearn-t{number}")
            say("refreshing the aliases")
            yield _flat("a refresh of the aliases", lambda n: _refresh(mlflow.url, n))


def _flat(what: str, cpu: object) -> Figure:
    assert callable(cpu)
    best: dict[int, list[float]] = defaultdict(list)
    for _ in range(_ROUNDS):  # in turn: the machine is not the same all the time
        for count in (10, 1_000):
            best[count].append(cpu(count))
    ratio = min(best[1_000]) / min(best[10])
    return at_most(f"growth: CPU of {what} with 1,000 tool types, against 10", ratio, "ratio", 1.2)


def _declared(file: Path) -> dict[str, str]:
    return {"MALEARN_TOOL_TYPES": str(file)}


def _start(url: str, file: str) -> None:
    """CPU seconds of a predictor from the first import until it is ready."""
    os.environ["MALEARN_TOOL_TYPES"] = file
    from malearn.serving import DAGTaskPredictor

    with DAGTaskPredictor(url) as predictor:
        predictor.wait_until_ready(60.0)
        predictor.estimate("task1_tool3_step", "cpu")
        answer(time.process_time())


def _register(tracking_uri: str, name: str) -> None:
    body = json.dumps({"name": name}).encode()
    address = f"{tracking_uri}/api/2.0/mlflow/registered-models/create"
    kind = {"Content-Type": "application/json"}
    with urlopen(Request(address, body, kind), timeout=60):
        pass


def _refresh(tracking_uri: str, count: int) -> float:
    registry = Registry(tracking_uri)
    models = [one.registered_model for one in many_types(count).values()]
    registry.versions(models)
    began = time.process_time()
    for _ in range(50):
        registry.versions(models)
    return time.process_time() - began


def status() -> Iterator[Figure]:
    """`malearn status` with 1,000 tool types, of which 100 have 20 executions each."""
    with tempfile.TemporaryDirectory() as folder:
        file = declaration(Path(folder) / "types.toml", 1_000)
        home = Home(Path(folder) / "home")
        say("2,000 executions of 100 among 1,000 tool types")
        Ingest(home, many_types(1_000)).take(executions(2_000, 100), "made up")
        with MLflowServer(Home(Path(folder) / "mlflow")) as mlflow:
            given = _declared(file) | {"MLFLOW_TRACKING_URI": mlflow.url}
            command = [str(_MALEARN), "status", "--json", "--home", str(home.root)]
            say("malearn status")
            wall, cpu = min(timed(command, given) for _ in range(_ROUNDS))
    yield at_most("growth: status with 1,000 tool types, MLflow running", wall, "s", 10.0)
    yield at_most("growth: the same, CPU of the command", cpu, "s", 10.0)


def ingestion() -> Iterator[Figure]:
    """2,000 tasks of 100 tool types where 1,000 are declared, against 2,000 among 10.

    And against the floor: the same rows appended to the same tables by delta-rs alone.
    """
    best: dict[tuple[int, int, str], list[list[float]]] = defaultdict(list)
    cases = [(10, 10, "plain"), (1_000, 100, "plain"), (100, 100, "plain"),
             (10, 10, "bare"), (100, 100, "bare"),
             (10, 10, "validated"), (1_000, 100, "validated")]  # fmt: skip
    for number in range(_ROUNDS):
        say(f"ingesting, round {number + 1} of {_ROUNDS}")
        for case in cases if number == 0 else cases[:5]:  # validation takes longest
            best[case].append(ask("tool_types", "ingest", *case))
    few, many, own, bare_few, bare = (
        [min(column) for column in zip(*best[case], strict=True)] for case in cases[:5]
    )
    name = "growth: ingesting 2,000 tasks of 100 among 1,000 tool types"
    # Ten times as many tables are written, each by a commit of its own: what is left for the ratio
    # of all is what a row costs.
    floor = f"{bare[1] / bare_few[1]:.1f} times the CPU where delta-rs alone appends the rows"
    yield at_most(f"{name}, against of 10 among 10 ({floor})", many[0] / few[0], "ratio", 2.0)
    yield at_most(f"{name}, against delta-rs alone", many[0] / bare[0], "ratio", 2.0)
    yield at_most(f"{name}, the same, CPU", many[1] / bare[1], "ratio", 2.0)
    yield at_most(f"{name}, against of 10 among 10, CPU a table", many[1] / few[1] / 10.0,
                  "ratio", 2.0)  # fmt: skip
    yield at_most(f"{name}, CPU against of 100 among 100", many[1] / own[1], "ratio", 1.2)
    say(f"a table: {10 * many[0]:.1f} ms, {10 * many[1]:.1f} ms of CPU; "
        f"delta-rs alone {10 * bare[0]:.1f} ms, {10 * bare[1]:.1f} ms of CPU")  # fmt: skip
    few, many = (min(best[case]) for case in cases[5:])
    yield at_most(f"{name}, with validation, CPU a table", many[1] / few[1] / 10.0, "ratio", 2.0)


def _ingest(declared: int, used: int, how: str) -> None:
    """Wall and CPU seconds of an ingestion into tables that exist."""
    types = many_types(declared)
    validator: Validate | None = None
    if how == "validated":
        from malearn import expectations

        validator = expectations.validate
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        Ingest(home, types, validator).take(executions(used, used), "before")
        given = executions(2_000, used, first=10_000)
        tables = _tables(home, types, given) if how == "bare" else {}
        began, used_cpu = time.perf_counter(), time.process_time()
        if tables:
            _append(tables)
        else:
            report = Ingest(home, types, validator).take(given, "made up")
            assert report.accepted == len(given), report
        taken = [time.perf_counter() - began, time.process_time() - used_cpu]
    answer(taken)


def _tables(home: Home, types: ToolTypes, given: Sequence[Execution]) -> dict[str, pyarrow.Table]:
    """The rows of `given` as they are stored, by the folder of their table."""
    from malearn.data.delta import execution_columns
    from malearn.data.rows import Rows

    rows: dict[str, list[Execution]] = defaultdict(list)
    for execution in given:
        rows[execution.tool_type].append(execution)
    return {
        str(home.data / name): execution_columns.table(Rows.from_executions(types[name], found))
        for name, found in rows.items()
    }


def _append(tables: Mapping[str, pyarrow.Table]) -> None:
    """What no ingestion can do without: one commit a table, with its application transaction."""
    from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

    for folder, rows in tables.items():
        table = DeltaTable(folder)
        mark = Transaction("malearn", table.version() + 1)
        write_deltalake(table, rows, mode="append",
                        commit_properties=CommitProperties(app_transactions=[mark]))  # fmt: skip


if __name__ == "__main__":
    kind, *given = sys.argv[1:]
    if kind == "start":
        _start(*given)
    else:
        _ingest(int(given[0]), int(given[1]), given[2])
